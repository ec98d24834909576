"""Volumes: images and label maps with their geometry, read, brought to one orientation, and written back.

Arrays are (C, Z, Y, X). The *canonical* orientation is LPS: x, y and z run towards the patient's left, back (posterior) and head
(superior). Volumes reach it by exchanging and reversing axes only, so nothing is lost and the way back is exact. A volume that lies
obliquely goes to the nearest of the 48 such orientations and stays oblique by less than 55 degrees an axis.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from autoseg.data.nifti import find_defect, is_nifti, store_direction
from autoseg.documents import Document, write_beside
from autoseg.errors import VolumeError

FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl.gz", ".gipl")
"""Endings of the volume files that are recognised in a dataset."""

SPACING_TOLERANCE = 1e-3  # relative: formats round spacings to about 1e-4
ORIGIN_TOLERANCE_MM = 1e-2
ORIGIN_TOLERANCE_VOXELS = 1e-2
DIRECTION_TOLERANCE = 1e-3

Order = tuple[int, int, int]


class Geometry(Document):
    """Where the voxels of a file lie in the patient.

    Attributes:
        shape: voxels (z, y, x).
        spacing: mm (z, y, x).
        origin: position of the first voxel, mm (x, y, z) in LPS.
        direction: SimpleITK's row-major matrix; column j is the direction of image axis j (x, y, z).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, float, float, float, float, float, float, float, float]


@dataclass(frozen=True)
class Volume:
    """An array (C, Z, Y, X) with its geometry."""

    array: NDArray[Any]
    geometry: Geometry


def read_image(paths: Sequence[Path]) -> Volume:
    """Read one file a channel as float32, stacked; channels stored along other axes are brought to the first one's.

    Raises:
        VolumeError: a file is missing, damaged, not a 3-D scalar volume, not finite, or its grid differs from the first one's.
    """
    first = _read(paths[0], as_float=True)
    if len(paths) == 1:
        return first
    stack = np.empty((len(paths), *first.geometry.shape), dtype=np.float32)
    stack[0] = first.array[0]
    for index, path in enumerate(paths[1:], start=1):
        stack[index] = align(_read(path, as_float=True), first.geometry, path, paths[0]).array[0]
    return Volume(stack, first.geometry)


def read_label(path: Path) -> Volume:
    """Read a label map (1, Z, Y, X) with its values as stored, in the file's own dtype.

    Raises:
        VolumeError: the file is missing, damaged, not a 3-D scalar volume, or not finite.
    """
    return _read(path, as_float=False)


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
        return Volume(volume.array, geometry)
    difference = same_geometry(canonical_geometry(volume.geometry), canonical_geometry(geometry))
    if difference is not None:
        raise VolumeError(f"{path}: lies on another grid than {reference.name}: {difference}; resample it onto that grid")
    canonical = to_canonical(volume)
    return Volume(np.stack([from_canonical(channel, geometry) for channel in canonical.array]), geometry)


def to_canonical(volume: Volume) -> Volume:
    """Return the volume in canonical orientation (LPS), by exchanging and reversing axes only; contiguous."""
    order, reversed_axes = _axes(volume.geometry)
    array = volume.array.transpose(0, *(1 + axis for axis in order))
    array = array[(slice(None), *(slice(None, None, -1 if r else 1) for r in reversed_axes))]
    return Volume(np.ascontiguousarray(array), canonical_geometry(volume.geometry))


def from_canonical(array_zyx: NDArray[Any], geometry_of_file: Geometry) -> NDArray[Any]:
    """Return the array (Z, Y, X), given on the canonical grid of ``geometry_of_file``, along the file's own axes; contiguous."""
    order, reversed_axes = _axes(geometry_of_file)
    flipped = array_zyx[tuple(slice(None, None, -1 if r else 1) for r in reversed_axes)]
    return np.ascontiguousarray(flipped.transpose(np.argsort(order)))


def canonical_geometry(geometry: Geometry) -> Geometry:
    """Return the geometry that a volume of ``geometry`` has after ``to_canonical``."""
    order, reversed_axes = _axes(geometry)
    columns = _matrix(geometry)[:, ::-1]  # of the array axes z, y, x
    origin = np.array(geometry.origin)
    for axis, is_reversed in zip(order, reversed_axes):
        if is_reversed:
            origin = origin + columns[:, axis] * (geometry.spacing[axis] * (geometry.shape[axis] - 1))
    signs = np.where(reversed_axes, -1.0, 1.0)
    direction = (columns[:, list(order)] * signs)[:, ::-1] + 0.0  # + 0.0 turns -0.0 into 0.0
    return Geometry(
        shape=_triple(geometry.shape, order),
        spacing=_triple(geometry.spacing, order),
        origin=tuple(origin.tolist()),
        direction=tuple(direction.ravel().tolist()),
    )


def orientation_code(geometry: Geometry) -> str:
    """Return where the image axes x, y and z run to, in letters; canonical is ``LPS``, many NIfTI files are ``RAS``."""
    order, reversed_axes = _axes(geometry)
    letters = {}
    for canonical_axis, (axis, is_reversed) in enumerate(zip(order, reversed_axes)):
        letters[axis] = ("SI", "PA", "LR")[canonical_axis][is_reversed]
    return letters[2] + letters[1] + letters[0]


