"""One trial of a search: the variant is made, held against the memory, trained on the fold, and judged."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg.data.dataset import Dataset
from autoseg.data.workspace import Workspace
from autoseg.errors import TrainingError, WorkspaceError
from autoseg.launch.fold import FoldRun, open_run_of, train, validate
from autoseg.launch.prepare import preprocess
from autoseg.launch.tracking import open_tracker
from autoseg.plan.plan import Plan
from autoseg.plurals import count
from autoseg.preprocess.store import preprocessing_digest
from autoseg.train.log import EpochReport, Logger
from autoseg.train.machine import Machine
from autoseg.train.tracking import TrackedTraining, tracked
from autoseg.tune.candidate import find_excess, make_candidate, shorten
from autoseg.tune.study import Claim, Settings

LAST_PART = 0.1
"""Part of the epochs, at the end, whose mean patch Dice a trial is judged by: a single epoch's is noisy."""

OnEpoch = Callable[[int, float], None]
"""Told the epoch, from 1, and its Dice; ends the training by an exception."""


class TooLarge(Exception):  # noqa: N818 (no error: the trial is left out)
    """The candidate does not fit the memory budget."""


@dataclass(frozen=True)
class Bench:
    """Where trials are run.

    Attributes:
        plan: that is varied.
        num_workers: threads that make batches, and processes that score cases.
        service: that is told of each trial, and ``tell``, which says what comes back.
    """

    workspace: Workspace
    dataset: Dataset
    plan: Plan
    settings: Settings
    device: torch.device
    num_workers: int
    service: str | None = None
    tell: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Judgement:
    """What a trial came to: its Dice, and the seconds that its epochs took."""

    dice: float
    seconds: float


def run_trial(bench: Bench, claim: Claim, *, on_epoch: OnEpoch, on_event: Callable[[Any], None]) -> Judgement:
    """Train a trial, going on from its last checkpoint, and judge it; its checkpoints are then removed.

    Raises:
        TooLarge: it does not fit the memory; nothing was trained.
        AutosegError: the values do not fit each other, or the training cannot go on.
        whatever ``on_epoch`` raises.
    """
    from optuna import TrialPruned

    name = f"{bench.plan.name}_trial_{claim.number:04}"
    candidate = make_candidate(bench.plan, name, claim.values)
    if excess := find_excess(candidate, bench.plan):
        raise TooLarge(excess)
    run = _open(bench, shorten(candidate, bench.settings.epochs), claim.folder / f"fold_{bench.settings.fold}")
    for epoch, dice, _ in read_epochs(run.folder):  # those that a worker trained and could not tell any more
        _tell(on_epoch, epoch, dice)
    project, called = f"{bench.dataset.name}/{claim.folder.parent.name}", claim.folder.name.replace("_", " ")
    tracker = open_tracker(bench.service, run, bench.tell, project=project, name=called)
    with tracked(tracker, stops=(TrialPruned,)):
        searched = {f"searched.{key}": str(value) for key, value in claim.values.items()}
        _train(bench, run, on_epoch, on_event, (TrackedTraining(tracker, searched),) if tracker else ())
        judgement = _judge(bench, run)
        if tracker:
            tracker.add_values({"trial/dice": judgement.dice, "trial/seconds": judgement.seconds})
            tracker.attach([run.folder / "progress.png"])
    remove_checkpoints(claim.folder)
    return judgement


def remove_checkpoints(folder: Path) -> None:
    """Remove the weights of a trial that is over: the tuned plan is trained anew."""
    for path in folder.glob("fold_*/checkpoints/*.pt"):
        path.unlink(missing_ok=True)


def read_epochs(run_folder: Path) -> list[tuple[int, float | None, float]]:
    """Return number, mean patch Dice and seconds of each finished epoch."""
    path = run_folder / "logs" / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [_read_epoch(json.loads(line)) for line in lines]


def _read_epoch(record: dict[str, Any]) -> tuple[int, float | None, float]:
    dice = [value for value in record["validation_dice"].values() if value is not None]
    return record["epoch"], sum(dice) / len(dice) if dice else None, record["seconds"]


def _open(bench: Bench, candidate: Plan, folder: Path) -> FoldRun:
    """Return the run, once its cases are preprocessed where they are so otherwise than the plan's."""
    if preprocessing_digest(candidate) != preprocessing_digest(bench.plan):
        failed = preprocess(
            bench.dataset, [candidate], bench.workspace, num_workers=bench.num_workers, device=bench.device
        )
        if failed:
            raise WorkspaceError(
                f"{count(len(failed), 'case')} could not be preprocessed for this trial, e.g. {failed[0]}"
            )
    return open_run_of(bench.workspace, bench.dataset, candidate, bench.settings.fold, folder)


def _train(
    bench: Bench, run: FoldRun, on_epoch: OnEpoch, on_event: Callable[[Any], None], loggers: Sequence[Logger]
) -> None:
    def watch(event: Any) -> None:
        on_event(event)
        if isinstance(event, EpochReport):
            _tell(on_epoch, event.epoch, event.mean_dice)

    train(run, Machine(bench.device, bench.num_workers), on_event=watch, loggers=loggers)


def _tell(on_epoch: OnEpoch, epoch: int, dice: float | None) -> None:
    if dice is not None:
        on_epoch(epoch, dice)


def _judge(bench: Bench, run: FoldRun) -> Judgement:
    epochs = read_epochs(run.folder)
    seconds = sum(one[2] for one in epochs)
    if bench.settings.score == "cases":
        metrics = validate(run, device=bench.device, num_workers=bench.num_workers)
        found = [region["dice"] for region in metrics.mean.values()]
        values = [value for value in found if value is not None]
    else:
        last = epochs[-max(1, round(LAST_PART * len(epochs))) :]
        values = [dice for _, dice, _ in last if dice is not None]
    if not values:
        raise TrainingError("the Dice of the fold's validation cases is undefined in every class")
    return Judgement(sum(values) / len(values), seconds)
