"""Progress on standard error: a bar on a terminal; elsewhere a line now and then, so that a log shows signs of life."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGN_SECONDS = 60.0
"""Where there is no terminal, steps are told of no more often than this."""

EPOCH_SIGN_SECONDS = 600.0
"""The same within an epoch, since epochs have lines of their own."""


class SignsOfLife:
    """Tells whether so many seconds have passed since the last sign."""

    def __init__(self, seconds: float) -> None:
        """Begin now."""
        self._seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        """Return whether it is time for a sign, which is then taken as given."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a bar of ``total`` steps with the time left; yields a function that advances it by one step.

    Without a terminal there is a line of the same for each step that ends a minute or more after the last line.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        signs, started = SignsOfLife(SIGN_SECONDS), time.monotonic()

        def advance(*_: Any) -> None:
            bar.advance(task)
            done = round(bar.tasks[0].completed)
            if total and done < total and not stderr.is_terminal and signs.due():
                left = (time.monotonic() - started) / done * (total - done)
                sys.stderr.write(f"{title}: {done} of {total}, {duration(left)} left\n")

        yield advance


def duration(seconds: float) -> str:
    """Return a time as a person says it: ``8 s``, ``3 min 20 s``, ``5 h 2 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class TrainingDisplay:
    """A line for each finished epoch, and on a terminal a bar for the running one."""

    def __init__(self, out: Any) -> None:
        """Print the lines on the console ``out``."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        stderr = Console(stderr=True)
        columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
        self._task = self._bar.add_task("training", total=None)
        self._out, self._signs = out, SignsOfLife(EPOCH_SIGN_SECONDS)

    def __enter__(self) -> "TrainingDisplay":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: Any) -> None:
        """Show one event of ``train_fold``."""
        from autoseg.train.log import IterationReport, ResumeReport, StopReport

        if isinstance(event, StopReport):
            self._show_stop(event.signal_name)
        elif isinstance(event, IterationReport):
            self._show_iteration(event)
        elif isinstance(event, ResumeReport):
            for problem in event.problems:
                self._out.print(f"warning: {problem}; taking the checkpoint before it", markup=False, soft_wrap=True)
            self._out.print(f"going on after epoch {event.epoch}", markup=False)
        else:
            self._out.print(_epoch_line(event), markup=False)

    def _show_stop(self, signal_name: str) -> None:
        again = "Ctrl-C" if signal_name == "SIGINT" else signal_name
        if self._bar.console.is_terminal:
            self._bar.console.print(f"stopping after this iteration; {again} again stops at once", markup=False)

    def _show_iteration(self, event: Any) -> None:
        title = f"epoch {event.epoch}/{event.epochs}, {event.phase}"
        self._bar.update(self._task, description=title, completed=event.iteration, total=event.iterations)
        if not self._bar.console.is_terminal and self._signs.due():
            sys.stderr.write(f"{title}: iteration {event.iteration} of {event.iterations}\n")


def _epoch_line(event: Any) -> str:
    dice = "  ".join(f"{name} {_dice(value)}" for name, value in event.validation_dice.items())
    left = f", {duration(event.seconds_left)} left" if event.epoch < event.epochs else ""
    return (
        f"epoch {event.epoch:4}/{event.epochs}  loss {event.train_loss:7.4f}  patch Dice {dice}"
        f"{'  *' if event.best else '   '}  {duration(event.seconds)}{left}"
    )


def _dice(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"
