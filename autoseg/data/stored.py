"""What a file holds, whatever its format, and the checks that all formats share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.data.geometry import Geometry
from autoseg.data.problems import Remark
from autoseg.errors import VolumeError

DAMAGED = "copy or download it again, or leave the case out"


@dataclass(frozen=True)
class Stored:
    """The content of a file.

    Attributes:
        array: (N, Z, Y, X), one volume, or the volumes of a 4-D file.
        geometry: of each volume.
        remarks: what is doubtful about the file.
    """

    array: NDArray[Any]
    geometry: Geometry
    remarks: tuple[Remark, ...] = ()


def check_content(stored: Stored, path: Path) -> Stored:
    """Return ``stored``.

    Raises:
        VolumeError: a voxel is NaN or infinite, or the spacing is not a positive number.
    """
    spacing = np.array(stored.geometry.spacing)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        text = ", ".join(f"{value:g}" for value in spacing)
        raise VolumeError(path, f"has the spacing ({text}) mm (z, y, x)", "correct the header", kind="grid")
    if stored.array.dtype.kind == "f":
        _check_finite(stored.array, path)
    return stored


def volume_shape(sizes: tuple[int, ...], path: Path) -> tuple[int, int, int, int]:
    """Return the shape (N, Z, Y, X) of an array whose axes, fastest first, have these ``sizes``.

    Axes of one voxel behind the third count for nothing, and an image of two axes is a volume of one slice.

    Raises:
        VolumeError: that is no volume and no series of volumes.
    """
    text = " x ".join(str(size) for size in sizes) or "none"
    if not sizes or min(sizes) < 1:
        raise VolumeError(path, f"has the size {text}", DAMAGED, kind="dimensions")
    kept = list(sizes)
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    if len(kept) > 4:
        advice = "store one 3-D file a channel"
        raise VolumeError(
            path, f"has {len(kept)} dimensions ({text}): vectors or several series", advice, kind="dimensions"
        )
    kept += [1] * (3 - len(kept))
    if kept[1:3] == [1, 1] and kept[0] > 1 or kept[:3] == [27307, 1, 6]:  # the latter is how FreeSurfer folds a surface
        raise VolumeError(path, f"is no volume but a list of values ({text})", "give an image", kind="dimensions")
    x, y, z, n = (*kept, 1)[:4]
    return n, z, y, x


def refuse_kind(path: Path, components: int, *, is_complex: bool) -> None:
    """Refuse voxels that are not one real number.

    Raises:
        VolumeError: they are complex, or of several components.
    """
    if is_complex:
        advice = "store magnitude and phase as one file each"
        raise VolumeError(path, "holds complex numbers", advice, kind="dimensions")
    if components != 1:
        found = f"holds {components} values a voxel (colour or vectors)"
        raise VolumeError(path, found, "store one file a channel, in grey values", kind="dimensions")


def _check_finite(array: NDArray[Any], path: Path) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(
            array.sum(dtype=np.float64)
        ):  # one NaN or infinity makes the sum so: no temporary array is needed
            return
    wrong = array.size - np.count_nonzero(np.isfinite(array))
    if wrong:
        found = f"{wrong} of {array.size} voxels are NaN or infinite"
        raise VolumeError(path, found, "replace them with a number", kind="voxel values")
