"""Ending a training by a signal, without losing what is finished."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from autoseg.plurals import count

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):  # noqa: N818 (an interruption is no error)
    """SIGINT or SIGTERM ended the training; the same call goes on from the last finished epoch."""


@dataclass
class StopFlag:
    """Holds the name of the signal that asked the training to stop, and how processes agree to do so together."""

    signal_name: str | None = None
    agree: Callable[[bool], bool] = bool

    def check(self, num_finished: int) -> None:
        """Raise ``TrainingInterrupted`` if a signal asked for it; ``num_finished`` epochs are kept."""
        if self.agree(self.signal_name is not None):
            kept = "no epoch was finished yet"
            if num_finished:
                kept = count(num_finished, "finished epoch is kept", "finished epochs are kept")
            who = self.signal_name or "another process"
            raise TrainingInterrupted(f"stopped by {who}; {kept}; the same command goes on from there")


@contextmanager
def catch_signals(on_first: Callable[[str], None] = lambda signal_name: None) -> Iterator[StopFlag]:
    """Turn the first SIGINT or SIGTERM into a flag, tell ``on_first`` its name, and let the second interrupt at once.

    The handlers before are restored on leaving. A signal that came too late for ``check`` is raised then. Python lets
    only the main thread handle signals; in another thread the flag stays as it is.
    """
    stop = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def notice(number: int, frame: FrameType | None) -> None:
        if stop.signal_name is not None:
            raise KeyboardInterrupt
        stop.signal_name = signal.Signals(number).name
        on_first(stop.signal_name)

    previous = {number: signal.signal(number, notice) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if stop.signal_name is not None:
        told = f"stopped by {stop.signal_name}; the training itself is finished; the same command goes on from there"
        raise TrainingInterrupted(told)
