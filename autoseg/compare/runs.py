"""The runs of a dataset, read from their folders as plain JSON: neither torch nor an image is needed for a report."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from autoseg.compare.summary import Fold
from autoseg.data.workspace import Workspace, plan_names
from autoseg.errors import WorkspaceError, nearest
from autoseg.plurals import count

State = Literal["finished", "not scored", "not finished", "not started", "unreadable"]
Values = dict[str, dict[str, float | None]]

CASES: TypeAdapter[dict[str, Values]] = TypeAdapter(dict[str, Values])
_SECONDS: TypeAdapter[dict[str, float]] = TypeAdapter(dict[str, float])
_FOLDER = re.compile(r"fold_(\d+)")
_NNUNET_NAME = re.compile(r"Dataset\d{3}_(.+)")


@dataclass(frozen=True)
class Run:
    """One fold of one plan.

    Attributes:
        plan: name of the folder, which is the plan's.
        fold: its number, or for runs from elsewhere what they call it.
        state: ``finished`` when the validation cases are scored; only then it counts.
        detail: the state in words, with what the training log said last.
        document: plan.json of the run.
        epochs: the records of logs/metrics.jsonl.
        cases: case to region to metric to value; None where undefined.
        seconds: inference time of each case.
        record: run.json.
        missing: validation cases of the fold that have no score although the run is finished.
        predictions: folder of the segmentations, None where they are not known.
        remarks: what is doubtful about results from elsewhere.
    """

    plan: str
    fold: Fold
    state: State
    detail: str
    document: dict[str, Any] = field(default_factory=dict)
    epochs: tuple[dict[str, Any], ...] = ()
    cases: dict[str, Values] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    predictions: Path | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runs:
    """All runs of a dataset, ordered by plan and fold, and the plans that have none.

    Attributes:
        dataset: its name.
        runs: what is compared.
        untrained: names of plans without a run.
        others: runs that are not compared; those that others build on may be among them.
    """

    dataset: str
    runs: tuple[Run, ...]
    untrained: tuple[str, ...] = ()
    others: tuple[Run, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The plans that have a run, finished or not."""
        return tuple(dict.fromkeys(run.plan for run in self.runs))

    @cached_property
    def plans(self) -> tuple[str, ...]:
        """The plans that have a finished run."""
        return tuple(dict.fromkeys(run.plan for run in self.runs if run.state == "finished"))

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """The regions that any case was scored for."""
        return tuple(dict.fromkeys(r for run in self.runs for values in run.cases.values() for r in values))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that any region was scored by."""
        every = (m for run in self.runs for values in run.cases.values() for scores in values.values() for m in scores)
        return tuple(dict.fromkeys(every))

    @cached_property
    def labels(self) -> dict[str, Any]:
        """The regions as the plans of the runs declare them: name to ``labels`` and ``value``; may be empty."""
        declared = (run.document.get("dataset", {}).get("regions") for run in self.runs)
        return next((regions for regions in declared if regions), {})

    def finished(self, plan: str) -> tuple[Run, ...]:
        """Return the finished runs of a plan."""
        return tuple(run for run in self.runs if run.plan == plan and run.state == "finished")

    def first_stage(self, plan: str) -> tuple[Run, ...] | None:
        """Return the finished runs of a cascade's first stage; None for a plan without one."""
        name = self.finished(plan)[0].document.get("previous_stage")
        every = (*self.runs, *self.others)
        return tuple(run for run in every if run.plan == name and run.state == "finished") if name else None

    def started_from(self, runs: Sequence[Run]) -> tuple[Run, ...] | None:
        """Return the trained runs whose weights the runs of a plan started from, one a fold, or none of them if one is
        gone; None for random weights.
        """
        name, folds = _initial_weights(runs[0]), {run.fold for run in runs}
        if name is None:
            return None
        every = [run for run in (*self.runs, *self.others) if run.plan == name and run.fold in folds]
        found = tuple(run for run in every if run.state in ("finished", "not scored"))
        return found if {run.fold for run in found} == folds else ()

    def unfinished(self) -> tuple[Run, ...]:
        """Return the runs that do not count yet."""
        return tuple(run for run in self.runs if run.state != "finished")


