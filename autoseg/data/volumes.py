"""Volumes: images and label maps with their geometry, read, brought to one orientation, and written back. Arrays are
(C, Z, Y, X).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.data.formats import FILE_ENDINGS, read_file
from autoseg.data.geometry import (
    Geometry,
    canonical_axes,
    canonical_geometry,
    orientation_code,
    same_geometry,
)
from autoseg.data.itk_files import open_header, reason
from autoseg.data.labels import Labels
from autoseg.data.nifti import is_nifti
from autoseg.data.nifti_grid import store_direction
from autoseg.data.problems import Remark
from autoseg.documents import write_beside
from autoseg.errors import VolumeError

__all__ = [
    "FILE_ENDINGS", "Geometry", "Volume", "align", "canonical_geometry", "check_image", "from_canonical",
    "orientation_code", "read_channels", "read_image", "read_label", "same_geometry", "to_canonical",
    "write_segmentation", "write_volume",
]  # fmt: skip


@dataclass(frozen=True)
class Volume:
    """An array (C, Z, Y, X) with its geometry, and what is doubtful about the files it came from."""

    array: NDArray[Any]
    geometry: Geometry
    remarks: tuple[Remark, ...] = ()


def read_image(paths: Sequence[Path]) -> Volume:
    """Read an image as float32, each file once; channels stored along other axes are brought to the first one's.

    Args:
        paths: the file of each channel; a 4-D file stands once for each of its volumes, a folder for its DICOM series.

    Raises:
        VolumeError: a file is missing, damaged, no real-valued volume, not finite, holds another number of volumes, or
            its grid differs from the first one's.
    """
    volume, errors = check_image(paths)
    if volume is None:
        raise errors[0]
    return volume


def check_image(paths: Sequence[Path]) -> tuple[Volume | None, list[VolumeError]]:
    """Read an image as ``read_image`` does; return it, or None and the errors of all its files."""
    errors: list[VolumeError] = []
    remarks: tuple[Remark, ...] = ()
    grid: Geometry | None = None
    for path in dict.fromkeys(paths):
        try:
            volume = read_channels(path, paths.count(path))
            if grid is None:
                first, grid, stack = path, volume.geometry, volume.array
                if len(volume.array) < len(paths):
                    stack = np.empty((len(paths), *grid.shape), dtype=np.float32)
            volume = align(volume, grid, path, first)
        except VolumeError as error:
            errors.append(error)
            continue
        remarks += volume.remarks
        if stack is not volume.array:
            stack[[index for index, other in enumerate(paths) if other == path]] = volume.array
    return (None, errors) if errors or grid is None else (Volume(stack, grid, remarks), [])


def read_channels(path: Path, num_channels: int) -> Volume:
    """Read the volumes of one image file as float32.

    Raises:
        VolumeError: it is missing, damaged, no real-valued volume, not finite, or holds another number of volumes.
    """
    stored = read_file(path, as_float=True)
    if len(stored.array) != num_channels:
        expected = "3-D image" if num_channels == 1 else f"image of {num_channels} channels"
        raise VolumeError(
            path, f"is a 4-D image of {len(stored.array)} volumes {stored.geometry.shape}, not a {expected}",
            "store one 3-D file a channel, or declare a channel for each volume", kind="channels",
        )  # fmt: skip
    return Volume(stored.array, stored.geometry, stored.remarks)


def read_label(path: Path, labels: Labels | None = None) -> Volume:
    """Read a label map (1, Z, Y, X) with its values as stored, in the file's own dtype.

    Args:
        path: of the label file.
        labels: what the volumes of a 4-D mask mean: one for each class or region. Without, only 3-D files can be read.

    Raises:
        VolumeError: the file is missing, damaged, no real-valued volume, not finite, or a 4-D mask that does not fit.
    """
    stored = read_file(path, as_float=False)
    array = stored.array
    if len(array) > 1:
        if labels is None:
            found = f"is a 4-D mask of {len(array)} volumes"
            raise VolumeError(path, found, "store the labels as one 3-D file", kind="dimensions")
        array = labels.merge_masks(array, path)[None]
    return Volume(array, stored.geometry, stored.remarks)


def align(volume: Volume, geometry: Geometry, path: Path, reference: Path) -> Volume:
    """Return ``volume`` on the grid ``geometry``, exchanging and reversing its axes where only these differ.

    Args:
        volume: what was read from ``path``.
        geometry: the grid of the file ``reference``.
        path: named in the error.
        reference: named in the error.

    Raises:
        VolumeError: the two cover different space.
    """
    if same_geometry(volume.geometry, geometry) is None:
        return replace(volume, geometry=geometry)
    difference = same_geometry(canonical_geometry(volume.geometry), canonical_geometry(geometry))
    if difference is not None:
        raise VolumeError(
            path, f"lies on another grid than {_tell_apart(reference, path)}: {difference}",
            "resample it onto that grid, or, if only its header is wrong, copy that file's",
            kind="shape" if difference.startswith("shape") else "grid",
        )  # fmt: skip
    canonical = to_canonical(volume)
    array = np.stack([from_canonical(channel, geometry) for channel in canonical.array])
    codes = f"{orientation_code(volume.geometry)} instead of {orientation_code(geometry)}"
    found = f"is stored along other axes than {reference.name} ({codes}), in the same space"
    remark = Remark(path, "other axes", found, "nothing to do: its axes are exchanged on reading")
    return Volume(array, geometry, (*volume.remarks, remark))


def _tell_apart(path: Path, other: Path) -> str:
    """Return the name of a file, with its folder where another file of that name is meant too."""
    return path.name if path.name != other.name else f"{path.parent.name}/{path.name}"


def to_canonical(volume: Volume) -> Volume:
    """Return the volume in canonical orientation (LPS), by exchanging and reversing axes only; contiguous."""
    order, reversed_axes = canonical_axes(volume.geometry)
    array = volume.array.transpose(0, *(1 + axis for axis in order))
    array = array[(slice(None), *(slice(None, None, -1 if r else 1) for r in reversed_axes))]
    return Volume(np.ascontiguousarray(array), canonical_geometry(volume.geometry), volume.remarks)


def from_canonical(array_zyx: NDArray[Any], geometry_of_file: Geometry) -> NDArray[Any]:
    """Return the array (Z, Y, X), given on the canonical grid of ``geometry_of_file``, along the file's own axes;
    contiguous.
    """
    order, reversed_axes = canonical_axes(geometry_of_file)
    flipped = array_zyx[tuple(slice(None, None, -1 if r else 1) for r in reversed_axes)]
    return np.ascontiguousarray(flipped.transpose(np.argsort(order)))


def write_segmentation(path: Path, array_zyx: NDArray[Any], geometry: Geometry) -> None:
    """Write a label map (Z, Y, X) of integers or booleans with exactly the given geometry, whole or not at all.

    NIfTI stores float32: a geometry that came from another format is rounded to that.

    Raises:
        VolumeError: the file cannot be written.
    """
    write_volume(path, array_zyx.astype(np.uint8) if array_zyx.dtype == np.bool_ else array_zyx, geometry)


def write_volume(path: Path, array_zyx: NDArray[Any], geometry: Geometry) -> None:
    """Write an array (Z, Y, X) of any dtype; the ending of ``path`` chooses the format.

    Raises:
        VolumeError: the file cannot be written.
        ValueError: the array does not have the geometry's shape.
    """
    if array_zyx.shape != geometry.shape:
        raise ValueError(f"{path}: an array of shape {array_zyx.shape} does not fit the grid {geometry.shape}")
    image = sitk.GetImageFromArray(array_zyx)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    with write_beside(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise VolumeError(path, f"cannot be written ({reason(error)})", "use another ending or folder") from None
        if is_nifti(temporary) and open_header(temporary).GetDirection() != geometry.direction:
            store_direction(temporary, geometry.direction)
