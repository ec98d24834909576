"""Resampling, as one small matrix an axis.

Spline resampling is linear and separable, so ``scipy.ndimage.zoom`` applied to the identity gives the matrix (new, old)
of an axis. The result is that of ``skimage.transform.resize(order, mode="edge", anti_aliasing=False)``, which nnU-Net
calls, including its clipping to the input's range. The rows of a matrix fall off within about 15 voxels; so it is cut
into bands, and only these are multiplied.

On the CPU, products are numpy's, since a training may have set torch to a lower precision of products; on a GPU they
are torch's, by the same code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Shape = Sequence[int]

BAND_ROWS = 64  # measured: products of 32 to 128 rows are about equally fast
NEGLIGIBLE = 1e-9  # a weight below this is far below what float32 resolves
TIE = 2e-6  # indicators nearer than this are equal: about 16 roundings of float32 near 1
SPACING_TIE = 1e-4  # relative; file formats round spacings by less


@dataclass(frozen=True)
class Band:
    """Some rows of an axis's matrix, with the columns in which they are not 0.

    Attributes:
        rows: new indices.
        columns: old indices.
        weights: float32 (rows, columns).
    """

    rows: slice
    columns: slice
    weights: Floats


def coarse_axis(current_spacing: Sequence[float], new_spacing: Sequence[float], threshold: float) -> int | None:
    """Return the axis to resample apart from the others by nearest neighbour, or None, by nnU-Net's rule.

    The current spacing decides if its largest is more than ``threshold`` times its smallest, else the new one. Where
    two axes share the largest spacing there is none.
    """
    for spacing in (current_spacing, new_spacing):
        largest = max(spacing)
        if largest > threshold * min(spacing):
            axes = [axis for axis, value in enumerate(spacing) if value >= largest * (1 - SPACING_TIE)]
            return axes[0] if len(axes) == 1 else None
    return None


def resample_image(
    array_czyx: Floats, shape: Shape, *, order: int, separate_axis: int | None, device: torch.device | None = None
) -> Floats:
    """Resample each channel to ``shape`` (z, y, x) by splines of ``order`` 0, 1 or 3.

    Args:
        array_czyx: float32 (C, Z, Y, X); returned as it is where it has that shape already.
        shape: the new shape.
        order: of the spline.
        separate_axis: an axis (0, 1 or 2) along which the nearest slice is taken; slices are resampled one by one.
        device: where a channel at a time is multiplied, if it is a CUDA GPU with memory enough; else it is the CPU.
    """
    if array_czyx.shape[1:] == tuple(shape):
        return array_czyx
    if len(array_czyx) == 1:
        return _resample_on(device, array_czyx[0], shape, order, separate_axis)[None]  # spares a copy
    result = np.empty((len(array_czyx), *shape), dtype=np.float32)
    for index, channel in enumerate(array_czyx):
        result[index] = _resample_on(device, channel, shape, order, separate_axis)
    return result


def resample_classes(
    classes_zyx: NDArray[np.int16], shape: Shape, *, order: int, separate_axis: int | None
) -> NDArray[np.int16]:
    """Resample a map of classes (Z, Y, X) to ``shape``; no class appears that was not there.

    Order 1 interpolates each class's indicator linearly, and the largest wins; of equal ones the nearest neighbour's
    class, else the smallest. This is ``resize_segmentation`` of batchgenerators 0.25.5. The ignored class is a class
    like the others. Order 0 takes the nearest neighbour.
    """
    if classes_zyx.shape == tuple(shape):
        return classes_zyx
    if order == 0:
        return _nearest(classes_zyx, shape, axes=(0, 1, 2))
    if separate_axis is None:
        return _vote(classes_zyx, shape)
    in_plane = [*shape]
    in_plane[separate_axis] = classes_zyx.shape[separate_axis]
    if shape[separate_axis] < classes_zyx.shape[separate_axis]:  # whichever way leaves fewer slices to vote on
        return _vote(_nearest(classes_zyx, shape, axes=(separate_axis,)), shape)
    return _nearest(_vote(classes_zyx, in_plane), shape, axes=(separate_axis,))


@lru_cache(maxsize=64)
def matrix_bands(old: int, new: int, order: int, num_rows: int = BAND_ROWS) -> tuple[Band, ...]:
    """Return the matrix (new, old) that resamples an axis, cut into bands of ``num_rows`` rows."""
    return cut_bands(axis_matrix(old, new, order), num_rows)


@lru_cache(maxsize=32)
def axis_matrix(old: int, new: int, order: int) -> NDArray[np.float64]:
    """Return the matrix (new, old) that resamples an axis by splines of ``order``."""
    identity = np.eye(old)
    if old == new:
        return identity
    if order == 0:
        return identity[_nearest_indices(old, new)]
    matrix: NDArray[np.float64] = ndimage.zoom(identity, (new / old, 1), order=order, mode="nearest", grid_mode=True)
    return matrix


def cut_bands(matrix: NDArray[np.float64], num_rows: int = BAND_ROWS) -> tuple[Band, ...]:
    """Cut a matrix (new, old) into bands of ``num_rows`` rows."""
    bands = []
    for start in range(0, len(matrix), num_rows):
        rows = slice(start, min(start + num_rows, len(matrix)))
        columns = extent(np.abs(matrix[rows]).max(axis=0) > NEGLIGIBLE)
        bands.append(Band(rows, columns, np.ascontiguousarray(matrix[rows, columns], dtype=np.float32)))
    return tuple(bands)


def extent(flags: NDArray[Any]) -> slice:
    """Return the range from the first to the last True; an empty one where there is none."""
    found = np.flatnonzero(flags)
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)


def _nearest_indices(old: int, new: int) -> NDArray[np.intp]:
    """Return the old index nearest to each new one; voxel centres lie at (i + 1/2) / size."""
    centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    indices: NDArray[np.intp] = np.floor(centres + 0.5).astype(np.intp)
    return indices


def _resample_on(
    device: torch.device | None, channel: Floats, shape: Shape, order: int, separate_axis: int | None
) -> Floats:
    """Resample a channel on the device, or, without one or where its memory does not suffice, on the CPU."""
    if device is not None and device.type == "cuda":
        try:
            moved = torch.from_numpy(channel).to(device)
            found: Floats = _resample_channel(moved, shape, order, separate_axis).cpu().numpy()
            return found
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    kept: Floats = _resample_channel(channel, shape, order, separate_axis)
    return kept


def _resample_channel(channel: Any, shape: Shape, order: int, separate_axis: int | None) -> Any:
    """Resample an array or a tensor (Z, Y, X)."""
    orders = [0 if axis == separate_axis else order for axis in range(3)]
    in_plane = None if separate_axis is None else tuple(axis for axis in range(3) if axis != separate_axis)
    lower, upper = _range(channel, in_plane)
    result = channel
    for axis in sorted(range(3), key=lambda a: shape[a] / channel.shape[a]):  # what shrinks goes first
        if shape[axis] != channel.shape[axis]:
            result = multiply(result, matrix_bands(channel.shape[axis], shape[axis], orders[axis]), axis, shape[axis])
    if order > 1:
        if separate_axis is not None:  # each slice keeps its own range
            lower, upper = (_nearest_along(limit, shape, separate_axis) for limit in (lower, upper))
        if isinstance(result, torch.Tensor):
            result.clamp_(torch.from_numpy(lower).to(result.device), torch.from_numpy(upper).to(result.device))
        else:
            np.clip(result, lower, upper, out=result)
    return result


def _range(channel: Any, axes: tuple[int, ...] | None) -> tuple[Floats, Floats]:
    """Return the smallest and the largest value over ``axes``, all if None; the axes stay, with size 1."""
    if isinstance(channel, torch.Tensor):
        over = (0, 1, 2) if axes is None else axes
        return channel.amin(over, keepdim=True).cpu().numpy(), channel.amax(over, keepdim=True).cpu().numpy()
    return channel.min(axis=axes, keepdims=True), channel.max(axis=axes, keepdims=True)


def _nearest_along(array: NDArray[Any], shape: Shape, axis: int) -> NDArray[Any]:
    return array.take(_nearest_indices(array.shape[axis], shape[axis]), axis=axis)


def _nearest(array: NDArray[Any], shape: Shape, *, axes: tuple[int, ...]) -> NDArray[Any]:
    for axis in sorted(axes, key=lambda a: shape[a] / array.shape[a]):
        if shape[axis] != array.shape[axis]:
            array = _nearest_along(array, shape, axis)
    return array


def multiply(array: Any, bands: Sequence[Band], axis: int, size: int) -> Any:
    """Apply an axis's matrix to an array or a tensor (Z, Y, X), by products that BLAS takes without a copy only."""
    shape = (*array.shape[:axis], size, *array.shape[axis + 1 :])
    product: Callable[..., Any] = np.matmul
    if isinstance(array, torch.Tensor):
        array, result, product = array.contiguous(), array.new_empty(shape), torch.matmul
    else:
        array, result = np.ascontiguousarray(array), np.empty(shape, dtype=np.float32)
    for band in bands:
        weights = torch.from_numpy(band.weights).to(array.device) if product is torch.matmul else band.weights
        if axis == 2:
            flat, flat_result = array.reshape(-1, array.shape[2]), result.reshape(-1, size)
            product(flat[:, band.columns], weights.T, out=flat_result[:, band.rows])
        elif axis == 1:
            product(weights, array[:, band.columns], out=result[:, band.rows])
        else:
            columns, rows = array[band.columns], result[band.rows]
            product(weights, columns.reshape(len(columns), -1), out=rows.reshape(len(rows), -1))
    return result