def same_geometry(a: Geometry, b: Geometry) -> str | None:
    """Return None where the grids agree to within what file formats round, else what differs.

    Tolerances: spacing 1e-3 of itself; origin 0.01 mm and a hundredth of the largest spacing; direction 1e-3 an entry.
    """
    spacing = np.array(a.spacing)
    limits = {
        "shape": 0.0,
        "spacing": SPACING_TOLERANCE * spacing,
        "origin": ORIGIN_TOLERANCE_MM + ORIGIN_TOLERANCE_VOXELS * spacing.max(),
        "direction": DIRECTION_TOLERANCE,
    }
    units = {"shape": "voxels (z, y, x)", "spacing": "mm (z, y, x)", "origin": "mm (x, y, z)", "direction": "(row by row)"}
    for name, limit in limits.items():
        one, other = getattr(a, name), getattr(b, name)
        if (np.abs(np.subtract(one, other)) > limit).any():
            return f"{name} {_text(one)} against {_text(other)} {units[name]}"
    return None


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
            raise VolumeError(f"{path}: cannot be written ({_reason(error)})") from None
        if is_nifti(temporary) and _open_file(temporary).GetDirection() != geometry.direction:
            store_direction(temporary, geometry.direction)


def _read(path: Path, *, as_float: bool) -> Volume:
    if not path.is_file():
        raise VolumeError(f"{path}: no such file")
    try:
        defect = find_defect(path) if is_nifti(path) else None
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read ({error.strerror})") from None
    if defect:
        raise VolumeError(f"{path}: {defect}")
    try:
        reader = _open_file(path)
        _check_kind(reader, path)
        is_real = sitk.GetPixelIDValueAsString(reader.GetPixelID()).endswith("float")
        if as_float:
            reader.SetOutputPixelType(sitk.sitkFloat32)
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(f"{path}: SimpleITK cannot read it ({_reason(error)}); convert or replace the file") from None
    array = sitk.GetArrayFromImage(image)
    if is_real:
        _check_finite(array, path)
    return Volume(array[None], _geometry_of(image))


def _open_file(path: Path) -> sitk.ImageFileReader:
    """Return a reader that has read the header only."""
    sitk.ProcessObject_SetGlobalWarningDisplay(False)  # its warnings are no news to the user, and would tear a progress bar
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _check_kind(reader: sitk.ImageFileReader, path: Path) -> None:
    """Refuse what is not a 3-D volume of one real number a voxel."""
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    size = " x ".join(str(n) for n in reader.GetSize())
    if "complex" in kind:
        raise VolumeError(f"{path}: holds complex numbers; store magnitude and phase as one file each")
    if reader.GetNumberOfComponents() != 1:
        raise VolumeError(f"{path}: holds {reader.GetNumberOfComponents()} values a voxel (colour or vectors); store one file a channel")
    if reader.GetDimension() > 3:
        raise VolumeError(f"{path}: has {reader.GetDimension()} dimensions ({size}), not 3; store one 3-D file a channel or time point")
    if reader.GetDimension() < 3:
        raise VolumeError(f"{path}: is a {reader.GetDimension()}-D image ({size}), not a 3-D volume; stack the slices of a case")


def _check_finite(array: NDArray[Any], path: Path) -> None:
    if np.isfinite(array.sum(dtype=np.float64)):  # one NaN or infinity makes the sum so: no temporary array is needed
        return
    wrong = array.size - np.count_nonzero(np.isfinite(array))
    raise VolumeError(f"{path}: {wrong} of {array.size} voxels are NaN or infinite; replace them with a number")


def _geometry_of(image: sitk.Image) -> Geometry:
    return Geometry(
        shape=image.GetSize()[::-1],
        spacing=image.GetSpacing()[::-1],
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
    )


def _axes(geometry: Geometry) -> tuple[Order, tuple[bool, bool, bool]]:
    """Return, for each canonical array axis z, y, x: the file's array axis that becomes it, and whether that is reversed.

    Of the six assignments the one is taken whose axes lie nearest to the patient's, in sum.
    """
    cosines = _matrix(geometry)[::-1, ::-1]  # [canonical array axis, array axis of the file]
    orders: list[Order] = list(itertools.permutations(range(3)))  # type: ignore[arg-type]
    order = max(orders, key=lambda o: sum(abs(cosines[axis, o[axis]]) for axis in range(3)))
    z, y, x = (bool(cosines[axis, order[axis]] < 0) for axis in range(3))
    return order, (z, y, x)


def _matrix(geometry: Geometry) -> NDArray[np.float64]:
    return np.array(geometry.direction, dtype=np.float64).reshape(3, 3)


def _triple(values: tuple[Any, Any, Any], order: Order) -> tuple[Any, Any, Any]:
    return values[order[0]], values[order[1]], values[order[2]]


def _text(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _reason(error: RuntimeError) -> str:
    """Return the telling line of SimpleITK's many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "ERROR:" in line] or lines[-1:]
    return telling[-1].split("ERROR:")[-1].strip() if telling else "no reason given"
