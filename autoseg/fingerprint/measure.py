"""Checking and measuring one case, in one read of each of its files."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.data.cases import Case
from autoseg.data.crop import nonzero_box
from autoseg.data.geometry import Geometry, canonical_axes, canonical_geometry
from autoseg.data.labels import IGNORED_CLASS, Labels, round_values
from autoseg.data.problems import Problem, Remark, make_problem, problem_of, relative_name
from autoseg.data.volumes import Volume, align, check_image, read_label
from autoseg.errors import VolumeError

SEED = 1234  # nnU-Net's
MAX_COMPARED = 12
"""Up to so many labels, comparing with each is faster than counting all at once."""
MAX_BINS = 1 << 16
"""Whole numbers over a wider range than CT and 16-bit MR have are sampled like any others."""
NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
MAX_FOUND_LABEL = 1000
"""Larger values in a file whose labels nobody declared are those of an image."""


@dataclass(frozen=True)
class Foreground:
    """One channel's foreground in one case: exact moments, and a histogram for the percentiles.

    Attributes:
        values: ascending; all that occur if they are whole numbers and few enough, else those of a seeded sample.
        counts: how often each occurs, int64.
    """

    mean: float
    variance: float
    min: float
    max: float
    values: NDArray[np.float32]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class MeasuredCase:
    """One case: what is wrong with it, and, unless that is an error, what was measured.

    Attributes:
        name: of the case.
        problems: errors and warnings.
        geometry: of the image file; None with an error, and all that follows is empty.
        shape_after_crop: voxels (z, y, x) of the nonzero box, canonical.
        voxels: label value to number of voxels.
        components: foreground label value to the volumes of its connected components in mm^3, ascending, float32.
        foreground: of each channel; empty where there is none.
        digest: of the image's voxels in canonical orientation: equal for the same image, however it is stored.
    """

    name: str
    problems: tuple[Problem, ...]
    geometry: Geometry | None = None
    shape_after_crop: tuple[int, int, int] = (0, 0, 0)
    voxels: Mapping[int, int] = field(default_factory=dict)
    components: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    foreground: tuple[Foreground, ...] = ()
    digest: bytes = b""


def measure_case(case: Case, *, folder: Path, labels: Labels | None, max_values: int) -> MeasuredCase:
    """Read each file of a case once, check and measure it.

    Args:
        case: the files.
        folder: of the dataset; problems name files relative to it.
        labels: what is declared; None: every whole number is a label.
        max_values: foreground values kept of each channel where they are no whole numbers; more are sampled.
    """
    image, errors = check_image(case.images)
    classes = None
    try:
        classes, remarks = _read_classes(case, image, labels)
    except VolumeError as error:
        errors.append(error)
    if image is None or classes is None or errors:
        return MeasuredCase(case.name, tuple(problem_of(error, case.name, folder) for error in errors))
    doubts = [problem_of(remark, case.name, folder) for remark in (*image.remarks, *remarks)]
    box = nonzero_box(image.array)
    cropped, mask = image.array[(slice(None), *box)], classes[box] > 0
    cropped_geometry = image.geometry.model_copy(update={"shape": cropped.shape[1:]})
    digest = _digest(image)
    found = tuple(_measure_channel(channel[mask], max_values, digest) for channel in cropped) if mask.any() else ()
    return MeasuredCase(
        name=case.name,
        problems=(*doubts, *_constant_channels(case, image, folder)),
        geometry=image.geometry,
        shape_after_crop=canonical_geometry(cropped_geometry).shape,
        voxels=_count(classes, labels),
        components=measure_components(classes, labels, math.prod(image.geometry.spacing)),
        foreground=found,
        digest=digest,
    )


def _read_classes(
    case: Case, image: Volume | None, labels: Labels | None
) -> tuple[NDArray[np.integer], tuple[Remark, ...]]:
    """Return the label as classes, or as its own values where ``labels`` is None, on the grid of the image if there is
    one.
    """
    if case.label is None:
        raise VolumeError(case.name, "has no label", "add it; only labelled cases can be measured", kind="missing file")
    label = read_label(case.label, labels)
    if labels is None:
        values = round_values(label.array[0], case.label)
        if values.min() < 0 or values.max() > MAX_FOUND_LABEL:
            found = f"holds values from {values.min()} to {values.max()}"
            remedy = f"declare them in dataset.json if they are labels; undeclared ones lie from 0 to {MAX_FOUND_LABEL}"
            raise VolumeError(case.label, found, remedy, kind="label values")
        label = replace(label, array=values[None])
    else:
        label = replace(label, array=labels.encode(label.array[0], str(case.label))[None])
    if image is not None:
        label = align(label, image.geometry, case.label, case.images[0])
    return label.array[0], label.remarks


def _count(classes: NDArray[np.integer], labels: Labels | None) -> dict[int, int]:
    """Return label value to number of voxels: of all declared labels, else of those that occur."""
    if labels is None:
        counts = np.bincount(classes.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    numbers = {value: number for number, value in enumerate(labels.class_values)}
    if labels.ignore_value is not None:
        numbers[labels.ignore_value] = IGNORED_CLASS
    if len(numbers) <= MAX_COMPARED:
        counted = {value: int(np.count_nonzero(classes == number)) for value, number in numbers.items() if value != 0}
        return {0: classes.size - sum(counted.values())} | counted
    counts = np.bincount(classes.ravel() - IGNORED_CLASS, minlength=labels.num_classes + 1)
    return {value: int(counts[number - IGNORED_CLASS]) for value, number in numbers.items()}


def measure_components(
    classes: NDArray[np.integer], labels: Labels | None, voxel_mm3: float
) -> dict[int, NDArray[np.float32]]:
    """Return foreground label value to the volumes in mm^3 of its connected components, ascending.

    Args:
        classes: (Z, Y, X); the label values themselves where ``labels`` is None.
        labels: what is declared.
        voxel_mm3: volume of a voxel.
    """
    found = {}
    for number, box in enumerate(ndimage.find_objects(np.maximum(classes, 0)), start=1):
        value = number if labels is None else labels.class_values[number]
        if box is not None:
            numbered, count = ndimage.label(classes[box] == number, structure=NEIGHBOURS)
            sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
            found[value] = np.sort(sizes * voxel_mm3).astype(np.float32)
    return found


def _measure_channel(values: NDArray[np.float32], max_values: int, digest: bytes) -> Foreground:
    mean, variance = values.mean(dtype=np.float64), values.var(dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    return Foreground(float(mean), float(variance), low, high, *_histogram(values, low, high, max_values, digest))


def _histogram(
    values: NDArray[np.float32], low: float, high: float, max_values: int, digest: bytes
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return ascending values and how often each occurs, see ``Foreground``."""
    if high - low < MAX_BINS and (values == np.rint(values)).all():
        counts = np.bincount((values - low).astype(np.int32))
        occurring = np.flatnonzero(counts)
        return (occurring + low).astype(np.float32), counts[occurring]
    seed = [SEED, int.from_bytes(digest[:4], "little")]  # of the image, so that neither its name nor other cases matter
    kept = values if values.size <= max_values else np.random.default_rng(seed).choice(values, max_values)
    return np.unique(kept, return_counts=True)


def _digest(image: Volume) -> bytes:
    """Return a hash of the voxels along the canonical axes; a slice is hashed at a time, so that nothing large is
    copied.
    """
    order, reversed_axes = canonical_axes(image.geometry)
    steps = tuple(slice(None, None, -1 if is_reversed else 1) for is_reversed in reversed_axes)
    state = hashlib.sha1(str([image.array.shape[1 + axis] for axis in order]).encode(), usedforsecurity=False)
    for channel in image.array:
        for part in channel.transpose(order)[steps]:
            state.update(np.ascontiguousarray(part).data)
    return state.digest()


def _constant_channels(case: Case, image: Volume, folder: Path) -> list[Problem]:
    problems = []
    for path, channel in zip(case.images, image.array):
        if channel.flat[0] == channel.flat[-1] and channel.min() == channel.max():
            found, remedy = (
                f"has the value {channel.flat[0]:g} everywhere",
                "check the file; a network learns nothing from it",
            )
            file = relative_name(path, folder)
            problems.append(make_problem("constant channel", found, remedy, case=case.name, file=file))
    return problems
