"""The fingerprint document: what the planner needs to know of a dataset, and nothing of a patient's image."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from autoseg.data.labels import IGNORE_NAME, Labels, Region
from autoseg.documents import Document, read_document

SCHEMA: Literal["autoseg.fingerprint.1"] = "autoseg.fingerprint.1"


class ChannelIntensities(Document):
    """One channel's intensities in the foreground (any label but background and ignore); every case weighs the same."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


class Components(Document):
    """The connected components of a label: lesions, where it marks lesions; 26 neighbours touch.

    Attributes:
        count: how many there are.
        min_mm3: volume of the smallest, in mm^3; so the quartiles, the median and the largest. Null without any.
    """

    count: int
    min_mm3: float | None
    quartile_1_mm3: float | None
    median_mm3: float | None
    quartile_3_mm3: float | None
    max_mm3: float | None


class CaseFingerprint(Document):
    """One case.

    Attributes:
        name: of the case.
        spacing: mm (z, y, x), in canonical orientation as all spatial fields.
        shape: voxels (z, y, x).
        shape_after_crop: voxels (z, y, x) of the nonzero box.
        orientation: of the image file, where its x, y and z axes run to, e.g. ``RAS``.
        label_voxels: number of voxels of each label, background and ignore included.
        field_of_view_mm: extent of the image in mm (z, y, x): voxels times spacing; null in older documents.
        components: of each foreground label; empty where they were not measured.
    """

    name: str
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    shape_after_crop: tuple[int, int, int]
    orientation: str
    label_voxels: dict[str, int]
    field_of_view_mm: tuple[float, float, float] | None = None
    components: dict[str, Components] = {}


class Fingerprint(Document):
    """A dataset.

    Attributes:
        intensities: one entry a channel.
        median_relative_size_after_cropping: median over the cases of cropped by original number of voxels.
        components: of each foreground label over all cases; empty where they were not measured.
    """

    schema_: Literal["autoseg.fingerprint.1"] = Field(alias="schema")
    dataset: str
    channels: tuple[str, ...]
    labels: dict[str, int]
    regions: dict[str, Region]
    num_training: int
    cases: tuple[CaseFingerprint, ...]
    intensities: tuple[ChannelIntensities, ...]
    median_relative_size_after_cropping: float
    components: dict[str, Components] = {}

    @property
    def label_scheme(self) -> Labels:
        """Labels and regions as one object."""
        return Labels(labels=self.labels, regions=self.regions)


def present_labels(fingerprint: Fingerprint) -> dict[str, frozenset[str]]:
    """Return case to the foreground labels that occur in it."""
    foreground = set(fingerprint.labels) - {"background", IGNORE_NAME}
    return {
        case.name: frozenset(name for name, count in case.label_voxels.items() if count and name in foreground)
        for case in fingerprint.cases
    }


def read_fingerprint(path: Path) -> Fingerprint:
    """Read a fingerprint document.

    Raises:
        DocumentError: it is missing or not valid.
    """
    return read_document(path, Fingerprint)
