"""What an epoch of a training takes on this machine: a few iterations are trained in another folder, and timed."""

import math
import time
from pathlib import Path

from autoseg.data.splits import Fold
from autoseg.plan.plan import Plan
from autoseg.plan.time_budget import Costs
from autoseg.preprocess.store import CaseStore
from autoseg.train.interruption import TrainingInterrupted
from autoseg.train.log import EpochReport, Event
from autoseg.train.loop import train_fold
from autoseg.train.machine import Machine
from autoseg.train.processes import Processes

ITERATIONS = 10
"""Of a rehearsed epoch, unless the plan's epochs are shorter."""

MOST_EPOCHS = 21
"""Of a rehearsal; the first one is its warm-up."""


class _Enough(Exception):  # noqa: N818 (ends a rehearsal, no error)
    """The rehearsal has lasted long enough."""


class _Clock:
    """Notes when epochs end, and ends the rehearsal once enough are measured."""

    def __init__(self, seconds: float, processes: Processes) -> None:
        self.started = time.perf_counter()
        self.ends: list[float] = []
        self.within: list[float] = []
        self._seconds, self._processes = seconds, processes

    def note(self, event: Event) -> None:
        if not isinstance(event, EpochReport):
            return
        self.ends.append(time.perf_counter())
        self.within.append(event.seconds)
        if len(self.ends) > 1 and self._processes.lead(self._is_enough):
            raise _Enough

    def _is_enough(self) -> bool:
        return self.ends[-1] - self.started > self._seconds or len(self.ends) >= MOST_EPOCHS

    def costs(self, rehearsal: Plan, iterations: int) -> Costs:
        """Return what epochs of so many iterations cost; a checkpoint is written as often, however long they are."""
        count = len(self.ends) - 1
        both = (self.ends[-1] - self.ends[0]) / count
        within = sum(self.within[1:]) / count
        scale = iterations / rehearsal.training.iterations_per_epoch
        setup = max(self.ends[0] - self.started - both, 0.0)
        return Costs(setup=setup, epoch=within * scale + both - within, validation=0.0)


def shorten_epochs(plan: Plan) -> Plan:
    """Return a plan with short epochs of the same mixture of training and validation, and without an early end."""
    training = plan.training
    iterations = min(training.iterations_per_epoch, ITERATIONS)
    validation = math.ceil(training.validation_iterations * iterations / training.iterations_per_epoch)
    changed = {
        "epochs": MOST_EPOCHS, "iterations_per_epoch": iterations, "validation_iterations": validation,
        "early_stopping": None,
    }  # fmt: skip
    return plan.model_copy(update={"training": training.model_copy(update=changed)})


def rehearse(
    plan: Plan,
    store: CaseStore,
    fold: Fold,
    run_folder: Path,
    machine: Machine,
    *,
    seconds: float,
) -> Costs:
    """Train ``shorten_epochs(plan)`` in ``run_folder`` for about so many seconds; return what epochs of ``plan`` cost.

    All that a training does is done: batches, steps, validation, checkpoints and logs, in all processes alike. The
    first epoch is the warm-up; one more at least is measured, however long it lasts. Nothing is said of whole cases.

    Raises:
        TrainingError: as ``train_fold``.
        KeyboardInterrupt: a signal was received.
    """
    rehearsal, clock = shorten_epochs(plan), _Clock(seconds, machine.processes)
    try:
        train_fold(rehearsal, store, fold, run_folder, machine, on_event=clock.note)
    except _Enough:
        pass
    except TrainingInterrupted:
        raise KeyboardInterrupt(
            "interrupted while measuring; nothing was trained; the same command begins anew"
        ) from None
    return clock.costs(rehearsal, plan.training.iterations_per_epoch)
