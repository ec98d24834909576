"""The way back: logits on the preprocessed grids of one or several models become label values on the image's own grid.

Logits are resampled linearly, as nnU-Net does, a few slices and one channel at a time, and at once reduced to the class
that leads. So memory does not grow with the number of channels here, and a source need not hold the logits of a whole
volume: it is read in strips along the second axis, and within a strip from the first slice to the last, once.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.data.labels import Labels
from autoseg.data.volumes import Geometry, from_canonical
from autoseg.plan.plan import Plan
from autoseg.preprocess.case import CaseProperties
from autoseg.preprocess.resample import (
    Band,
    Floats,
    Shape,
    axis_matrix,
    coarse_axis,
    cut_bands,
    extent,
    matrix_bands,
    multiply,
    multiply_rows,
)

SLAB_ROWS = 16  # slices held of a class's resampled logits; few, so that they stay in the processor's cache
SLAB_BYTES = 128 * 10**6
"""Probabilities of all classes are held for one slab at a time, of this size."""

Box = tuple[slice, slice, slice]
OnProbabilities = Callable[[Box, Floats], None]


class LogitSource(Protocol):
    """Logits of a strip of a preprocessed case, read from the first slice to the last."""

    def channels(self, rows: slice) -> Iterator[Floats]:
        """Yield each channel (rows, strip, X) as float32; neither end of ``rows`` ever goes back."""


@dataclass(frozen=True)
class Restorable:
    """The logits of one model for one case.

    Attributes:
        open: returns the source of a range of the second axis; it is also told the most rows that are read at once.
        shape: (z, y, x) of the preprocessed case.
        separate_axis: along which the nearest slice is taken.
        weight: of the model among others.
        row_bytes: memory that an open source takes for each row of the strip; 0 if the logits are held anyway.
    """

    open: Callable[[slice, int], LogitSource]
    shape: tuple[int, int, int]
    separate_axis: int | None
    weight: float = 1.0
    row_bytes: int = 0


@dataclass(frozen=True)
class WholeLogits:
    """Logits (R, Z, Y, X) of a whole case, of any floating dtype, on the CPU."""

    logits: torch.Tensor

    def channels(self, rows: slice) -> Iterator[Floats]:
        """Yield each channel's rows."""
        for channel in self.logits:
            yield np.ascontiguousarray(channel[rows].float().numpy())


def separate_axis_back(plan: Plan, properties: CaseProperties) -> int | None:
    """Return the axis to resample by nearest neighbour on the way back: the rule looks at the spacing that is left."""
    current = plan.preprocessing.spacing_of(properties.spacing)
    return coarse_axis(current, properties.spacing, plan.preprocessing.separate_axis_threshold)


