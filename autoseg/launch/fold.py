"""One fold from end to end: train, predict its validation cases, score them. This is what ``autoseg_train`` does."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg.data.dataset import Case, Dataset
from autoseg.data.labels import Region
from autoseg.data.splits import Fold, Splits, get_fold
from autoseg.data.workspace import Workspace
from autoseg.documents import format_json, read_document, write_document, write_text
from autoseg.errors import PlanError, WorkspaceError
from autoseg.evaluate.evaluate import Metrics, evaluate_folder
from autoseg.launch.first_stage import (
    FirstStage,
    check_record,
    open_first_stage,
    open_previous,
    segment_unseen,
)
from autoseg.launch.initial import open_initial
from autoseg.plan.plan import Plan, read_plan
from autoseg.plurals import count
from autoseg.predict.model import Member, Model
from autoseg.predict.predictor import predict_cases
from autoseg.preprocess.store import CaseStore, preprocessing_digest, remove_stale
from autoseg.train.exclusion import hold_folder
from autoseg.train.initial import InitialRun
from autoseg.train.log import Logger
from autoseg.train.loop import train_fold
from autoseg.train.machine import Machine
from autoseg.train.state import load_network, read_progress

OnCase = Callable[..., None]

FOLD_FOLDER = re.compile(r"fold_(\d+)")


@dataclass(frozen=True)
class FoldRun:
    """All that one fold's run needs, found and checked before anything long is started.

    Attributes:
        first: the first stage, if the plan is the second one of a cascade; ``store`` then has what that finds.
        initial: the run whose weights it is still to start from; None: random ones, or its own checkpoint's.
    """

    dataset: Dataset
    plan: Plan
    fold: Fold
    store: CaseStore
    folder: Path
    first: FirstStage | None = None
    initial: InitialRun | None = None

    @property
    def metrics_path(self) -> Path:
        """Where the validation scores stand."""
        return self.folder / "validation" / "metrics.json"

    @property
    def validation_cases(self) -> tuple[Case, ...]:
        """The raw validation cases, in the fold's order."""
        by_name = {case.name: case for case in self.dataset.cases}
        return tuple(by_name[name] for name in self.fold.validation)

    @property
    def cases(self) -> tuple[Case, ...]:
        """All raw cases of the fold."""
        wanted = {*self.fold.train, *self.fold.validation}
        return tuple(case for case in self.dataset.cases if case.name in wanted)


def open_fold(workspace: Workspace, dataset: Dataset, plan_name: str, fold: int) -> FoldRun:
    """Find the plan, the fold and the preprocessed cases of one run.

    Raises:
        PlanError: there is no such plan, or its file was renamed, or what it builds on is not trained.
        WorkspaceError: planning or preprocessing is unfinished, or the dataset has changed since.
        DatasetError: there is no such fold.
    """
    plan = read_plan_of(workspace, dataset, plan_name)
    return open_run_of(workspace, dataset, plan, fold, workspace.fold(dataset.name, plan_name, fold))


def read_plan_of(workspace: Workspace, dataset: Dataset, plan_name: str) -> Plan:
    """Return a plan by its name.

    Raises:
        PlanError: there is no such plan, or its file was renamed.
        WorkspaceError: the dataset's channels or labels have changed since.
    """
    path = workspace.plan(dataset.name, plan_name)
    plan = read_plan(path)
    if plan.name != plan_name:
        raise PlanError(f"-a {plan_name}: {path} calls itself {plan.name!r}; the file, its 'name' and -a must agree")
    _check_plan(plan, path, dataset)
    return plan


def open_run_of(workspace: Workspace, dataset: Dataset, plan: Plan, fold: int, folder: Path) -> FoldRun:
    """Find the fold and the preprocessed cases of a run of ``plan`` in ``folder``.

    Raises:
        PlanError: the plan's first stage, or the run whose weights it starts from, is not trained.
        WorkspaceError: preprocessing is unfinished, or the dataset has changed since.
        DatasetError: there is no such fold.
    """
    splits = read_document(workspace.splits(dataset.name), Splits)
    chosen = get_fold(splits, fold)
    store = open_cases(workspace, dataset, plan, chosen)
    initial = open_initial(workspace, plan, fold, folder, chosen.validation)
    if plan.previous_stage is None:
        return FoldRun(dataset, plan, chosen, store, folder, initial=initial)
    first = open_first_stage(workspace, plan, splits, chosen, store)
    check_record(first, folder)
    return FoldRun(dataset, plan, chosen, first.store, folder, first, initial)


def open_cases(workspace: Workspace, dataset: Dataset, plan: Plan, fold: Fold) -> CaseStore:
    """Return the preprocessed cases of a plan, which has all of the fold.

    Raises:
        WorkspaceError: preprocessing is unfinished, or the dataset has changed since.
    """
    store = CaseStore(workspace.preprocessed(dataset.name, preprocessing_digest(plan)))
    _check_cases(dataset, fold, store)
    return store


