"""What following a training costs: the same training with and without loggers, in turns, and each logger by itself.

``CLEARML_OFFLINE_MODE=1 python tests/benchmarks/loggers.py -w WORKSPACE -d Hippocampus -a unet`` (after
``autoseg_plan``) trains short epochs of fold 0 in a temporary folder and writes docs/benchmarks/loggers.{json,md}.
Other programs on the machine lengthen the seconds, the processor time of a thread less so.
"""

import argparse
import json
import math
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median
from typing import Any
from unittest import mock

import torch

from autoseg.data.dataset import find_dataset
from autoseg.data.workspace import Workspace
from autoseg.launch.fold import FoldRun, open_fold
from autoseg.train import log, loop
from autoseg.train.device import name_cpu
from autoseg.train.log import EpochReport, Logger, TrainingLog
from autoseg.train.machine import Machine
from autoseg.train.progress import write_progress
from autoseg.train.tracking import TrackedTraining, Tracker, tracked

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, ITERATIONS, ROUNDS = 4, 1, 1
LONG = 1000
NARROW = 4
"""Features of each stage, so that epochs are short and what loggers add stands out."""


class Spent:
    """Processor seconds of threads, by what they were spent for."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def watch(self, name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``action`` with its processor time counted."""

        def watched(*arguments: Any, **options: Any) -> Any:
            started = time.thread_time()
            try:
                return action(*arguments, **options)
            finally:
                self.seconds[name].append(time.thread_time() - started)

        return watched

    def logger(self, logger: Logger) -> Logger:
        """Return ``logger`` with its calls counted."""
        for name in ("begin", "add_epoch", "rest", "end"):
            setattr(logger, name, self.watch(f"{logger.name}: {name}", getattr(logger, name)))
        return logger


def train(run: FoldRun, loggers: bool, folder: Path, spent: Spent) -> list[float]:
    """Train, and return the seconds of each epoch but the first, from the end of one to the end of the next."""
    ends: list[float] = []

    def note(event: object) -> None:
        if isinstance(event, EpochReport):
            ends.append(time.perf_counter())

    def open_threaded(logger: Logger, complain: Any) -> Any:
        return threaded(spent.logger(logger), complain)

    threaded = log._Threaded
    tracker = Tracker("clearml", "benchmark", "loggers", kind="training", log=folder / "clearml.log", tell=_quiet)
    options: dict[str, Any] = {"machine": Machine(torch.device("cpu"), 1), "on_event": note}
    with (
        mock.patch.object(log, "_Threaded", open_threaded),
        mock.patch.object(
            TrainingLog, "write_epoch", spent.watch("the training itself: log and queue", TrainingLog.write_epoch)
        ),
        mock.patch.object(loop, "take_examples", spent.watch("the training itself: slices", loop.take_examples)),
    ):
        if loggers:
            with tracked(tracker):
                tracked_training = TrackedTraining(tracker)
                loop.train_fold(run.plan, run.store, run.fold, folder, loggers=(tracked_training,), **options)
        else:
            with mock.patch.object(loop, "_open_log", lambda *_: log.NoLog()):
                loop.train_fold(run.plan, run.store, run.fold, folder, **options)
    return [end - start for start, end in zip(ends, ends[1:])]


def _quiet(text: str) -> None:
    if text.startswith("warning"):
        raise RuntimeError(text)


def picture_seconds(folder: Path) -> float:
    """Return the processor time of progress.png after many epochs of four regions."""
    records = [
        {"epoch": e, "train_loss": math.sin(e), "validation_loss": math.cos(e), "learning_rate": 1 / e,
         "validation_dice": {str(r): 0.5 + 0.1 * math.sin(e + r) for r in range(4)}, "seconds": 30.0,
         "seconds_waiting": 0.1}
        for e in range(1, LONG + 1)
    ]  # fmt: skip
    write_progress(folder, "unet", LONG, records)
    started = time.thread_time()
    write_progress(folder, "unet", LONG, records)
    return time.thread_time() - started


def measure(run: FoldRun) -> dict[str, Any]:
    """Return all figures."""
    with_, without, spent = [], [], Spent()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            without += train(run, False, Path(folder) / f"without_{number}", Spent())
            with_ += train(run, True, Path(folder) / f"with_{number}", spent)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        long = picture_seconds(Path(folder))
    clearml = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    return {
        "processor": name_cpu(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1),
        "dataset": run.dataset.name, "plan": run.plan.name, "iterations": ITERATIONS, "epochs": ROUNDS * EPOCHS,
        "seconds_with": round(median(with_), 3), "seconds_without": round(median(without), 3),
        "milliseconds": {name: round(1e3 * fmean(all_), 2) for name, all_ in sorted(spent.seconds.items())},
        "calls": {name: len(all_) for name, all_ in sorted(spent.seconds.items())},
        "picture_of_1000_epochs_ms": round(1e3 * long, 1),
        "clearml_process_s": round(clearml / ROUNDS, 2),
    }  # fmt: skip


def describe(found: dict[str, Any]) -> str:
    """Return the page."""
    cost = found["milliseconds"]
    waited = sum(ms for name, ms in cost.items() if name.startswith("the training"))
    rows = "\n".join(f"| {name} | {ms:.1f} | {found['calls'][name]} |" for name, ms in cost.items())
    return f"""# What following a training costs

Made by `python tests/benchmarks/loggers.py` on {found["processor"]}, {found["cores"]} cores, load
{found["load"]} from other programs too: {found["dataset"]}, plan `{found["plan"]}`, {found["epochs"]} epochs of
{found["iterations"]} iteration (of a patch, through a network of {NARROW} features, so that the epochs are short)
with all loggers (progress.png, TensorBoard, ClearML offline), and as many with none, not
even a file, in turns.

Median seconds from the end of an epoch to the end of the next: {found["seconds_with"]:.2f} with,
{found["seconds_without"]:.2f} without. On a busy machine these vary; processor time says more. What an epoch waits for
takes {waited:.1f} ms of the training's own thread (checkpoints not counted). The rest runs beside it:

| what | processor time of a call, ms | calls |
|---|---|---|
{rows}

progress.png of {LONG} epochs and four regions takes {found["picture_of_1000_epochs_ms"]:.0f} ms of a thread. ClearML's
own process took {found["clearml_process_s"]:.1f} s of processor time for a training, most of it to start.
"""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option, name, default in (("-w", "workspace", "."), ("-d", "dataset", "Hippocampus"), ("-a", "plan", "unet")):
        parser.add_argument(option, dest=name, default=default)
    arguments = parser.parse_args()
    place = Workspace(Path(arguments.workspace))
    run = open_fold(place, find_dataset(arguments.dataset, place), arguments.plan, 0)
    length = {"epochs": EPOCHS, "iterations_per_epoch": ITERATIONS, "validation_iterations": 1, "batch_size": 1}
    config = dict(run.plan.network.config)
    config["features_per_stage"] = [NARROW] * len(config["features_per_stage"])
    changes = {"training": length, "network": {"config": config}}
    sections = {name: getattr(run.plan, name).model_copy(update=change) for name, change in changes.items()}
    short = run.plan.model_copy(update=sections)
    found = measure(FoldRun(run.dataset, short, run.fold, run.store, run.folder))
    target = ROOT / "docs" / "benchmarks" / "loggers"
    target.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(describe(found), encoding="utf-8")


if __name__ == "__main__":
    main()
