"""The first stage of a cascade: its plan, its networks, and what these find in cases that they did not see.

The second stage is trained on what the first one finds in cases it was not trained on: each case is segmented by the
fold whose validation set holds it, as nnU-Net does. Of new images all folds of the first stage segment together.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from autoseg.data.cases import Case
from autoseg.data.splits import Fold, Splits
from autoseg.data.workspace import Workspace
from autoseg.documents import Document, content_hash, read_document, write_document
from autoseg.errors import PlanError, TrainingError, WorkspaceError
from autoseg.plan.plan import Plan, Prediction, read_plan
from autoseg.predict.cascade import find_classes
from autoseg.predict.model import Member
from autoseg.preprocess.case import PreprocessedCase, preprocess_case
from autoseg.preprocess.found import is_found, save_found
from autoseg.preprocess.store import CaseStore, preprocessing_digest, remove_stale
from autoseg.train.state import load_network, read_progress, training_digest

RECORD_FILE = "previous.json"
"""Stands in a run of a second stage, and beside what was found."""

OnCase = Callable[[Case], None]


class FoundContent(Document):
    """All that the stored segmentations of a first stage depend on beside the images; its hash names their folder.

    Attributes:
        plan: name of the first stage.
        training_sha256: of all that its weights depend on.
        networks: fold to the hash of its weights.
        prediction: how it segments.
        preprocessing_sha256: of the grid that the segmentations are stored on.
    """

    schema_: Literal["autoseg.previous.1"] = Field(default="autoseg.previous.1", alias="schema")
    plan: str
    training_sha256: str
    networks: dict[str, str]
    prediction: Prediction
    preprocessing_sha256: str


@dataclass(frozen=True)
class FirstStage:
    """The first stage of a plan, trained in all its folds.

    Attributes:
        plan: the first stage's.
        content: what its segmentations depend on.
        runs: fold to folder.
        fold_of: case to the fold that did not see it.
        store: the second stage's preprocessed cases, with what was found in them.
    """

    plan: Plan
    content: FoundContent
    runs: Mapping[int, Path]
    fold_of: Mapping[str, int]
    store: CaseStore

    @property
    def folder(self) -> Path:
        """Where what was found stands."""
        if self.store.found_folder is None:
            raise ValueError("a first stage's store has a place for what was found")
        return self.store.found_folder


def check_previous_stages(plans: Sequence[Plan], workspace: Workspace) -> None:
    """Refuse plans whose previous stage is not there or does not suit them; it may be one of ``plans``.

    Raises:
        PlanError: the message says what to do.
    """
    by_name = {plan.name: plan for plan in plans}
    for plan in plans:
        if plan.previous_stage is None:
            continue
        path = workspace.plan(plan.dataset.name, plan.previous_stage)
        try:
            previous = by_name.get(plan.previous_stage) or read_plan(path)
        except PlanError as error:
            raise PlanError(f"plan {plan.name}: previous_stage: {error}") from None
        check_previous(plan, previous)


def check_previous(plan: Plan, previous: Plan) -> None:
    """Refuse a previous stage that is a second stage itself, or of another dataset.

    Raises:
        PlanError: the message says what to do.
    """
    where = f"plan {plan.name}: previous_stage {previous.name!r}"
    if previous.previous_stage is not None:
        raise PlanError(
            f"{where} is itself the second stage of {previous.previous_stage!r}; a cascade has two stages: name a plan "
            f"whose own previous_stage is null"
        )
    for what in ("channels", "label_scheme"):
        if getattr(plan.dataset, what) != getattr(previous.dataset, what):
            name = what.replace("label_scheme", "labels")
            raise PlanError(f"{where} was planned with other {name}; plan both again with autoseg_plan")


def open_first_stage(workspace: Workspace, plan: Plan, splits: Splits, fold: Fold, store: CaseStore) -> FirstStage:
    """Find the first stage of a plan, and the network that did not see each case of a fold.

    Raises:
        PlanError: the previous stage does not suit, or folds of it are not trained to their end.
        WorkspaceError: a case is in no validation set, so that every network has seen it.
    """
    dataset, name = plan.dataset.name, plan.previous_stage or ""
    fold_of = _unseen_by(splits, fold, plan)
    runs = {index: workspace.fold(dataset, name, index) for index in sorted(set(fold_of.values()))}
    if missing := [index for index, run in runs.items() if not _is_trained(run)]:
        read_plan(workspace.plan(dataset, name))  # without a plan there is nothing to train
        commands = "; ".join(f"autoseg_train -d {dataset} -a {name} -f {index}" for index in missing)
        raise PlanError(
            f"plan {plan.name} sees what {name} finds in cases it was not trained on, but folds {missing} of {name} "
            f"are not trained to their end; run {commands}"
        )
    first = read_document(next(iter(runs.values())) / "plan.json", Plan)
    check_previous(plan, first)
    content = _describe(first, runs, plan)
    folder = workspace.preprocessed(dataset, content_hash(content))
    return FirstStage(first, content, runs, fold_of, CaseStore(store.folder, found_folder=folder))


def check_record(first: FirstStage, run_folder: Path) -> None:
    """Refuse to go on with a second stage whose first stage was trained again meanwhile.

    Raises:
        TrainingError: the message says what to do.
    """
    path = run_folder / RECORD_FILE
    if not (run_folder / "checkpoints" / "last.pt").is_file():
        return
    if not path.is_file() or read_document(path, FoundContent) != first.content:
        raise TrainingError(
            f"{run_folder}: was trained on what other networks of {first.plan.name} found than those there now; bring "
            f"these back, or delete {run_folder} to train the second stage again"
        )


def segment_unseen(
    first: FirstStage,
    plan: Plan,
    cases: Sequence[Case],
    run_folder: Path,
    *,
    device: torch.device,
    on_case: OnCase | None = None,
) -> None:
    """Store what the first stage finds in each case, by the network that did not see it; those there already are kept.

    Args:
        first: the first stage.
        plan: of the second stage.
        cases: their images; labels are not read.
        run_folder: of the second stage, which keeps a record of the networks.
        device: where they compute.
        on_case: told each case that is done, also those kept.

    Raises:
        WorkspaceError: images have changed since they were preprocessed. VolumeError: an image cannot be used.
    """
    remove_stale(first.folder)
    write_document(first.folder / RECORD_FILE, first.content)
    for fold, run in first.runs.items():
        own = [case for case in cases if first.fold_of[case.name] == fold]
        left = [case for case in own if not is_found(first.folder, case, fold)]
        if on_case:
            for case in own:
                if case not in left:
                    on_case(case)
        if not left:
            continue
        member = Member(first.plan, (load_network(run, first.plan, which="last", device=device),))
        for case, prepared in _prepare_ahead(left, first.plan):
            target = first.store.properties(case.name)
            save_found(first.folder, case, fold, find_classes(member, prepared, target, plan, device))
            if on_case:
                on_case(case)
    write_document(run_folder / RECORD_FILE, first.content)


def open_previous(plan: Plan, runs: Sequence[Path], device: torch.device) -> Member | None:
    """Return the first stage of a trained plan with the networks that its runs were trained after; None without one.

    Its runs are looked for beside those of the plan, so that both can be moved together.

    Raises:
        PlanError: they are not there, or were trained again since.
    """
    if plan.previous_stage is None:
        return None
    where = f"plan {plan.name} sees what {plan.previous_stage} finds"
    records = [read_document(run / RECORD_FILE, FoundContent) for run in runs]
    if any(record.networks != records[0].networks for record in records):
        raise PlanError(f"{where}, but its folds {[r.name for r in runs]} were trained after different networks of it")
    home = runs[0].absolute().parents[1] / plan.previous_stage
    folders = {fold: home / f"fold_{fold}" for fold in records[0].networks}
    if missing := [folder for folder in folders.values() if not (folder / "checkpoints" / "last.pt").is_file()]:
        raise PlanError(f"{where}, but {missing[0]} has no network; bring it there, or train both stages again")
    first = read_document(next(iter(folders.values())) / "plan.json", Plan)
    networks = [load_network(folder, first, which="last", device=device) for folder in folders.values()]
    for (fold, folder), network in zip(folders.items(), networks):
        if hash_weights(network) != records[0].networks[fold]:
            raise PlanError(f"{where}, but {folder} was trained again since; train {plan.name} again too")
    return Member(first, tuple(networks))


def stored_previous(workspace: Workspace, plan: Plan, run: Path) -> CaseStore | None:
    """Return the store with what a run of a second stage saw of its validation cases; None without a first stage."""
    if plan.previous_stage is None:
        return None
    digest = content_hash(read_document(run / RECORD_FILE, FoundContent))
    folder = workspace.preprocessed(plan.dataset.name, preprocessing_digest(plan))
    return CaseStore(folder, found_folder=workspace.preprocessed(plan.dataset.name, digest))


def hash_weights(network: nn.Module) -> str:
    """Return 64 hexadecimal digits that are equal for networks of the same weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _describe(first: Plan, runs: Mapping[int, Path], plan: Plan) -> FoundContent:
    cpu = torch.device("cpu")
    return FoundContent(
        plan=first.name,
        training_sha256=training_digest(first),
        networks={
            str(fold): hash_weights(load_network(run, first, which="last", device=cpu)) for fold, run in runs.items()
        },
        prediction=first.prediction,
        preprocessing_sha256=preprocessing_digest(plan),
    )


