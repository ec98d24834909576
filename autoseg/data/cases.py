"""The records of a dataset: what every layout comes down to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.data.labels import Labels
from autoseg.data.problems import Problem


@dataclass(frozen=True)
class Case:
    """One image and its label map if there is one.

    Attributes:
        name: unique in the dataset.
        images: the file of each channel. A 4-D file stands once for each of its volumes, in their order, and must have
            just these; a folder stands for the DICOM series in it.
        label: the label file.
    """

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
        labels: labels and regions; None where nothing declares them and the label files are to tell.
        cases: the labelled cases, sorted by name.
        file_ending: of the raw files, such as ``.nii.gz``.
        groups: case name to the name of its group, for cases that must stay in one fold; may be empty.
        problems: what is wrong or doubtful about its files, as far as their names tell.
        lesions: names of the regions that mark lesions, whose components are scored one by one as well.
        own_splits: nnU-Net's ``splits_final.json`` of it, wherever that stands; None where there is none.
    """

    name: str
    folder: Path
    channels: tuple[str, ...]
    labels: Labels | None
    cases: tuple[Case, ...]
    file_ending: str
    groups: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    lesions: tuple[str, ...] = ()
    own_splits: Path | None = None