def datasets_with_runs(workspace: Workspace) -> list[str]:
    """Return the sorted names of the datasets that have a run."""
    return sorted({path.parents[1].name for path in (workspace.root / "results").glob("*/*/fold_*")})


def choose_plans(runs: Runs, plans: Sequence[str]) -> Runs:
    """Return the runs of the given plans in the given order; all of them if none is given.

    Raises:
        WorkspaceError: a given plan has no run; the message says which have.
    """
    if unknown := [name for name in plans if name not in runs.names]:
        raise WorkspaceError(
            f"-a {unknown[0]}: no run of this plan; plans of {runs.dataset}: {', '.join(runs.names)}"
            f"{nearest(unknown[0], runs.names)}"
        )
    chosen = tuple(run for name in dict.fromkeys(plans) for run in runs.runs if run.plan == name)
    left = tuple(run for run in runs.runs if run.plan not in plans)
    return replace(runs, runs=chosen, others=(*runs.others, *left)) if plans else runs


def load_runs(workspace: Workspace, dataset: str, plans: Sequence[str] = (), *, empty: bool = False) -> Runs:
    """Read all runs of a dataset, or those of the given plans in the given order.

    Raises:
        WorkspaceError: the dataset has no run at all (unless it may be ``empty``), or a given plan has none; the
            message says which have.
    """
    try:
        dataset = _find_results(workspace, dataset)
    except WorkspaceError:
        if not empty or plans:
            raise
        matched = _NNUNET_NAME.fullmatch(Path(dataset).name)
        return Runs(matched.group(1) if matched else Path(dataset).name, ())
    folders = _run_folders(_results(workspace, dataset))
    if unknown := [name for name in plans if name not in folders]:
        raise WorkspaceError(
            f"-a {unknown[0]}: no run of this plan in {_results(workspace, dataset)}; plans with runs: "
            f"{', '.join(folders)}{nearest(unknown[0], folders)}; "
            f"train it with autoseg_train -d {dataset} -a {unknown[0]} -f 0"
        )
    validation = _validation_cases(workspace.splits(dataset))
    chosen = list(dict.fromkeys(plans)) or list(folders)
    runs = [read_run(name, fold, path, validation) for name in chosen for fold, path in folders[name]]
    others = _read_others(runs, chosen, folders, validation)
    runs += _absent_folds(runs)
    runs.sort(key=lambda run: (chosen.index(run.plan), str(run.fold).zfill(4)))
    made = () if plans else plan_names(workspace.plans(dataset))
    untrained = tuple(name for name in made if name not in folders)
    return Runs(dataset, tuple(runs), untrained, tuple(others))


def _results(workspace: Workspace, dataset: str) -> Path:
    return workspace.fold(dataset, "plan", 0).parents[1]


def _find_results(workspace: Workspace, dataset: str) -> str:
    """Return the name below results/ that ``dataset`` means: its own, or that of nnU-Net's ``DatasetNNN_NAME``."""
    name = Path(dataset).name
    known = datasets_with_runs(workspace)
    matched = _NNUNET_NAME.fullmatch(name)
    for candidate in (name, matched.group(1) if matched else name):
        if candidate in known:
            return candidate
    there = f"datasets with runs: {', '.join(known)}{nearest(name, known)}" if known else "no dataset has runs yet"
    raise WorkspaceError(
        f"{_results(workspace, name)}: no runs of {name}; {there}; make one with autoseg_train -d {name} -a unet -f 0"
    )


