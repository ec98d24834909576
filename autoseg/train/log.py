"""What a training tells: events for whoever watches, and the files that remain.

logs/train.log is for people, logs/metrics.jsonl for programs (one JSON object an epoch), events/ for TensorBoard.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autoseg.documents import write_text

Phase = Literal["training", "validation"]


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


Event = IterationReport | EpochReport
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


class TrainingLog:
    """The three writers of one run. TensorBoard is a convenience: if it fails, the log says so once and goes on."""

    def __init__(self, run_folder: Path, history: list[dict[str, Any]]) -> None:
        """Open the logs so that they end with ``history``, the records up to the checkpoint that is gone on from."""
        folder = run_folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        self._text = folder / "train.log"
        self._metrics = folder / "metrics.jsonl"
        self._board: Any = None
        write_text(self._metrics, "".join(_json_line(record) for record in history))
        self._try_board(lambda: self._open_board(run_folder / "events", len(history)))

    def write(self, line: str) -> None:
        """Add a line with the time to train.log."""
        with self._text.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")

    def write_epoch(self, report: EpochReport) -> None:
        """Add an epoch to all three."""
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(_json_line(make_record(report)))
        self.write(describe_epoch(report))
        self._try_board(lambda: self._add_scalars(report))

    def close(self) -> None:
        """Finish the TensorBoard file."""
        self._try_board(lambda: self._board and self._board.close())
        self._board = None

    def _open_board(self, folder: Path, finished: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._board = SummaryWriter(str(folder), purge_step=finished + 1)

    def _add_scalars(self, report: EpochReport) -> None:
        if self._board is None:
            return
        values = {
            "loss/training": report.train_loss,
            "loss/validation": report.validation_loss,
            "dice/mean": report.mean_dice,
            "learning_rate": report.learning_rate,
            "time/seconds": report.seconds,
            "time/seconds_waiting": report.seconds_waiting,
            "memory_gb/device": report.peak_memory_gb,
            "memory_gb/host": report.peak_host_memory_gb,
            "energy_kj": report.energy_kj,
        } | {f"dice/{name}": value for name, value in report.validation_dice.items()}
        for tag, value in values.items():
            if value is not None:
                self._board.add_scalar(tag, value, report.epoch)
        self._board.flush()

    def _try_board(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # a full disk, a broken installation: nothing here may end a training
            self._board = None
            self.write(f"no TensorBoard events from here on: {type(error).__name__}: {' '.join(str(error).split())}")


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
