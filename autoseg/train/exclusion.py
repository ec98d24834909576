"""One training at a time in a run's folder: a second one would write over the checkpoints of the first."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from autoseg.errors import TrainingError

if sys.platform != "win32":
    import fcntl


HELD = "is being trained by another process at this moment"
"""By these words of the refusal who starts many trainings knows it from a mistake."""


@contextmanager
def hold_folder(run_folder: Path) -> Iterator[bool]:
    """Hold the folder until the end of the block; however the process ends, the system lets go of it.

    The empty file ``.lock`` stays, since removing it could take away the lock of whoever came next. Where the file
    system knows no locks, nothing is held; yields whether the folder is.

    Raises:
        TrainingError: another training holds the folder.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    with (run_folder / ".lock").open("w", encoding="utf-8") as file:
        yield _lock(file, run_folder)


def _lock(file: IO[str], run_folder: Path) -> bool:
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TrainingError(f"{run_folder}: this fold {HELD}; wait for its end, or stop it") from None
    except OSError:
        return False
    return True