def _check_plan(plan: Plan, path: Path, dataset: Dataset) -> None:
    """Refuse a plan whose channels or labels are not those of the dataset any more."""
    described = plan.dataset
    now = dataset.labels or described.label_scheme  # folders without dataset.json declare none
    pairs: dict[str, tuple[object, object]] = {
        "channels": (list(described.channels), list(dataset.channels)),
        "labels": (described.labels, now.labels),
        "regions": (_describe_regions(described.regions), _describe_regions(now.regions)),
    }
    for what, (planned, found) in pairs.items():
        if planned != found:
            raise WorkspaceError(
                f"{path}: the dataset's {what} have changed since it was planned, {planned} then and {found} now in "
                f"{dataset.folder}; run autoseg_plan -d {dataset.name} again"
            )


def _describe_regions(regions: Mapping[str, Region]) -> list[tuple[str, list[int]]]:
    """Return name and label values in the regions' order, which numbers the network's outputs."""
    return [(name, list(region.labels)) for name, region in regions.items()]


def _check_cases(dataset: Dataset, fold: Fold, store: CaseStore) -> None:
    command = f"run autoseg_plan -d {dataset.name}"
    wanted = {*fold.train, *fold.validation}
    if both := sorted(set(fold.train) & set(fold.validation)):
        raise WorkspaceError(f"splits.json: cases {both[:5]} are on both sides of the fold; leave each on one side")
    if gone := sorted(wanted - {case.name for case in dataset.cases}):
        raise WorkspaceError(f"{dataset.folder}: cases {gone[:5]} of the fold are not there any more; {command} again")
    if missing := sorted(wanted - set(store.names())):
        raise WorkspaceError(
            f"{store.folder}: {len(missing)} of {count(len(wanted), 'case')} are not preprocessed, e.g. "
            f"{missing[0]}; {command}"
        )


def find_unseen(run: FoldRun, *, device: torch.device, on_case: Callable[[Case], None] | None = None) -> None:
    """In a cascade, store what the first stage finds in all cases by networks that did not see them; else return."""
    if run.first:
        segment_unseen(run.first, run.plan, run.cases, run.folder, device=device, on_case=on_case)


def train(run: FoldRun, machine: Machine, *, on_event: Callable[[Any], None], loggers: Sequence[Logger] = ()) -> None:
    """Train the fold, going on from its last checkpoint if there is one; in a cascade, after ``find_unseen``."""
    machine.processes.lead(lambda: find_unseen(run, device=machine.device))
    train_fold(
        run.plan, run.store, run.fold, run.folder, machine, on_event=on_event, loggers=loggers, initial=run.initial
    )


def validate(run: FoldRun, *, device: torch.device, num_workers: int, on_case: OnCase | None = None) -> Metrics:
    """Predict and score the fold's validation cases with the last checkpoint, and write validation/.

    The last and not the best checkpoint: the best one was chosen on these very cases and would flatter the result.

    Raises:
        TrainingError: another process trains or validates this fold; or the checkpoint is unreadable.
    """
    with hold_folder(run.folder):
        return _validate(run, device=device, num_workers=num_workers, on_case=on_case)


def _validate(run: FoldRun, *, device: torch.device, num_workers: int, on_case: OnCase | None) -> Metrics:
    network = load_network(run.folder, run.plan, which="last", device=device)
    target = run.folder / "validation"
    remove_stale(target, older_than=0)
    model = Model((Member(run.plan, (network,), previous=run.store if run.first else None),), device)
    timings = predict_cases(model, run.validation_cases, target, on_case=on_case, ending=".nii.gz")
    write_text(target / "timing.json", format_json({"cases": {t.name: t.seconds for t in timings}}) + "\n")
    labels, tolerance = run.plan.dataset.label_scheme, run.plan.prediction.surface_tolerance_mm
    metrics = evaluate_folder(
        run.validation_cases, target, labels,
        tolerance_mm=tolerance, lesions=run.dataset.lesions, num_workers=num_workers,
    )  # fmt: skip
    write_document(run.metrics_path, metrics)
    return metrics


def open_networks(
    workspace: Workspace, dataset: str, plan_name: str, folds: Sequence[int], device: torch.device
) -> tuple[Plan, list[torch.nn.Module]]:
    """Load the trained networks of a plan: those of ``choose_folds``.

    Raises:
        PlanError: the plan has no trained fold, or not the ones asked for.
        TrainingError: a checkpoint is unreadable.
    """
    chosen = choose_folds(workspace, dataset, plan_name, folds)
    runs = [workspace.fold(dataset, plan_name, fold) for fold in chosen]
    plan = read_run_plan(runs[0])
    return plan, [load_network(folder, plan, which="last", device=device) for folder in runs]


