"""What is wrong or doubtful in a dataset: one record a problem, all of them in one report, worst first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from autoseg.documents import Document
from autoseg.errors import DatasetError, VolumeError
from autoseg.plurals import count

Severity = Literal["error", "warning"]
SCHEMA: Literal["autoseg.problems.1"] = "autoseg.problems.1"

KINDS: dict[str, Severity] = {
    "dataset": "error",
    "splits": "error",
    "missing file": "error",
    "unreadable file": "error",
    "dimensions": "error",
    "voxel values": "error",
    "channels": "error",
    "shape": "error",
    "grid": "error",
    "label values": "error",
    "duplicate image": "warning",
    "spacing outlier": "warning",
    "header": "warning",
    "empty label": "warning",
    "rare label": "warning",
    "constant channel": "warning",
    "other axes": "warning",
    "parted patient": "warning",
    "mixed orientations": "warning",
    "left out": "warning",
}
"""The sorts of problems, worst first. An error stops the command, a warning does not."""

MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Remark:
    """Something doubtful in the file ``where`` that does not keep it from being read; ``kind`` is one of ``KINDS``."""

    where: Path
    kind: str
    found: str
    remedy: str


class Problem(Document):
    """Something wrong or doubtful.

    Attributes:
        severity: whether it stops the command.
        kind: one of ``KINDS``.
        case: name of the case; None if it is the dataset's.
        file: relative to the dataset's folder; None if it is not one file's.
        found: what was found.
        remedy: what to do.
    """

    severity: Severity
    kind: str
    case: str | None
    file: str | None
    found: str
    remedy: str

    @property
    def line(self) -> str:
        """The problem in one line: where, what was found, what to do."""
        where = self.file or self.case
        return f"{where + ': ' if where else ''}{self.found}; {self.remedy}"


class Problems(Document):
    """All problems of a dataset, worst first: problems.json."""

    schema_: Literal["autoseg.problems.1"] = Field(alias="schema")
    dataset: str
    errors: int
    warnings: int
    problems: tuple[Problem, ...]


def make_problem(kind: str, found: str, remedy: str, *, case: str | None = None, file: str | None = None) -> Problem:
    """Return a problem of the severity that its kind has."""
    return Problem(severity=KINDS[kind], kind=kind, case=case, file=file, found=found, remedy=remedy)


def problem_of(found: VolumeError | Remark, case: str, folder: Path) -> Problem:
    """Return the problem that an error or remark tells of, its file named relative to the dataset's ``folder``."""
    return make_problem(found.kind, found.found, found.remedy, case=case, file=relative_name(Path(found.where), folder))


def relative_name(path: Path, folder: Path) -> str:
    """Return ``path`` relative to ``folder``, or as it is where it does not lie below."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def collect(dataset: str, problems: Iterable[Problem]) -> Problems:
    """Return the document of ``problems``, worst first, then by case and file."""
    order = list(KINDS)
    ranked = sorted(problems, key=lambda p: (order.index(p.kind), p.case or "", p.file or ""))
    errors = sum(problem.severity == "error" for problem in ranked)
    return Problems(
        schema=SCHEMA, dataset=dataset, errors=errors, warnings=len(ranked) - errors, problems=tuple(ranked)
    )


def dataset_error(folder: Path, problems: Sequence[Problem], report: Path | None = None) -> DatasetError:
    """Return one error, in one line: how many errors there are, the worst few, and the file that lists them all."""
    errors = [problem for problem in problems if problem.severity == "error"]
    text = " | ".join(problem.line.replace(f"{folder}/", "") for problem in errors[:MAX_EXAMPLES])
    if len(errors) > 1:
        text = f"{count(len(errors), 'error')}: {text}"
    if len(errors) > MAX_EXAMPLES:
        text += f" | and {len(errors) - MAX_EXAMPLES} more"
    return DatasetError(f"{folder}: {text}" + (f" | all of them: {report}" if report else ""))