def _run_folders(results: Path) -> dict[str, list[tuple[int, Path]]]:
    """Return the (fold, folder) pairs of each plan, sorted."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(results.glob("*/fold_*")):
        if (matched := _FOLDER.fullmatch(path.name)) and path.is_dir():
            found.setdefault(path.parent.name, []).append((int(matched.group(1)), path))
    return {name: sorted(pairs) for name, pairs in found.items()}


def _read_others(
    runs: Sequence[Run],
    chosen: Sequence[str],
    folders: dict[str, list[tuple[int, Path]]],
    validation: Sequence[Sequence[str]],
) -> list[Run]:
    """Return the runs of the plans that those of ``runs`` build on: first stages, and whose weights they started from.

    Their cost is part of what these cost.
    """
    others: list[Run] = []
    known, new = set(chosen), list(runs)
    while new:
        names = {run.document.get("previous_stage") for run in new} | {_initial_weights(run) for run in new}
        wanted = sorted({name for name in names if isinstance(name, str)} - known)
        known |= set(wanted)
        new = [read_run(name, fold, path, validation) for name in wanted for fold, path in folders.get(name, ())]
        others += new
    return others


def _initial_weights(run: Run) -> str | None:
    found = run.document.get("training", {}).get("initial_weights")
    return str(found) if found else None


def _absent_folds(runs: Sequence[Run]) -> list[Run]:
    """Return a run that is not started for every fold that some plan has and another has not."""
    folds = dict.fromkeys(run.fold for run in runs)
    there = {(run.plan, run.fold) for run in runs}
    names = dict.fromkeys(run.plan for run in runs)
    return [Run(n, f, "not started", "other plans have this fold") for n in names for f in folds if (n, f) not in there]


def read_run(plan: str, fold: int, folder: Path, validation: Sequence[Sequence[str]] = ()) -> Run:
    """Return what one run folder says; ``validation`` holds the validation cases of each fold, where they are known."""
    try:
        document = _read_object(folder / "plan.json")
        epochs = tuple(_read_lines(folder / "logs" / "metrics.jsonl"))
        record = _read_object(folder / "run.json")
        seconds = _SECONDS.validate_python(_read_object(folder / "validation" / "timing.json").get("cases", {}))
        scored = folder / "validation" / "metrics.json"
        cases = CASES.validate_python(_read_object(scored).get("cases", {}))
    except (ValueError, OSError) as error:  # ValidationError and JSONDecodeError are ValueErrors
        return Run(plan, fold, "unreadable", _describe(error, folder))
    if not cases:
        return Run(plan, fold, *_describe_progress(document, epochs, folder), document, epochs, record=record)
    expected = validation[fold] if fold < len(validation) else []
    missing = tuple(name for name in expected if name not in cases)
    told, place = count(len(cases), "case"), scored.parent
    return Run(plan, fold, "finished", told, document, epochs, cases, seconds, record, missing, place)


def _describe_progress(document: dict[str, Any], epochs: Sequence[object], folder: Path) -> tuple[State, str]:
    """Return the state of a run without scores, and what is known of it."""
    planned = document.get("training", {}).get("epochs")
    last = _last_line(folder / "logs" / "train.log")
    said = f"; the log ends with: {last}" if last else ""
    if planned is not None and len(epochs) >= planned:
        done = count(planned, "epoch is", "epochs are")
        return "not scored", f"{'all ' if planned > 1 else ''}{done} trained, the validation cases are not scored{said}"
    if epochs:
        return "not finished", f"{len(epochs)} of {planned or 'unknown'} epochs{said}"
    return "not started", f"no epoch is finished{said}"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1][:200] if lines else ""


def _validation_cases(splits: Path) -> list[list[str]]:
    """Return the validation cases of each fold; none where splits.json cannot be read: the scores stand without it."""
    try:
        return [list(fold["validation"]) for fold in _read_object(splits).get("folds", [])]
    except (ValueError, OSError, KeyError, TypeError):
        return []


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``, empty if there is no such file; NaN and infinity become None."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda text: None)
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return content


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one a line, without a last line that a running training has half written."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line, parse_constant=lambda text: None))
        except json.JSONDecodeError:
            if number < len(lines):
                raise ValueError(f"{path.name}, line {number}, is no JSON") from None
    return records


def _describe(error: Exception, folder: Path) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        text = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    else:
        text = str(error)
    return f"a file in {folder.parent.name}/{folder.name} cannot be read: {' '.join(text.split())}"