def open_member(
    workspace: Workspace, dataset: str, plan_name: str, folds: Sequence[int], device: torch.device, weight: float = 1.0
) -> Member:
    """Load the trained networks of a plan as ``open_networks`` does, in a cascade with those of the first stage.

    Raises:
        PlanError: the plan has no trained fold, or not the ones asked for, or the first stage's are not there.
        TrainingError: a checkpoint is unreadable.
    """
    chosen = choose_folds(workspace, dataset, plan_name, folds)
    plan, networks = open_networks(workspace, dataset, plan_name, chosen, device)
    runs = [workspace.fold(dataset, plan_name, fold) for fold in chosen]
    return Member(plan, tuple(networks), weight, open_previous(plan, runs, device))


def read_run_plan(run_folder: Path) -> Plan:
    """Return the plan that stands beside the results of a fold.

    Raises:
        PlanError: it is gone. DocumentError: it is not valid.
    """
    path = run_folder / "plan.json"
    if not path.is_file():
        raise PlanError(f"{path}: no such file; copy the run's whole folder, or train the fold again")
    return read_document(path, Plan)


def choose_folds(workspace: Workspace, dataset: str, plan_name: str, folds: Sequence[int]) -> list[int]:
    """Return the folds to predict with: the given ones as they are now, or all whose training is finished.

    Raises:
        PlanError: the plan has no trained fold, or not the ones asked for.
    """
    trained = trained_folds(workspace, dataset, plan_name)
    if not trained:
        known = _trained_plans(workspace, dataset)
        raise PlanError(
            f"-a {plan_name}: no trained fold in {workspace.fold(dataset, plan_name, 0).parent}; "
            f"trained plans: {', '.join(known) or 'none'}; train it with autoseg_train -d {dataset} -a {plan_name} -f 0"
        )
    if wrong := sorted(set(folds) - set(trained)):
        raise PlanError(f"-f {wrong[0]}: this fold of {plan_name} is not trained; trained folds: {trained}")
    return list(dict.fromkeys(folds)) or _finished_folds(workspace, dataset, plan_name, trained)


def trained_folds(workspace: Workspace, dataset: str, plan_name: str) -> list[int]:
    """Return the folds of a plan that have a checkpoint."""
    folder = workspace.fold(dataset, plan_name, 0).parent
    names = (path.parents[1].name for path in folder.glob("fold_*/checkpoints/last.pt"))
    return sorted(int(match.group(1)) for name in names if (match := FOLD_FOLDER.fullmatch(name)))


def _finished_folds(workspace: Workspace, dataset: str, plan_name: str, trained: Sequence[int]) -> list[int]:
    """Return the folds trained to their end: one that has only begun would spoil the average of the others."""
    finished, unfinished = [], []
    for fold in trained:
        folder = workspace.fold(dataset, plan_name, fold)
        plan = read_run_plan(folder)
        epochs, done = read_progress(folder, plan)
        if done:
            finished.append(fold)
        else:
            unfinished.append(f"fold {fold}: {epochs} of {count(plan.training.epochs, 'epoch')}")
    if not finished:
        raise PlanError(
            f"-a {plan_name}: no fold is trained to its end ({', '.join(unfinished)}); go on with autoseg_train "
            f"-d {dataset} -a {plan_name} -f {trained[0]}, or take a fold as it is with -f"
        )
    return finished


def _trained_plans(workspace: Workspace, dataset: str) -> list[str]:
    results = workspace.fold(dataset, "plan", 0).parents[1]
    return sorted({path.parents[2].name for path in results.glob("*/fold_*/checkpoints/last.pt")})


def read_metrics(path: Path) -> dict[str, dict[str, float | None]]:
    """Return the mean of each region and metric from a metrics.json."""
    mean: dict[str, dict[str, float | None]] = json.loads(path.read_text(encoding="utf-8"))["mean"]
    return mean


def choose_device(option: str) -> torch.device:
    """Return the device that ``--device`` means; ``auto`` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        PlanError: the device is unknown or not on this machine.
    """
    if option == "auto":
        available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        return torch.device(next(name for name, there in available.items() if there))
    try:
        device = torch.device(option)
        torch.ones(1, device=device).item()  # reading it back tells "meta" from a device that computes
    except (RuntimeError, AssertionError, NotImplementedError):
        count = torch.cuda.device_count()
        found = f"cpu and {count} CUDA devices" if count else "cpu only"
        allowed = "use auto, cpu, cuda or cuda:N"
        raise PlanError(f"--device {option}: not on this machine, which has {found}; {allowed}") from None
    return device
