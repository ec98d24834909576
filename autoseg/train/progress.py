"""progress.png: how a training goes, in one picture that is drawn anew after each epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.documents import write_beside
from autoseg.train.chart import INK, PALETTE, Chart, Line, draw_charts
from autoseg.train.log import Beginning, EpochReport, make_record

NAME = "progress.png"
FEW = 6
"""Regions up to which their lines are broad."""

Records = Sequence[dict[str, Any]]


class ProgressPicture:
    """Draws losses, Dice, learning rate and times of all epochs so far; where epochs are too quick, not after each."""

    name = NAME

    def begin(self, beginning: Beginning) -> None:
        """Take the epochs that are finished already."""
        self._beginning, self._records = beginning, list(beginning.history)

    def add_epoch(self, report: EpochReport) -> None:
        """Take an epoch."""
        self._records.append(make_record(report))

    def rest(self) -> None:
        """Draw the picture."""
        if self._records:
            plan = self._beginning.plan
            write_progress(self._beginning.folder, plan.name, plan.training.epochs, self._records)

    def end(self) -> None:
        """Do nothing: what was to be drawn is drawn."""


def write_progress(folder: Path, plan_name: str, epochs: int, records: Records) -> None:
    """Write progress.png of the records of metrics.jsonl into the folder of a run."""
    title = f"{plan_name}, {folder.name.replace('_', ' ')}: epoch {records[-1]['epoch']} of {epochs}{_best(records)}"
    with write_beside(folder / NAME) as temporary:
        draw_charts(title, make_charts(records)).save(temporary, format="PNG", compress_level=3)


def make_charts(records: Records) -> list[Chart]:
    """Return the four charts of a training."""
    first = records[0]["epoch"]
    seconds, waiting = _column(records, "seconds"), _column(records, "seconds_waiting")
    losses = [
        Line("training", _column(records, "train_loss"), PALETTE[0]),
        Line("validation", _column(records, "validation_loss"), PALETTE[1]),
    ]
    times = [Line("whole epoch", seconds, PALETTE[0]), Line("waiting for data", waiting, PALETTE[1])]
    rate = [Line("last iteration of the epoch", _column(records, "learning_rate"), PALETTE[0])]
    return [
        Chart("Loss", losses, first),
        Chart("Pseudo Dice of the validation patches", _dice_lines(records), first, (0.0, 1.0)),
        Chart("Learning rate", rate, first, (0.0, None)),
        Chart("Seconds", times, first, (0.0, None)),
    ]


def _dice_lines(records: Records) -> list[Line]:
    """Return a line for each region, and before them their mean if there are several."""
    names = list(dict.fromkeys(name for record in records for name in record["validation_dice"]))
    width = 2 if len(names) <= FEW else 1
    lines = [
        Line(name, [r["validation_dice"].get(name) for r in records], PALETTE[index % len(PALETTE)], width)
        for index, name in enumerate(names)
    ]
    means = [mean_of(record) for record in records]
    return [Line("mean", means, INK, width + 1), *lines] if len(names) > 1 else lines


def mean_of(record: dict[str, Any]) -> float | None:
    """Return the mean of the defined Dice of an epoch."""
    known = [value for value in record["validation_dice"].values() if value is not None]
    return sum(known) / len(known) if known else None


def _best(records: Records) -> str:
    means = [(mean, record["epoch"]) for record in records if (mean := mean_of(record)) is not None]
    if not means:
        return ""
    dice, epoch = max(means)
    return f"; best mean Dice {dice:.3f} in epoch {epoch}"


def _column(records: Records, key: str) -> list[float | None]:
    return [record.get(key) for record in records]