def restore_segmentation(logits: torch.Tensor, properties: CaseProperties, plan: Plan) -> NDArray[Any]:
    """Turn logits on the preprocessed grid into label values on the file's own grid.

    Exclusive classes: the largest logit wins. Overlapping regions: each one above 0 (a probability of 1/2) writes its
    value over the ones before.

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
    values = logits.detach()
    axis = separate_axis_back(plan, properties)
    whole = Restorable(lambda strip, _: WholeLogits(values[:, :, strip]), properties.shape, axis)
    return restore([whole], properties, plan)


def restore(
    models: Sequence[Restorable],
    properties: CaseProperties,
    plan: Plan,
    *,
    limit_bytes: int | None = None,
    on_probabilities: OnProbabilities | None = None,
) -> NDArray[Any]:
    """Turn the logits of several models of one case into label values on the file's own grid.

    The logits of one model decide as in ``restore_segmentation``; several are averaged as probabilities (softmax, or a
    sigmoid for each of overlapping regions) on the grid of the image, by weight.

    Args:
        models: their logits.
        properties: of the case for any of the models; crop and orientation must be the same for all.
        plan: of any of the models; the label scheme and the transposition are used.
        limit_bytes: memory that the open sources may take together; the image is restored in as many strips as that
            asks for. None: in one.
        on_probabilities: given the box in the cropped image and the probabilities (R, z, y, x) there, piece by piece.
    """
    found = restore_crop(models, properties, plan, limit_bytes=limit_bytes, on_probabilities=on_probabilities)
    return to_file(found, properties, plan)


def restore_crop(
    models: Sequence[Restorable],
    properties: CaseProperties,
    plan: Plan,
    *,
    limit_bytes: int | None = None,
    on_probabilities: OnProbabilities | None = None,
) -> NDArray[Any]:
    """Do the same for the cropped and transposed image: label values (z, y, x) of ``shape_before_resampling``."""
    labels, shape = plan.dataset.label_scheme, properties.shape_before_resampling
    found = np.empty(shape, dtype=_value_type(labels))
    for box, channels in _slabs(models, shape, limit_bytes, labels, bool(on_probabilities)):
        if len(models) == 1 and on_probabilities is None:
            found[box] = _decide(channels[0], labels, threshold=0.0)
            continue
        probabilities = mean_probabilities(channels, [model.weight for model in models], labels)
        found[box] = _decide(iter(probabilities), labels, threshold=0.5)
        if on_probabilities:
            on_probabilities(box, probabilities)
    return found


def restore_combinations(
    models: Sequence[Restorable],
    combinations: Sequence[Sequence[int]],
    properties: CaseProperties,
    plan: Plan,
    *,
    limit_bytes: int | None = None,
) -> list[NDArray[Any]]:
    """Return the segmentation that each combination of models gives, reading the logits of each model once."""
    labels, shape = plan.dataset.label_scheme, properties.shape_before_resampling
    found = [np.empty(shape, dtype=_value_type(labels)) for _ in combinations]
    for box, channels in _slabs(models, shape, limit_bytes, labels, True):
        single = [mean_probabilities([c], [1.0], labels) for c in channels]
        for values, chosen in zip(found, combinations):
            weights = [models[index].weight for index in chosen]
            mean: Floats = np.sum([w / sum(weights) * single[i] for w, i in zip(weights, chosen)], axis=0)
            values[box] = _decide(iter(mean.astype(np.float32)), labels, threshold=0.5)
    return [to_file(values, properties, plan) for values in found]


def mean_probabilities(channels: Sequence[Iterator[Floats]], weights: Sequence[float], labels: Labels) -> Floats:
    """Return the weighted mean of the models' probabilities (R, z, y, x), from each model's channels of logits."""
    total: Floats | None = None
    for iterator, weight in zip(channels, weights):
        values = np.stack(list(iterator))
        if labels.overlapping:
            values = 0.5 + 0.5 * np.tanh(0.5 * values)  # the sigmoid, without overflow
        else:
            values -= values.max(axis=0)
            np.exp(values, out=values)
            values /= values.sum(axis=0)
        values *= weight / sum(weights)
        total = values if total is None else total + values
    if total is None:
        raise ValueError("no model was given")
    return total


def to_file(cropped: NDArray[Any], properties: CaseProperties, plan: Plan) -> NDArray[Any]:
    """Return an array of the cropped and transposed image on the file's own grid, 0 outside the crop."""
    whole = np.zeros(properties.shape_before_crop, dtype=cropped.dtype)
    whole[properties.slices] = cropped
    return from_canonical(whole.transpose(np.argsort(plan.preprocessing.transpose)), properties.geometry)


def part_to_file(box: Box, part: Floats, properties: CaseProperties, plan: Plan) -> tuple[Box, Floats]:
    """Return where a part (R, z, y, x) of the cropped image lies in the file, and the part along the file's axes."""
    back = np.argsort(plan.preprocessing.transpose)
    moved = [slice(b.start + s.start, b.stop + s.start) for b, s in zip(box, properties.slices)]
    canonical = moved[back[0]], moved[back[1]], moved[back[2]]
    turned = [from_canonical(channel.transpose(back), properties.geometry) for channel in part]
    return _box_of_file(canonical, properties.geometry), np.stack(turned)


def _box_of_file(box: Box, geometry: Geometry) -> Box:
    """Return where a box of the canonical grid lies along the file's own axes, which a cube of 2 voxels tells."""
    found = [slice(0)] * 3
    for part, index in zip(box, np.indices((2, 2, 2))):
        turned = from_canonical(index, geometry)
        axis = next(a for a in range(3) if turned.take(0, axis=a).min() == turned.take(0, axis=a).max())
        size, is_reversed = geometry.shape[axis], turned[0, 0, 0] == 1
        found[axis] = slice(size - part.stop, size - part.start) if is_reversed else part
    return found[0], found[1], found[2]