def multiply_rows(weights: Floats, slices: Floats, out: Floats) -> None:
    """Write the weighted sums of slices (old, Y, X) into ``out`` (new, Y, X)."""
    np.matmul(weights, slices.reshape(len(slices), -1), out=out.reshape(len(out), -1))


Box = tuple[slice, ...]


@dataclass(frozen=True)
class _Votes:
    """The class that leads at each voxel of ``box``; the arrays (Z, Y, X) change as classes are counted."""

    box: Box
    nearest: NDArray[np.int16]
    winner: NDArray[np.int16]
    best: Floats
    nearest_score: Floats

    def count(self, label: int, rows: Box, score: Floats) -> None:
        """Count a class, whose indicator is ``score`` within ``rows`` and 0 elsewhere; the classes come in order."""
        part = tuple(slice(r.start - b.start, r.stop - b.start) for r, b in zip(rows, self.box))
        self.winner[part][score > self.best[part] + TIE] = label
        np.maximum(self.best[part], score, out=self.best[part])
        np.copyto(self.nearest_score[part], score, where=self.nearest[part] == label)

    def result(self) -> NDArray[np.int16]:
        """Return the winners, ties settled."""
        return np.where(self.nearest_score >= self.best - TIE, self.nearest, self.winner)


def _vote(classes: NDArray[np.int16], shape: Shape) -> NDArray[np.int16]:
    """Interpolate each class's indicator where it is not 0, and take the largest."""
    matrices = [axis_matrix(old, new, 1) for old, new in zip(classes.shape, shape)]
    reaches = {label: _reach(box, matrices) for label, box in _class_boxes(classes).items()}
    common = 0 if 0 in reaches else min(reaches)
    result = np.full(tuple(shape), common, dtype=np.int16)
    rare = [reach for label, reach in reaches.items() if label != common and not _is_empty(reach)]
    if not rare:
        return result
    box = tuple(slice(min(r[axis].start for r in rare), max(r[axis].stop for r in rare)) for axis in range(3))
    votes = _open_votes(classes, shape, box)
    for label, reach in reaches.items():
        rows = tuple(slice(max(r.start, b.start), min(r.stop, b.stop)) for r, b in zip(reach, box))
        if not _is_empty(rows):
            votes.count(label, rows, _indicator(classes, label, rows, matrices))
    result[box] = votes.result()
    return result


