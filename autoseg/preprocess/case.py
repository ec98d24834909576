"""One case: from the files of a raw dataset to the network's input, and the way back for its logits.

The order is nnU-Net's, once the image has the canonical orientation: transpose, crop to nonzero, normalise, resample.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from autoseg.data.crop import Box, nonzero_box, nonzero_mask
from autoseg.data.dataset import Case
from autoseg.data.labels import Labels
from autoseg.data.volumes import (
    Geometry,
    align,
    canonical_geometry,
    from_canonical,
    read_image,
    read_label,
    to_canonical,
)
from autoseg.documents import Document
from autoseg.plan.plan import Plan, Preprocessing
from autoseg.preprocess.normalize import normalize
from autoseg.preprocess.resample import coarse_axis, resample_classes, resample_image, resampled_slabs

Voxel = tuple[int, int, int]
Range = tuple[int, int]
Floats = NDArray[np.float32]


class SourceFile(Document):
    """A file that a case was made from, as it was then; ``modified_ns`` is its time of change in nanoseconds."""

    name: str
    size: int
    modified_ns: int


class CaseProperties(Document):
    """What the way back needs, and what the case was made from.

    Attributes:
        name: of the case.
        geometry: of the image file.
        spacing: mm, canonical after transpose, before resampling.
        shape_before_crop: canonical after transpose.
        box: what the crop kept of that, the end excluded.
        shape_before_resampling: of the box.
        shape: of the preprocessed case.
        sources: image files and the label file, if it was read.
    """

    schema_: Literal["autoseg.case.1"] = Field(alias="schema")
    name: str
    geometry: Geometry
    spacing: tuple[float, float, float]
    shape_before_crop: Voxel
    box: tuple[Range, Range, Range]
    shape_before_resampling: Voxel
    shape: Voxel
    sources: tuple[SourceFile, ...]

    @property
    def slices(self) -> Box:
        """The box as an index."""
        z, y, x = (slice(low, high) for low, high in self.box)
        return z, y, x


@dataclass(frozen=True)
class PreprocessedCase:
    """A case as the network sees it.

    Attributes:
        image: float32 (C, Z, Y, X).
        classes: int16 (Z, Y, X), -1 ignored; None without a label.
        properties: where it comes from.
    """

    image: Floats
    classes: NDArray[np.int16] | None
    properties: CaseProperties


def preprocess_case(case: Case, plan: Plan, *, with_label: bool = True) -> PreprocessedCase:
    """Read a case and bring it to the plan's orientation, spacing and intensities.

    Args:
        case: the files.
        plan: of it, ``preprocessing`` and the label scheme are used.
        with_label: whether the label, if there is one, is read too.

    Raises:
        VolumeError: a file cannot be used, or the label does not lie on the image's grid.
        PlanError: the plan is for another number of channels.
    """
    label_path = case.label if with_label else None
    sources = describe_sources(case, label_path)
    image, geometry = _read_image(case, plan.preprocessing)
    properties = _describe(case.name, geometry, nonzero_box(image), plan.preprocessing, sources)
    image = np.ascontiguousarray(image[:, *properties.slices])
    classes = None if label_path is None else _read_classes(label_path, case, plan, properties)
    schemes = plan.preprocessing.normalization
    normalize(image, schemes, nonzero_mask(image) if any(s.use_mask for s in schemes) else None)
    return _resample(image, classes, properties, plan.preprocessing)


def describe_sources(case: Case, label_path: Path | None) -> tuple[SourceFile, ...]:
    """Return name, size and time of change of the case's files; a missing file is left to the reader to report."""
    paths = [*case.images, *([label_path] if label_path else [])]
    states = [(path, path.stat()) for path in paths if path.is_file()]
    return tuple(SourceFile(name=p.name, size=s.st_size, modified_ns=s.st_mtime_ns) for p, s in states)


def restore_segmentation(logits: torch.Tensor, properties: CaseProperties, plan: Plan) -> NDArray[Any]:
    """Turn logits on the preprocessed grid into label values on the file's own grid.

    Logits are resampled linearly, as nnU-Net does, a few slices and one channel at a time, so memory does not grow with
    the number of channels. Exclusive classes: the largest logit wins. Overlapping regions: each one above 0 (a
    probability of 1/2) writes its value over the ones before.

    Args:
        logits: (R, Z, Y, X) on the CPU, in any floating dtype.
        properties: of the case.
        plan: of it, ``preprocessing`` and the label scheme are used.

    Returns:
        label values (Z, Y, X) in the file's own orientation; background outside the crop.

    Raises:
        ValueError: the logits do not have the preprocessed case's shape.
    """
    if tuple(logits.shape[1:]) != properties.shape:
        raise ValueError(f"{properties.name}: logits of {tuple(logits.shape[1:])} for a case of {properties.shape}")
    found = _decide(logits, properties, plan)
    whole = np.zeros(properties.shape_before_crop, dtype=found.dtype)
    whole[properties.slices] = found
    back = np.argsort(plan.preprocessing.transpose)
    return from_canonical(whole.transpose(back), properties.geometry)


