"""Fitting a plan to a time budget: what ``autoseg_train --time-budget`` does before it trains.

The fitted plan is a document of its own, ``NAME_6h``. It is made once, from what an epoch and the validation are
measured to take on this machine, and every later start, and every other fold, trains the same plan. So an interruption
changes nothing: what was spent before it is in the plan already.
"""

import itertools
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from autoseg.data.dataset import Dataset
from autoseg.data.volumes import read_label, write_segmentation
from autoseg.data.workspace import Workspace
from autoseg.documents import write_document
from autoseg.errors import PlanError, TrainingError
from autoseg.evaluate.evaluate import evaluate_folder
from autoseg.launch.fold import FoldRun, find_unseen, open_run_of, validate
from autoseg.launch.prepare import check_results
from autoseg.plan.plan import Plan, read_plan
from autoseg.plan.time_budget import Costs, fit_plan, fitted_name, lengthen, tell_budget
from autoseg.predict.sliding_window import tile_starts
from autoseg.train.device import name_device
from autoseg.train.exclusion import hold_folder
from autoseg.train.machine import Machine
from autoseg.train.rehearsal import rehearse, shorten_epochs
from autoseg.train.state import training_digest

PREFIX = ".partial-rehearsal-"
"""How the name of a rehearsal's folder begins."""

MEASURED_PART = 0.05
"""Part of the budget that a rehearsal may take, beyond its first two epochs."""

MOST_SECONDS = 120.0
"""The same in seconds, however large the budget is."""

AGAIN_PART = 0.01
"""A validation case that takes no more than this part of the budget is predicted again, without what is done once."""

FORWARD_PART = 1 / 3
"""Part of a training step's time that a forward pass takes, about."""


def fit_to_time(
    workspace: Workspace, dataset: Dataset, plan_name: str, fold: int, budget: int, machine: Machine, *, started: float
) -> tuple[Plan, bool]:
    """Return the plan that is trained within a budget, and whether it was there already.

    Args:
        workspace: where the plan stands, and the fitted one is written.
        dataset: of the plan.
        plan_name: of any length.
        fold: that is measured.
        budget: seconds, for one fold, from ``started`` to its scores.
        machine: each of its processes calls this alike.
        started: ``time.monotonic()`` when the command began.

    Raises:
        PlanError: not even one epoch fits; or another plan has that name.
    """
    lead = machine.processes.lead
    base, known = lead(lambda: _find_plans(workspace, dataset, plan_name, budget))
    if known is not None:
        return known, True
    with ExitStack() as stack:
        place = lead(lambda: stack.enter_context(_temporary_folder(workspace)))
        run = lead(lambda: open_run_of(workspace, dataset, base, fold, place))
        lead(lambda: find_unseen(run, device=machine.device))
        rehearsals = itertools.count()

        def spent() -> float:
            return lead(lambda: time.monotonic() - started)

        def measure(candidate: Plan) -> Costs:
            own = replace(run, plan=candidate, folder=place / str(next(rehearsals)))
            return _measure(own, budget, budget - spent(), machine)

        fitted = fit_plan(base, budget, spent, measure)
    count = f"{machine.processes.count} times " if machine.processes.count > 1 else ""
    where = f"on {count}{name_device(machine.device)} with {machine.num_workers} workers"
    plan = tell_budget(fitted, budget, where, len(run.fold.validation))
    lead(lambda: write_document(workspace.plan(dataset.name, plan.name), plan))
    return plan, False


def _find_plans(workspace: Workspace, dataset: Dataset, plan_name: str, budget: int) -> tuple[Plan, Plan | None]:
    """Return the plan, and its fitted variant if that was made before."""
    base = read_plan(workspace.plan(dataset.name, plan_name))
    path = workspace.plan(dataset.name, fitted_name(plan_name, budget))
    if not path.is_file():
        check_results(lengthen(base, path.stem, base.training.epochs), workspace)
        return base, None
    known = read_plan(path)
    if training_digest(lengthen(base, path.stem, known.training.epochs)) != training_digest(known):
        raise PlanError(
            f"{path}: is not {plan_name} fitted to that time, or {plan_name} has changed since; delete the file (and "
            f"its results) to fit anew, or fit a plan of another name"
        )
    return base, known


