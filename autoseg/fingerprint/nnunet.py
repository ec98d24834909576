"""A fingerprint from nnU-Net's own two files, without any image: share a fingerprint, not patients."""

import json
from pathlib import Path

from pydantic import ConfigDict, Field

from autoseg.data.description import FILE_NAME as DESCRIPTION
from autoseg.data.layouts import read_declaration
from autoseg.data.workspace import dataset_name
from autoseg.documents import Document, format_json, read_document, write_text
from autoseg.errors import DatasetError, DocumentError
from autoseg.fingerprint.fingerprint import SCHEMA, CaseFingerprint, ChannelIntensities, Fingerprint

FILE_NAME = "dataset_fingerprint.json"

UNKNOWN_ORIENTATION = "unknown"
"""nnU-Net's file does not say how the axes lie in the body; its plans keep them as they are stored, and so do these."""

Voxels = tuple[int, int, int]


class _Intensities(ChannelIntensities):
    """One channel of nnU-Net's file, which has the same fields and may have more."""

    model_config = ConfigDict(extra="ignore")


class _NnunetFingerprint(Document):
    """nnU-Net's dataset_fingerprint.json."""

    model_config = ConfigDict(extra="ignore")
    spacings: tuple[tuple[float, float, float], ...] = Field(min_length=1)
    shapes_after_crop: tuple[Voxels, ...]
    foreground_intensity_properties_per_channel: dict[str, _Intensities] = {}
    median_relative_size_after_cropping: float


def holds_fingerprint_only(folder: Path) -> bool:
    """Return whether a folder has nnU-Net's dataset.json and dataset_fingerprint.json, and no images."""
    has_both = (folder / DESCRIPTION).is_file() and (folder / FILE_NAME).is_file()
    return has_both and not (folder / "imagesTr").is_dir()


def read_nnunet_fingerprint(folder: Path) -> Fingerprint:
    """Return the fingerprint of a folder with nnU-Net's dataset.json and dataset_fingerprint.json.

    What nnU-Net did not write is left unknown: names, orientations, label counts, and shapes before cropping, for which
    those after it stand.

    Raises:
        DatasetError: a file has mistakes, or the two do not fit each other.
    """
    channels, labels, num_training = read_declaration(folder)
    path = folder / FILE_NAME
    try:
        measured = read_document(path, _NnunetFingerprint)
    except DocumentError as error:
        raise DatasetError(str(error)) from None
    problems = _problems(measured, channels)
    if problems:
        raise DatasetError(f"{path}: {'; '.join(problems)}")
    cases = zip(measured.spacings, measured.shapes_after_crop)
    return Fingerprint(
        schema=SCHEMA,
        dataset=dataset_name(folder),
        channels=channels,
        labels=labels.labels,
        regions=labels.regions,
        num_training=num_training or len(measured.spacings),
        cases=tuple(_case(index, spacing, shape) for index, (spacing, shape) in enumerate(cases, start=1)),
        intensities=_intensities(measured, channels),
        median_relative_size_after_cropping=measured.median_relative_size_after_cropping,
    )


def write_nnunet_fingerprint(fingerprint: Fingerprint, path: Path) -> None:
    """Write what nnU-Net's own dataset_fingerprint.json would hold of a dataset.

    Its cases come in the fingerprint's order, their axes in canonical orientation, while nnU-Net keeps them as stored.
    Statistics are of all foreground voxels where these are whole numbers; nnU-Net draws from them.
    """
    names = ChannelIntensities.model_fields
    content = {
        "spacings": [case.spacing for case in fingerprint.cases],
        "shapes_after_crop": [case.shape_after_crop for case in fingerprint.cases],
        "foreground_intensity_properties_per_channel": {
            str(number): {name: getattr(channel, name) for name in names}
            for number, channel in enumerate(fingerprint.intensities)
        },
        "median_relative_size_after_cropping": fingerprint.median_relative_size_after_cropping,
    }
    write_text(path, format_json(content) + "\n")


def _problems(measured: _NnunetFingerprint, channels: tuple[str, ...]) -> list[str]:
    found = []
    if len(measured.spacings) != len(measured.shapes_after_crop):
        found.append(f"{len(measured.spacings)} spacings, but {len(measured.shapes_after_crop)} shapes_after_crop")
    if any(value <= 0 for spacing in measured.spacings for value in spacing):
        found.append("spacings must be above 0 mm")
    if any(value < 1 for shape in measured.shapes_after_crop for value in shape):
        found.append("shapes_after_crop must be at least 1 voxel")
    known = measured.foreground_intensity_properties_per_channel
    missing = [n for n, name in enumerate(channels) if name.casefold() == "ct" and str(n) not in known]
    if missing:
        found.append(
            f"foreground_intensity_properties_per_channel lacks the CT channels {missing}, which are clipped by it"
        )
    return found


def _case(index: int, spacing: tuple[float, float, float], shape: Voxels) -> CaseFingerprint:
    return CaseFingerprint(
        name=f"case_{index:03d}",
        spacing=spacing,
        shape=shape,
        shape_after_crop=shape,
        orientation=UNKNOWN_ORIENTATION,
        label_voxels={},
    )


def _intensities(measured: _NnunetFingerprint, channels: tuple[str, ...]) -> tuple[ChannelIntensities, ...]:
    """Return the intensities of each channel; zeros where nnU-Net measured none, since only CT needs them."""
    none = dict.fromkeys(_Intensities.model_fields, 0.0)
    known = measured.foreground_intensity_properties_per_channel
    contents = [known[str(n)].model_dump() if str(n) in known else none for n in range(len(channels))]
    return tuple(ChannelIntensities.model_validate_json(json.dumps(content)) for content in contents)