def _slabs(
    models: Sequence[Restorable],
    shape: tuple[int, int, int],
    limit_bytes: int | None,
    labels: Labels,
    whole_channels: bool,
) -> Iterator[tuple[Box, list[Iterator[Floats]]]]:
    """Yield boxes that cover the cropped image, with each model's channels there."""
    width = _strip_width(models, shape[1], limit_bytes)
    rows = SLAB_ROWS
    if whole_channels:
        rows = max(1, min(rows, SLAB_BYTES // (4 * labels.num_outputs * width * shape[2])))
    for start in range(0, shape[1], width):
        strip = slice(start, min(start + width, shape[1]))
        num_rows = min(_rows_at_once(model.shape[0], shape[0], rows) for model in models)
        views = [_Strip(model, shape, strip, num_rows) for model in models]
        for index in range(len(views[0].z_bands)):
            box = (views[0].z_bands[index].rows, strip, slice(0, shape[2]))
            yield box, [view.channels(index) for view in views]


def _strip_width(models: Sequence[Restorable], size: int, limit_bytes: int | None) -> int:
    """Return how many rows of the second axis are restored at a time, evenly, so that the sources fit the limit."""
    bytes_per_row = sum(model.row_bytes * model.shape[1] / size for model in models)
    if limit_bytes is None or bytes_per_row * size <= limit_bytes:
        return size
    num_strips = math.ceil(bytes_per_row * size / limit_bytes)
    return math.ceil(size / num_strips)


def _rows_at_once(old: int, new: int, rows: int) -> int:
    """Return how many new rows to make at once so that at most about ``rows`` old ones are read for them."""
    return max(1, min(rows, int(rows * new / old)))


class _Strip:
    """A strip of one model's logits, resampled to the image's grid."""

    def __init__(self, model: Restorable, shape: Shape, strip: slice, num_rows: int) -> None:
        orders = [0 if axis == model.separate_axis else 1 for axis in range(3)]
        self.z_bands = matrix_bands(model.shape[0], shape[0], orders[0], num_rows)
        self._is_z_kept = model.shape[0] == shape[0]
        matrix = axis_matrix(model.shape[1], shape[1], orders[1])[strip]
        columns = extent((matrix != 0).any(axis=0))
        is_y_kept = model.shape[1] == shape[1]
        self._bands: dict[int, tuple[Sequence[Band] | None, int]] = {
            1: (None if is_y_kept else cut_bands(matrix[:, columns]), strip.stop - strip.start),
            2: (None if model.shape[2] == shape[2] else matrix_bands(model.shape[2], shape[2], orders[2]), shape[2]),
        }
        window = max(band.columns.stop - band.columns.start for band in self.z_bands)
        self._source = model.open(columns, window)

    def channels(self, index: int) -> Iterator[Floats]:
        """Yield each channel in the rows of a band."""
        band = self.z_bands[index]
        for channel in self._source.channels(band.columns):
            yield self._resample(channel, None if self._is_z_kept else band.weights)

    def _resample(self, array: Floats, weights: Floats | None) -> Floats:
        if weights is not None:
            slab = np.empty((len(weights), *array.shape[1:]), dtype=np.float32)
            multiply_rows(weights, array, out=slab)
            array = slab
        for axis in sorted((1, 2), key=lambda a: self._bands[a][1] / array.shape[a]):  # what shrinks goes first
            bands, size = self._bands[axis]
            if bands is not None:
                array = multiply(array, bands, axis, size)
        return array


def _decide(channels: Iterator[Floats], labels: Labels, threshold: float) -> NDArray[Any]:
    """Return the label values: of the largest channel, or of the last region above ``threshold``."""
    if not labels.overlapping:
        return labels.decode(_argmax(channels))
    values: NDArray[np.int16] | None = None
    for channel, region in zip(channels, labels.regions.values()):
        if values is None:
            values = np.zeros(channel.shape, dtype=np.int16)
        values[channel > threshold] = region.value
    if values is None:
        raise ValueError("a label scheme without regions decides nothing")
    return values


def _argmax(channels: Iterator[Floats]) -> NDArray[np.int16]:
    """Return the index of the largest channel, the first of equal ones."""
    best = next(channels).copy()
    winner = np.zeros(best.shape, dtype=np.int16)
    for index, channel in enumerate(channels, start=1):
        winner[channel > best] = index
        np.maximum(best, channel, out=best)
    return winner


def _value_type(labels: Labels) -> type[np.uint8] | type[np.int16]:
    values = [*labels.class_values, *(region.value for region in labels.regions.values())]
    return np.uint8 if min(values) >= 0 and max(values) < 256 else np.int16
