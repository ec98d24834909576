"""Runs that start from the weights of another plan's: whether that plan suits, and whether its fold is trained."""

import json
from collections.abc import Sequence
from pathlib import Path

from autoseg.data.workspace import Workspace
from autoseg.documents import read_document
from autoseg.errors import PlanError
from autoseg.plan.plan import Plan, read_plan
from autoseg.plurals import count
from autoseg.train.initial import CHECKPOINT, InitialRun, check_fits
from autoseg.train.state import read_progress


def check_initial_weights(plans: Sequence[Plan], workspace: Workspace) -> None:
    """Refuse plans that start from weights which do not fit them; the other plan may be one of ``plans``.

    Raises:
        PlanError: the other plan is not there or does not suit, or starts from this one's weights itself.
    """
    by_name = {plan.name: plan for plan in plans}
    for plan in plans:
        if plan.training.initial_weights is None:
            continue
        source = _read_source(plan, by_name, workspace)
        check_fits(plan, source)
        if plan.name in _sources(source, by_name, workspace):
            raise PlanError(
                f"plan {plan.name}: training.initial_weights {source.name!r} starts from the weights of {plan.name!r} "
                f"itself; choose another --name, or another plan to start from"
            )


def open_initial(
    workspace: Workspace, plan: Plan, fold: int, run_folder: Path, validation: Sequence[str]
) -> InitialRun | None:
    """Return the run whose weights a run is to start from; None for random ones, or if it has checkpoints of its own.

    Raises:
        PlanError: the other plan's fold is not trained to its end, its network does not fit, or it may have been
            trained on ``validation`` cases, since the folds were others then.
    """
    name = plan.training.initial_weights
    checkpoints = run_folder / "checkpoints"
    if name is None or any((checkpoints / file).exists() for file in ("last.pt", "last.previous.pt")):
        return None
    dataset = plan.dataset.name
    folder = workspace.fold(dataset, name, fold)
    where = f"plan {plan.name} starts from the weights of {name}, but fold {fold} of {name}"
    command = f"run autoseg_train -d {dataset} -a {name} -f {fold}"
    if not (folder / CHECKPOINT).is_file() or not (folder / "plan.json").is_file():
        read_plan(workspace.plan(dataset, name))  # without a plan there is nothing to train
        raise PlanError(f"{where} is not trained; {command}")
    source = read_document(folder / "plan.json", Plan)
    epochs, finished = read_progress(folder, source)
    if not finished:
        raise PlanError(f"{where} has {epochs} of {count(source.training.epochs, 'epoch')}; {command}")
    check_fits(plan, source)
    if seen := _perhaps_seen(folder, validation):
        raise PlanError(
            f"{where} was not validated on {count(len(seen), 'case that is', 'cases that are')} validated on now, e.g. "
            f"{seen[0]}, and may have been trained on it: splits.json has changed since; bring it back, or train "
            f"{name} again"
        )
    return InitialRun(source, fold, folder)


def _perhaps_seen(run: Path, validation: Sequence[str]) -> list[str]:
    """Return the cases that a scored run was not validated on."""
    path = run / "validation" / "metrics.json"
    if not path.is_file():
        return []
    scored = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return [name for name in validation if name not in scored]


def _sources(plan: Plan, by_name: dict[str, Plan], workspace: Workspace) -> list[str]:
    """Return the plans whose weights a plan goes back to; those made by hand may go round in a circle."""
    names: list[str] = []
    while (name := plan.training.initial_weights) is not None and name not in names:
        names.append(name)
        plan = _read_source(plan, by_name, workspace)
    return names


def _read_source(plan: Plan, by_name: dict[str, Plan], workspace: Workspace) -> Plan:
    name = plan.training.initial_weights or ""
    try:
        return by_name.get(name) or read_plan(workspace.plan(plan.dataset.name, name))
    except PlanError as error:
        raise PlanError(f"plan {plan.name}: training.initial_weights: {error}") from None