def _unseen_by(splits: Splits, fold: Fold, plan: Plan) -> dict[str, int]:
    """Return for each case of a fold the first one whose validation set holds it."""
    owners = {name: index for index, one in reversed(list(enumerate(splits.folds))) for name in one.validation}
    wanted = [*fold.train, *fold.validation]
    if seen := [name for name in wanted if name not in owners]:
        raise WorkspaceError(
            f"splits.json: {len(seen)} cases, e.g. {seen[0]}, are in no validation set, so that no network of "
            f"{plan.previous_stage} has not seen them; a cascade needs folds that validate on every case"
        )
    return {name: owners[name] for name in wanted}


def _is_trained(run: Path) -> bool:
    if not (run / "checkpoints" / "last.pt").is_file():
        return False
    _, finished = read_progress(run, read_document(run / "plan.json", Plan))
    return finished


def _prepare_ahead(cases: Sequence[Case], plan: Plan) -> Iterator[tuple[Case, PreprocessedCase]]:
    """Yield each case preprocessed, while a thread prepares the next."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting = [reader.submit(preprocess_case, case, plan, with_label=False) for case in cases[:1]]
        for index, case in enumerate(cases, start=1):
            prepared = waiting[0].result()
            waiting = [reader.submit(preprocess_case, one, plan, with_label=False) for one in cases[index : index + 1]]
            yield case, prepared
