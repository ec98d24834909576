"""What a training tells: events for whoever watches, files that remain, and loggers that show it elsewhere.

logs/train.log is for people, logs/metrics.jsonl for programs (one JSON object an epoch). These two are written before
the next epoch begins; loggers (progress.png, TensorBoard, a tracking service) work beside the training.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal, Protocol

from autoseg.documents import write_text
from autoseg.plan.plan import Plan
from autoseg.train.examples import Examples
from autoseg.train.record import RunRecord

Phase = Literal["training", "validation"]

PATIENCE_SECONDS = 60.0
"""How long the end of a training waits for a logger."""


@dataclass(frozen=True)
class IterationReport:
    """One iteration has been started on the device; ``iteration`` and ``epoch`` count from 1."""

    phase: Phase
    epoch: int
    epochs: int
    iteration: int
    iterations: int


@dataclass(frozen=True)
class EpochReport:
    """One epoch is finished and its checkpoint is on disk.

    Attributes:
        epoch: its number, from 1.
        train_loss: mean over the training iterations.
        validation_loss: mean over the validation iterations, None if there are none.
        validation_dice: pseudo Dice of each region over all validation patches together; None where undefined.
        mean_dice: mean of the defined ones, or None.
        best: whether best.pt was written.
        learning_rate: that of the epoch's last iteration.
        seconds: wall time of the epoch. seconds_waiting: the part of it spent waiting for data.
        seconds_left: estimate for the epochs that remain.
        peak_memory_gb: largest device memory allocated, in 10^9 bytes; None on a CPU.
        peak_host_memory_gb: largest memory of the process itself, in 10^9 bytes; None where it is not known.
        energy_kj: of processors and device, in kJ; None where it is not counted.
        left_out: what is to be said of steps that were not finite and not taken; empty without any.
        examples: slices of a validation patch, always the same, in some of the epochs.
    """

    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float | None
    validation_dice: dict[str, float | None]
    mean_dice: float | None
    best: bool
    learning_rate: float
    seconds: float
    seconds_waiting: float
    seconds_left: float
    peak_memory_gb: float | None
    peak_host_memory_gb: float | None = None
    energy_kj: float | None = None
    left_out: str = ""
    examples: Examples | None = None


@dataclass(frozen=True)
class ResumeReport:
    """A training goes on after an epoch; ``problems`` say which of its checkpoints were unreadable."""

    epoch: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class StopReport:
    """A signal asked the training to stop; it does so after the running iteration."""

    signal_name: str


Event = IterationReport | EpochReport | ResumeReport | StopReport
OnEvent = Callable[[Event], None]

RECORDED = (
    "epoch",
    "train_loss",
    "validation_loss",
    "validation_dice",
    "learning_rate",
    "seconds",
    "seconds_waiting",
    "peak_memory_gb",
    "peak_host_memory_gb",
    "energy_kj",
)


def make_record(report: EpochReport) -> dict[str, Any]:
    """Return the metrics.jsonl record of an epoch."""
    return {name: getattr(report, name) for name in RECORDED}


def describe_epoch(report: EpochReport) -> str:
    """Return an epoch as one line for train.log."""
    dice = ", ".join(f"{name} {_number(value)}" for name, value in report.validation_dice.items())
    parts = [
        f"epoch {report.epoch}/{report.epochs}",
        f"loss {report.train_loss:.4f}, validation {_number(report.validation_loss)}",
        f"pseudo Dice {_number(report.mean_dice)} ({dice}){' best' if report.best else ''}",
        f"learning rate {report.learning_rate:.2e}",
        f"{report.seconds:.1f} s, {report.seconds_waiting:.1f} s waiting for data, {report.seconds_left:.0f} s left",
    ]
    if report.peak_memory_gb is not None:
        parts.append(f"memory {report.peak_memory_gb:.1f} GB")
    if report.peak_host_memory_gb is not None:
        parts.append(f"host memory {report.peak_host_memory_gb:.1f} GB")
    if report.left_out:
        parts.append(report.left_out)
    return "  ".join(parts)


@dataclass(frozen=True)
class Beginning:
    """What a logger is told before the first epoch.

    Attributes:
        folder: of the run.
        record: what it runs on.
        history: the records of the epochs that are finished already.
    """

    folder: Path
    plan: Plan
    record: RunRecord
    history: Sequence[dict[str, Any]] = ()


class Logger(Protocol):
    """Shows a training elsewhere. Each call comes from a thread that is the logger's own, one after the other.

    Whatever it raises is told once, and it is left out from then on: no logger may end a training, or hold it up.
    """

    name: str

    def begin(self, beginning: Beginning) -> None:
        """Get ready; called once, first."""

    def add_epoch(self, report: EpochReport) -> None:
        """Take an epoch."""

    def rest(self) -> None:
        """Do what is worth doing only when nothing waits to be taken."""

    def end(self) -> None:
        """Finish; called once, last, also when the training fails."""


class TrainingLog:
    """What one run leaves behind: logs/train.log, logs/metrics.jsonl, and what the loggers make of it."""

    def __init__(self, beginning: Beginning, loggers: Sequence[Logger] = ()) -> None:
        """Open the logs so that they end with the records up to the checkpoint that is gone on from."""
        folder = beginning.folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        self._text = folder / "train.log"
        self._metrics = folder / "metrics.jsonl"
        write_text(self._metrics, "".join(_json_line(record) for record in beginning.history))
        self._loggers = [_Threaded(logger, self.write) for logger in loggers]
        for logger in self._loggers:
            logger.put(lambda one: one.begin(beginning))

    def write(self, line: str) -> None:
        """Add a line with the time to train.log."""
        with self._text.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")

    def write_epoch(self, report: EpochReport) -> None:
        """Add an epoch to the files, and hand it to the loggers."""
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(_json_line(make_record(report)))
        self.write(describe_epoch(report))
        for logger in self._loggers:
            logger.put(lambda one: one.add_epoch(report))

    def close(self) -> None:
        """Let the loggers finish."""
        for logger in self._loggers:
            logger.close()


class _Threaded:
    """A logger in a thread of its own, so that the training waits for it at the end only, and not for long."""

    def __init__(self, logger: Logger, complain: Callable[[str], None]) -> None:
        self._logger, self._complain = logger, complain
        self._waiting: SimpleQueue[Callable[[Logger], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"autoseg {logger.name}", daemon=True)
        self._thread.start()

    def put(self, action: Callable[[Logger], None]) -> None:
        """Have something done as soon as what came before is."""
        self._waiting.put(action)

    def close(self) -> None:
        """Wait until all is done, but not for one that is stuck."""
        self._waiting.put(None)
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive():
            self._complain(f"{self._logger.name}: not ready after {PATIENCE_SECONDS:.0f} s; the rest is left out")

    def _work(self) -> None:
        fine = True
        while (action := self._waiting.get()) is not None:
            fine = fine and self._try(action)
            if fine and self._waiting.empty():
                fine = self._try(lambda one: one.rest())
        if fine:
            self._try(lambda one: one.end())

    def _try(self, action: Callable[[Logger], None]) -> bool:
        """Return whether it went well; else say why not."""
        try:
            action(self._logger)
        except Exception as error:  # a full disk, a broken installation, no network: none may end a training
            told = " ".join(str(error).split())
            with suppress(OSError):
                self._complain(f"no {self._logger.name} from here on: {type(error).__name__}: {told}")
            return False
        return True


class NoLog:
    """The log of a process that does not lead: it writes nothing."""

    def write(self, line: str) -> None:
        """Do nothing."""

    def write_epoch(self, report: EpochReport) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _json_line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