def _class_boxes(classes: NDArray[np.int16]) -> dict[int, Box]:
    """Return the box of each class that occurs, in ascending order."""
    below = int(classes.min()) - 1
    boxes = enumerate(ndimage.find_objects(classes - below), start=below + 1)
    return {label: box for label, box in boxes if box is not None}


def _reach(box: Box, matrices: Sequence[NDArray[np.float64]]) -> Box:
    """Return the new voxels in which old ones within ``box`` have a part."""
    return tuple(extent((matrix[:, part] != 0).any(axis=1)) for part, matrix in zip(box, matrices))


def _is_empty(box: Box) -> bool:
    return any(part.start >= part.stop for part in box)


def _open_votes(classes: NDArray[np.int16], shape: Shape, box: Box) -> _Votes:
    indices = [_nearest_indices(old, new)[part] for old, new, part in zip(classes.shape, shape, box)]
    nearest = classes[np.ix_(*indices)]
    best, nearest_score = (np.full(nearest.shape, -1, dtype=np.float32) for _ in range(2))
    return _Votes(box, nearest, np.zeros_like(nearest), best, nearest_score)


def _indicator(classes: NDArray[np.int16], label: int, rows: Box, matrices: Sequence[NDArray[np.float64]]) -> Floats:
    """Return the linearly interpolated indicator of one class at the new voxels ``rows``."""
    columns = tuple(extent((matrix[part] != 0).any(axis=0)) for matrix, part in zip(matrices, rows))
    array: Floats = (classes[columns] == label).astype(np.float32)
    sizes = [part.stop - part.start for part in rows]
    for axis in sorted(range(3), key=lambda a: sizes[a] / array.shape[a]):
        bands = cut_bands(matrices[axis][rows[axis], columns[axis]], BAND_ROWS)
        array = multiply(array, bands, axis, sizes[axis])
    return array
