"""Boxes around what is compared: masks fill little of an image, and nothing outside both changes a metric."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[slice, ...]


def occupied_box(values: NDArray[Any]) -> Box | None:
    """Return the smallest box around what is not 0 (NaN is not), or None if there is nothing."""
    box: list[slice] = []
    for axis in range(values.ndim):
        part = values[tuple(box)]
        found = np.flatnonzero(part.any(axis=tuple(a for a in range(part.ndim) if a != axis)))
        if not len(found):
            return None
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def common_box(boxes: Iterable[Box | None], shape: Sequence[int]) -> Box | None:
    """Return the smallest box around several in an image of ``shape``, or None if there are none.

    An axis of the image that is thicker than one voxel keeps at least two, since a single voxel stands for a 2-D mask.
    """
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    sides = ((min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*found))
    return tuple(_at_least_two(low, high, size) for (low, high), size in zip(sides, shape))


def _at_least_two(low: int, high: int, size: int) -> slice:
    if high - low == 1 < size:
        low, high = (low, high + 1) if high < size else (low - 1, high)
    return slice(low, high)


def class_boxes(*maps: NDArray[np.int16]) -> list[list[Box | None]]:
    """Return the boxes of each class in maps of classes: one list a class from 0 on, one entry a map, None if absent.

    Class 0, the background, and negative ones get none. All classes are found in one pass.
    """
    number = max(int(classes.max(initial=0)) for classes in maps)
    found = [ndimage.find_objects(classes, max_label=number) if number else [] for classes in maps]
    return [[None] * len(maps), *([boxes[index] for boxes in found] for index in range(number))]
