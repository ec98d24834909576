"""The nonzero box of an image: what remains when empty margins are cut away (as nnU-Net crops)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[slice, slice, slice]


def nonzero_box(array_czyx: NDArray[Any]) -> Box:
    """Return the smallest box (z, y, x) that holds every voxel at which a channel is not 0; the whole image where there
    is none.

    Filling the holes of the mask does not change its box, so this is also the box of ``nonzero_mask``.
    """
    box = [slice(None), slice(None), slice(None), slice(None)]
    for axis in (1, 2, 3):
        box[axis] = _extent(array_czyx[tuple(box)], axis)
    return box[1], box[2], box[3]


def nonzero_mask(array_czyx: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask (Z, Y, X) of voxels at which a channel is not 0, with its holes filled."""
    mask: NDArray[np.bool_] = (array_czyx != 0).any(axis=0)
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(mask)
    return filled


def _extent(array: NDArray[Any], axis: int) -> slice:
    """Return the first to the last slice along ``axis`` that is not all 0, looking from both ends inwards."""
    slices = np.moveaxis(array, axis, 0)
    size = len(slices)
    low = next((index for index in range(size) if slices[index].any()), None)
    if low is None:
        return slice(0, size)
    high = next(index for index in range(size - 1, -1, -1) if slices[index].any())
    return slice(low, high + 1)
