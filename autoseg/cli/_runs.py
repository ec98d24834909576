"""What autoseg_run shows: one screen while the runs go on, a table at their end."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoseg.cli._progress import duration
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.launch.attempt import Attempt
    from autoseg.launch.local import RunEvent
    from autoseg.launch.slurm import JobState
    from autoseg.launch.status import RunKey, RunStatus

VERBS = {
    "started": "started {key} on {told}",
    "finished": "finished {key}: {done}",
    "retried": "died {key}: {told}; it is tried again from its last checkpoint",
    "held": "waiting for {key}: another process trains it",
    "failed": "failed {key}: {told}",
    "skipped": "not started {key}: {told}",
}


class RunsDisplay:
    """A line for each thing that happens, and on a terminal below them what runs at the moment."""

    def __init__(self, out: Any, total: int, finished: int, status_of: Any) -> None:
        """Show ``total`` runs of which some are ``finished``; ``status_of`` returns the state of a run."""
        from rich.console import Console
        from rich.live import Live

        self._out, self._total, self._finished, self._failed = out, total, finished, 0
        self._status_of = status_of
        self._begun = time.monotonic()
        self._since = finished
        stderr = Console(stderr=True)
        self._live = Live(console=stderr, transient=True, auto_refresh=False) if stderr.is_terminal else None
        # A line that is printed on the same screen must go through the live display, or it would be painted over.
        self._lines = stderr if self._live and sys.stdout.isatty() else out

    def __enter__(self) -> "RunsDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def tell(self, event: "RunEvent") -> None:
        """Print one event."""
        self._finished += event.kind == "finished"
        self._failed += event.kind in ("failed", "skipped")
        status = self._status_of(event.key) if event.kind == "finished" else None
        done = f"{_result(status)}, {self._finished} of {count(self._total, 'run')}" if status else ""
        line = VERBS[event.kind].format(key=event.key, told=event.told, done=done)
        self._lines.print(f"{time.strftime('%H:%M:%S')}  {line}", markup=False, highlight=False, soft_wrap=True)

    def show(self, running: "Sequence[Attempt]") -> None:
        """Show what runs, on a terminal."""
        if self._live:
            self._live.update(_screen(self._headline(), running), refresh=True)

    def _headline(self) -> str:
        told = f"{self._finished} of {count(self._total, 'run')} finished"
        if self._failed:
            told += f", {self._failed} failed"
        new = self._finished - self._since
        if not new:
            return told
        each = (time.monotonic() - self._begun) / new
        return f"{told}, about {duration(each * (self._total - self._finished - self._failed))} left"


def _screen(headline: str, running: "Sequence[Attempt]") -> Any:
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("running", no_wrap=True)
    for title in ("on", "epoch", "loss", "patch Dice", "an epoch", "left"):
        table.add_column(title, justify="right", no_wrap=True)
    for attempt in running:
        table.add_row(str(attempt.task.key), attempt.device, *_progress(attempt))
    return Group(headline, table)


def _progress(attempt: "Attempt") -> tuple[str, ...]:
    """Return epoch, loss, Dice, seconds an epoch and the time left of a run under way."""
    from autoseg.launch.status import read_progress

    found = read_progress(attempt.task.run_folder)
    if found is None:
        return "starting", "", "", "", ""
    dice = "-" if found.dice is None else f"{found.dice:.3f}"
    left = duration(found.epoch_seconds * (found.planned - found.epoch)) if found.epoch < found.planned else "scoring"
    return f"{found.epoch}/{found.planned}", f"{found.loss:.4f}", dice, duration(found.epoch_seconds), left


def runs_table(statuses: "Sequence[RunStatus]", jobs: "Mapping[RunKey, tuple[str, JobState]]") -> Any:
    """Return a table of runs: state, epochs, Dice, time, and where they are in a cluster's queue."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for title in ("epochs", "Dice", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    if jobs:
        table.add_column("job")
    else:
        table.add_column("last attempt", overflow="fold")
    for status in statuses:
        planned = "?" if status.planned is None else status.planned
        epochs = f"{status.epochs}/{planned}" if status.epochs or status.planned else "-"
        dice = "-" if status.dice is None else f"{status.dice:.4f}"
        taken = duration(status.seconds) if status.seconds else "-"
        last = _place(jobs.get(status.key)) if jobs else "" if status.finished else status.ended
        table.add_row(str(status.key), status.state, epochs, dice, taken, last)
    return table


def _place(job: "tuple[str, JobState] | None") -> str:
    if job is None:
        return ""
    number, state = job
    where = f" on {state.place} for {state.time}" if state.state == "RUNNING" else f" ({state.place})"
    return f"{state.state.lower()}{where}, job {number}"


def _result(status: "RunStatus") -> str:
    dice = "Dice undefined" if status.dice is None else f"Dice {status.dice:.4f}"
    return f"{dice}, {duration(status.seconds)}"