def _read_image(case: Case, preprocessing: Preprocessing) -> tuple[Floats, Geometry]:
    """Return the image, canonical and transposed, and the geometry of the file."""
    volume = read_image(case.images)
    array = to_canonical(volume).array
    return array.transpose(0, *(1 + axis for axis in preprocessing.transpose)), volume.geometry


def _read_classes(path: Path, case: Case, plan: Plan, properties: CaseProperties) -> NDArray[np.int16]:
    volume = to_canonical(align(read_label(path), properties.geometry, path, case.images[0]))
    values = volume.array[0].transpose(plan.preprocessing.transpose)[properties.slices]
    return np.ascontiguousarray(plan.dataset.label_scheme.encode(values, where=str(path)))


def _describe(
    name: str, geometry: Geometry, box: Box, preprocessing: Preprocessing, sources: tuple[SourceFile, ...]
) -> CaseProperties:
    canonical = canonical_geometry(geometry)
    z, y, x = preprocessing.transpose
    spacing = canonical.spacing[z], canonical.spacing[y], canonical.spacing[x]
    kept = _sizes(box)
    return CaseProperties(
        schema="autoseg.case.1",
        name=name,
        geometry=geometry,
        spacing=spacing,
        shape_before_crop=(canonical.shape[z], canonical.shape[y], canonical.shape[x]),
        box=_ranges(box),
        shape_before_resampling=kept,
        shape=resampled_shape(kept, spacing, preprocessing.spacing_of(spacing)),
        sources=sources,
    )


def resampled_shape(shape: Voxel, spacing: Sequence[float], new_spacing: Sequence[float]) -> Voxel:
    """Return the shape at another spacing; halves are rounded to even, as nnU-Net does, and no axis vanishes."""
    z, y, x = (max(1, round(old / new * size)) for old, new, size in zip(spacing, new_spacing, shape))
    return z, y, x


def _sizes(box: Box) -> Voxel:
    z, y, x = (part.stop - part.start for part in box)
    return z, y, x


def _ranges(box: Box) -> tuple[Range, Range, Range]:
    z, y, x = ((part.start, part.stop) for part in box)
    return z, y, x


def _resample(
    image: Floats, classes: NDArray[np.int16] | None, properties: CaseProperties, preprocessing: Preprocessing
) -> PreprocessedCase:
    target = preprocessing.spacing_of(properties.spacing)
    axis = coarse_axis(properties.spacing, target, preprocessing.separate_axis_threshold)
    shape = properties.shape
    if classes is not None:
        classes = resample_classes(classes, shape, order=preprocessing.label_order, separate_axis=axis)
    image = resample_image(image, shape, order=preprocessing.image_order, separate_axis=axis)
    return PreprocessedCase(image, classes, properties)


def _decide(logits: torch.Tensor, properties: CaseProperties, plan: Plan) -> NDArray[Any]:
    """Return label values (Z, Y, X) on the cropped grid before resampling."""
    labels, preprocessing = plan.dataset.label_scheme, plan.preprocessing
    shape = properties.shape_before_resampling
    # As on the way there, but from the plan's spacing to the file's: nnU-Net's rule looks at the spacing that is left.
    current = preprocessing.spacing_of(properties.spacing)
    axis = coarse_axis(current, properties.spacing, preprocessing.separate_axis_threshold)
    result = np.empty(shape, dtype=_value_type(labels))
    for rows, channels in resampled_slabs(logits.detach(), shape, separate_axis=axis):
        size = (rows.stop - rows.start, *shape[1:])
        result[rows] = _threshold(channels, labels, size) if labels.overlapping else labels.decode(_argmax(channels))
    return result


def _value_type(labels: Labels) -> type[np.uint8] | type[np.int16]:
    values = [*labels.class_values, *(region.value for region in labels.regions.values())]
    return np.uint8 if min(values) >= 0 and max(values) < 256 else np.int16


def _argmax(channels: Iterable[Floats]) -> NDArray[np.int16]:
    """Return the index of the largest channel, the first of equal ones."""
    iterator = iter(channels)
    best = next(iterator)
    winner = np.zeros(best.shape, dtype=np.int16)
    for index, channel in enumerate(iterator, start=1):
        winner[channel > best] = index
        best = np.maximum(best, channel)
    return winner


def _threshold(channels: Iterable[Floats], labels: Labels, size: tuple[int, ...]) -> NDArray[np.int16]:
    values = np.zeros(size, dtype=np.int16)
    for channel, region in zip(channels, labels.regions.values()):
        values[channel > 0] = region.value
    return values
