"""One case: from the files of a raw dataset to the network's input. The way back stands in restore.py.

The order is nnU-Net's, once the image has the canonical orientation: transpose, crop to nonzero, normalise, resample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from autoseg.data.crop import Box, nonzero_box, nonzero_mask
from autoseg.data.dataset import Case
from autoseg.data.labels import OUTSIDE_CLASS
from autoseg.data.pictures import ENDINGS, find_description
from autoseg.data.volumes import (
    Geometry,
    Volume,
    align,
    canonical_geometry,
    read_image,
    read_label,
    to_canonical,
)
from autoseg.documents import Document
from autoseg.plan.plan import Plan, Preprocessing
from autoseg.preprocess.normalize import normalize
from autoseg.preprocess.resample import coarse_axis, resample_classes, resample_image

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
        classes: int16 (Z, Y, X), -1 ignored, background outside a mask OUTSIDE_CLASS; None without a label.
        properties: where it comes from.
    """

    image: Floats
    classes: NDArray[np.int16] | None
    properties: CaseProperties


def preprocess_case(
    case: Case, plan: Plan, *, with_label: bool = True, device: torch.device | None = None
) -> PreprocessedCase:
    """Read a case and bring it to the plan's orientation, spacing and intensities.

    Args:
        case: the files.
        plan: of it, ``preprocessing`` and the label scheme are used.
        with_label: whether the label, if there is one, is read too.
        device: that the image is resampled on; None: the CPU.

    Raises:
        VolumeError: a file cannot be used, or the label does not lie on the image's grid.
        PlanError: the plan is for another number of channels.
    """
    label_path = case.label if with_label else None
    sources = describe_sources(case, label_path)
    image, properties = _orient_and_crop(case.name, read_image(case.images), plan.preprocessing, sources)
    classes = None if label_path is None else _read_classes(label_path, case, plan, properties)
    mask = _normalize(image, plan.preprocessing)
    if classes is not None and mask is not None:
        classes[(classes == 0) & ~mask] = OUTSIDE_CLASS
    return _resample(image, classes, properties, plan.preprocessing, device)


def preprocess_volume(name: str, volume: Volume, plan: Plan) -> PreprocessedCase:
    """Bring an image (C, Z, Y, X) in memory to the plan's orientation, spacing and intensities; it is not changed.

    Raises:
        PlanError: the plan is for another number of channels.
    """
    floats = Volume(volume.array.astype(np.float32, copy=False), volume.geometry)
    image, properties = _orient_and_crop(name, floats, plan.preprocessing, ())
    if np.may_share_memory(image, volume.array):
        image = image.copy()
    _normalize(image, plan.preprocessing)
    return _resample(image, None, properties, plan.preprocessing)


def describe_sources(case: Case, label_path: Path | None) -> tuple[SourceFile, ...]:
    """Return name, size and time of change of the case's files; missing ones are left out.

    They are also those of a DICOM folder, and the document that says a picture's spacing.
    """
    files = [*case.images, *([label_path] if label_path else [])]
    descriptions = [find_description(path) for path in files if path.suffix.lower() in ENDINGS]
    sources = dict.fromkeys([*files, *(path for path in descriptions if path)])
    paths = [path for source in sources for path in (sorted(source.iterdir()) if source.is_dir() else [source])]
    states = [(path, path.stat()) for path in paths if path.is_file()]
    return tuple(SourceFile(name=p.name, size=s.st_size, modified_ns=s.st_mtime_ns) for p, s in states)


def _orient_and_crop(
    name: str, volume: Volume, preprocessing: Preprocessing, sources: tuple[SourceFile, ...]
) -> tuple[Floats, CaseProperties]:
    """Return the image, canonical, transposed and cropped to nonzero; contiguous."""
    array = to_canonical(volume).array
    image = array.transpose(0, *(1 + axis for axis in preprocessing.transpose))
    properties = _describe(name, volume.geometry, nonzero_box(image), preprocessing, sources)
    return np.ascontiguousarray(image[(slice(None), *properties.slices)]), properties


def _normalize(image: Floats, preprocessing: Preprocessing) -> NDArray[np.bool_] | None:
    """Normalise the image in place; return the mask that this was done in, if a scheme asks for one."""
    schemes = preprocessing.normalization
    mask = nonzero_mask(image) if any(scheme.use_mask for scheme in schemes) else None
    normalize(image, schemes, mask)
    return mask


def _read_classes(path: Path, case: Case, plan: Plan, properties: CaseProperties) -> NDArray[np.int16]:
    labels = plan.dataset.label_scheme
    volume = to_canonical(align(read_label(path, labels), properties.geometry, path, case.images[0]))
    values = volume.array[0].transpose(plan.preprocessing.transpose)[properties.slices]
    return np.ascontiguousarray(labels.encode(values, where=str(path)))


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
    image: Floats,
    classes: NDArray[np.int16] | None,
    properties: CaseProperties,
    preprocessing: Preprocessing,
    device: torch.device | None = None,
) -> PreprocessedCase:
    target = preprocessing.spacing_of(properties.spacing)
    axis = coarse_axis(properties.spacing, target, preprocessing.separate_axis_threshold)
    shape = properties.shape
    if classes is not None:
        classes = resample_classes(classes, shape, order=preprocessing.label_order, separate_axis=axis)
    image = resample_image(image, shape, order=preprocessing.image_order, separate_axis=axis, device=device)
    return PreprocessedCase(image, classes, properties)
