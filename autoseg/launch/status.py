"""What the folders of runs say of their state. There is no other record: who changes a folder changes the state."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.compare.runs import Run, State, read_run
from autoseg.data.workspace import Workspace
from autoseg.train.exclusion import HELD

LOG = Path("logs") / "run.log"
"""In a run's folder: what its commands printed, attempt by attempt."""

ENDED = "ended: "
"""How the line begins that tells how an attempt ended."""


@dataclass(frozen=True)
class RunKey:
    """One run of a table: a fold of a plan."""

    plan: str
    fold: int

    def __str__(self) -> str:
        return f"{self.plan} fold {self.fold}"


@dataclass(frozen=True)
class RunStatus:
    """What is known of a run.

    Attributes:
        state: of its folder; only ``finished`` is.
        epochs: finished ones, of ``planned``; None where the run has no plan yet.
        dice: mean over the regions of the mean over the validation cases; None before they are scored.
        seconds: time of the epochs and of segmenting the validation cases.
        ended: how its last attempt ended, empty if it did not or none was made.
    """

    key: RunKey
    state: State
    epochs: int
    planned: int | None
    dice: float | None
    seconds: float
    ended: str

    @property
    def finished(self) -> bool:
        """Whether the run is trained and scored."""
        return self.state == "finished"


def read_status(workspace: Workspace, dataset: str, key: RunKey) -> RunStatus:
    """Return the state of one run."""
    folder = workspace.fold(dataset, key.plan, key.fold)
    run = read_run(key.plan, key.fold, folder)
    seconds = sum(record.get("seconds", 0.0) for record in run.epochs) + sum(run.seconds.values())
    planned = run.document.get("training", {}).get("epochs")
    return RunStatus(key, run.state, len(run.epochs), planned, _mean_dice(run), seconds, last_ending(folder))


@dataclass(frozen=True)
class Progress:
    """The last finished epoch of a training under way; ``dice`` is the mean pseudo Dice, if one is defined."""

    epoch: int
    planned: int
    loss: float
    dice: float | None
    epoch_seconds: float


def read_progress(folder: Path) -> Progress | None:
    """Return how far a training is; None before its first epoch, or where the files are being written just now."""
    try:
        planned = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["training"]["epochs"]
        record = json.loads(last_line(folder / "logs" / "metrics.jsonl"))
        dice = [value for value in record["validation_dice"].values() if value is not None]
        mean = sum(dice) / len(dice) if dice else None
        return Progress(record["epoch"], planned, record["train_loss"], mean, record["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def count_epochs(folder: Path) -> int:
    """Return the number of epochs that a run has logged."""
    path = folder / "logs" / "metrics.jsonl"
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def write_line(folder: Path, line: str) -> None:
    """Add a line with the time to the log of a run."""
    path = folder / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")


def last_ending(folder: Path) -> str:
    """Return how the last attempt ended; empty if one is under way or none was made."""
    text = last_line(folder / LOG)
    _, found, ending = text.partition(f"  {ENDED}")
    return ending if found else ""


def last_line(path: Path, *, tail: int = 4000) -> str:
    """Return the last line of a text file that is not blank; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - tail))
            lines: Sequence[str] = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def is_held_elsewhere(ending: str) -> bool:
    """Whether a training was refused because another process has its folder."""
    return HELD in ending


def _mean_dice(run: Run) -> float | None:
    """Return the mean over the regions of the mean over the cases; None if no Dice is defined."""
    by_region: dict[str, list[float]] = {}
    for values in run.cases.values():
        for region, scores in values.items():
            if (dice := scores.get("dice")) is not None:
                by_region.setdefault(region, []).append(dice)
    means = [sum(dices) / len(dices) for dices in by_region.values()]
    return sum(means) / len(means) if means else None
