"""A rehearsal does what a training does, for a few iterations, and reckons what whole epochs take."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.data.splits import Fold
from autoseg.plan.plan import Plan
from autoseg.preprocess.store import CaseStore
from autoseg.train import rehearsal
from autoseg.train.machine import Machine
from autoseg.train.processes import ALONE
from autoseg.train.rehearsal import ITERATIONS, MOST_EPOCHS, rehearse, shorten_epochs

MACHINE = Machine(torch.device("cpu"), 1)
MakePlan = Callable[..., Plan]


def test_short_epochs_have_the_same_mixture(make_plan: MakePlan) -> None:
    plan = make_plan(iterations_per_epoch=250, validation_iterations=50, early_stopping=3, epochs=2)
    training = shorten_epochs(plan).training
    assert (training.iterations_per_epoch, training.validation_iterations) == (ITERATIONS, 2)
    assert (training.epochs, training.early_stopping) == (MOST_EPOCHS, None)
    few = shorten_epochs(make_plan(iterations_per_epoch=4, validation_iterations=0)).training
    assert (few.iterations_per_epoch, few.validation_iterations) == (4, 0)


def test_what_is_reckoned(make_plan: MakePlan) -> None:
    """Iterations scale with the epoch, its checkpoint does not, and the first epoch's excess is the start."""
    clock = rehearsal._Clock(1.0, ALONE)
    clock.started, clock.ends, clock.within = 100.0, [130.0, 142.0, 154.0], [25.0, 10.0, 10.0]
    costs = clock.costs(shorten_epochs(make_plan(iterations_per_epoch=250)), 250)
    assert costs.epoch == pytest.approx(250 * 1.0 + 2.0)
    assert (costs.setup, costs.validation) == (pytest.approx(30.0 - 12.0), 0.0)


@pytest.mark.parametrize(("seconds", "epochs"), [(0.0, 2), (1e6, MOST_EPOCHS)])
def test_it_lasts_as_long_as_it_may(
    make_plan: MakePlan,
    store: CaseStore,
    fold: Fold,
    tmp_path: Path,
    read_metrics: Callable[[Path], list[dict[str, Any]]],
    seconds: float,
    epochs: int,
) -> None:
    costs = rehearse(
        make_plan(iterations_per_epoch=1, validation_iterations=1), store, fold, tmp_path, MACHINE, seconds=seconds
    )
    assert len(read_metrics(tmp_path)) == epochs
    assert costs.epoch > 0 and costs.setup >= 0
    assert (tmp_path / "checkpoints" / "last.pt").is_file()


def test_a_signal_says_that_nothing_was_trained(
    make_plan: MakePlan, store: CaseStore, fold: Fold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = rehearsal._Clock.note

    struck_once = []

    def struck(clock: Any, event: Any) -> None:
        if not struck_once:
            struck_once.append(True)  # first, since the signal is an event too
            os.kill(os.getpid(), signal.SIGTERM)
        note(clock, event)

    monkeypatch.setattr(rehearsal._Clock, "note", struck)
    with pytest.raises(KeyboardInterrupt, match="interrupted while measuring; nothing was trained"):
        rehearse(make_plan(), store, fold, tmp_path, MACHINE, seconds=0.0)
