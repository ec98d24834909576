"""The records of a dataset: what every layout comes down to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.data.labels import Labels
from autoseg.errors import DatasetError

MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Case:
    """One image, a file a channel, and its label map if there is one."""

    name: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class Dataset:
    """A folder of labelled cases.

    Attributes:
        name: the name in the workspace's folders, without nnU-Net's ``DatasetNNN_``.
        folder: where the raw files stand.
        channels: names of the channels, in the order of each case's images.
        labels: labels and regions.
        cases: the labelled cases, sorted by name.
        file_ending: of the raw files, such as ``.nii.gz``.
        groups: case name to the name of its group, for cases that must stay in one fold; may be empty.
    """

    name: str
    folder: Path
    channels: tuple[str, ...]
    labels: Labels
    cases: tuple[Case, ...]
    file_ending: str
    groups: Mapping[str, str] = field(default_factory=dict)


def dataset_error(folder: Path, problems: Sequence[str]) -> DatasetError:
    """Return one error for all ``problems`` of a dataset: the number of them and a few examples, in one line."""
    examples = "; ".join(problem.replace(f"{folder}/", "") for problem in problems[:MAX_EXAMPLES])
    rest = f"; and {len(problems) - MAX_EXAMPLES} more" if len(problems) > MAX_EXAMPLES else ""
    count = f"{len(problems)} problems: " if len(problems) > 1 else ""
    return DatasetError(f"{folder}: {count}{examples}{rest}")
