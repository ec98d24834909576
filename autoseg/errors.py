"""The exceptions that a user's mistake can raise. Everything else is a bug and keeps its traceback.

AutosegError
├── WorkspaceError   a folder or file of the workspace is missing or in the wrong state
├── DatasetError     the raw dataset: layout, pairing, labels
├── VolumeError      one image or label file
├── DocumentError    a JSON document: fingerprint, plan, splits
├── PlanError        a plan that cannot be made or run
└── TrainingError    a training that cannot go on

Messages are one line and say where, what was found, what is allowed, and what to do.
"""

import difflib
from collections.abc import Iterable


class AutosegError(Exception):
    """A mistake that the user can mend; commands print it as one line and exit with status 2."""


class WorkspaceError(AutosegError):
    """A folder or file of the workspace is missing or in the wrong state."""


class DatasetError(AutosegError):
    """The raw dataset cannot be used as it is."""


class VolumeError(AutosegError):
    """An image or label file cannot be read, or does not hold what it should.

    Attributes:
        where: the file.
        found: what is wrong with it.
        remedy: what the user can do.
        kind: the sort of problem, one of ``autoseg.data.problems.KINDS``.
    """

    def __init__(self, where: object, found: str, remedy: str, *, kind: str = "unreadable file") -> None:
        """Make the message ``where: found; remedy``."""
        super().__init__(f"{where}: {found}; {remedy}")
        self.where, self.found, self.remedy, self.kind = str(where), found, remedy, kind


class DocumentError(AutosegError):
    """A JSON document is unreadable, incomplete, or has unknown or impossible fields."""


class PlanError(AutosegError):
    """A plan cannot be made, or cannot be run."""


class TrainingError(AutosegError):
    """A training cannot start or cannot go on."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the allowed name closest to ``name``, else an empty text."""
    matches = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