@contextmanager
def _temporary_folder(workspace: Workspace) -> Iterator[Path]:
    """Yield a folder on the disk of the results, since checkpoints are written to it and timed.

    Those that killed rehearsals left are removed; one at work is known by the lock that it holds.
    """
    for left in workspace.root.glob(f"{PREFIX}*"):
        with suppress(TrainingError), hold_folder(left) as held:
            if held:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=workspace.root) as folder, hold_folder(Path(folder)):
        yield Path(folder)


def _measure(run: FoldRun, budget: int, seconds_left: float, machine: Machine) -> Costs:
    """Return what a plan costs on this machine; ``run`` has a folder of its own, for the rehearsal."""
    costs = rehearse(
        run.plan, run.store, run.fold, run.folder, machine, seconds=min(MEASURED_PART * budget, MOST_SECONDS)
    )
    feasible = costs.total(1) < seconds_left
    validation = machine.processes.lead(
        lambda: _time_validation(run, budget, machine) if feasible else _guess_validation(run, costs)
    )
    return replace(costs, validation=validation)


def _time_validation(run: FoldRun, budget: int, machine: Machine) -> float:
    """Return about how long the validation cases take: one of middling size is timed, the others by their tiles.

    The case is predicted and scored by the network of the rehearsal; and scored once more with its label as the
    segmentation, since a network that has learnt nothing finds no surfaces to measure.
    """
    sizes = _sizes(run)
    if not sizes:
        return 0.0
    chosen = sorted(sizes, key=lambda name: sizes[name])[len(sizes) // 2]
    one = replace(run, plan=shorten_epochs(run.plan), fold=run.fold.model_copy(update={"validation": (chosen,)}))
    seconds = _time_case(one, machine)
    if seconds < AGAIN_PART * budget:
        seconds = _time_case(one, machine)
    tiles, voxels = sizes[chosen]
    return seconds * sum(max(other[0] / tiles, other[1] / voxels) for other in sizes.values())


def _time_case(run: FoldRun, machine: Machine) -> float:
    started = time.perf_counter()
    validate(run, device=machine.device, num_workers=machine.num_workers)
    seconds = time.perf_counter() - started
    case = run.validation_cases[0]
    if case.label is None:
        return seconds
    label = read_label(case.label)
    write_segmentation(run.folder / "label" / f"{case.name}.nii.gz", label.array[0], label.geometry)
    started = time.perf_counter()
    tolerance = run.plan.prediction.surface_tolerance_mm
    evaluate_folder([case], run.folder / "label", run.plan.dataset.label_scheme, tolerance_mm=tolerance)
    return seconds + time.perf_counter() - started


def _guess_validation(run: FoldRun, costs: Costs) -> float:
    """Return about how long the networks take for the validation cases, by what a training step takes a sample."""
    training = run.plan.training
    step = costs.epoch / (training.iterations_per_epoch + FORWARD_PART * training.validation_iterations)
    forward = FORWARD_PART * step / (training.batch_size * training.gradient_accumulation)
    return forward * sum(tiles for tiles, _ in _sizes(run).values())


def _sizes(run: FoldRun) -> dict[str, tuple[int, int]]:
    """Return the forward passes (tiles and their mirrored copies) and the voxels of each validation case."""
    plan, sizes = run.plan, {}
    copies = 2 ** len(plan.prediction.mirror_axes)
    for name in run.fold.validation:
        shape = run.store.properties(name).shape
        axes = zip(shape, plan.training.patch_shape)
        tiles = math.prod(len(tile_starts(size, patch, plan.prediction.tile_step)) for size, patch in axes)
        sizes[name] = (copies * tiles, math.prod(shape))
    return sizes
