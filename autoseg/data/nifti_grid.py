"""Where the voxels of a NIfTI file lie: SimpleITK's reading of its header, what is doubtful about it, and writing it
exactly.

A header may hold two grids. SimpleITK prefers the sform, but takes the qform where the sform is sheared (a CT with a
tilted gantry), since a grid here has right angles. Nothing is lost: predictions lie on the file's own voxels all the
same.
"""

import gzip
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from autoseg.data.geometry import Geometry, make_geometry, same_geometry
from autoseg.data.itk_files import geometry_of, open_header
from autoseg.data.problems import Remark
from autoseg.data.streams import unpacked_blocks
from autoseg.errors import VolumeError

Header = Any
"""A nibabel Nifti1Header or Nifti2Header."""

SPACING_OFFSET, SROW_OFFSET = 80, 280
MAX_ULPS = 2
MAX_SHEAR = 1e-3
"""Cosine between two axes that are taken to be at right angles."""
MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""By NIfTI's number of the unit of length: metres and micrometres; all else is mm."""
MAX_NUMBER = 1e6
TINY = 1e-12
TO_LPS = np.array([-1.0, -1.0, 1.0])
EXPLAIN = "check it in a viewer; if it is wrong, correct the header"


def read_grid(path: Path, header: Header, shape: tuple[int, int, int]) -> tuple[Geometry, tuple[Remark, ...]]:
    """Return the grid of a NIfTI file and what is doubtful about it.

    Args:
        path: of the file.
        header: its header.
        shape: voxels (z, y, x).

    Raises:
        VolumeError: no grid with right angles is stored.
    """
    _check_numbers(path, header)
    grid = _simpleitks(path, shape) or _from_affine(_best_affine(header), header, path, shape)
    return grid, tuple(Remark(path, "header", found, EXPLAIN) for found in _doubts(header, grid, shape))


def _simpleitks(path: Path, shape: tuple[int, int, int]) -> Geometry | None:
    try:
        reader = open_header(path)
        size = (*reader.GetSize(), 1)[:3]
        return geometry_of(reader) if size == shape[::-1] and reader.GetDimension() >= 3 else None
    except RuntimeError:
        return None  # NIfTI-2, or no right angles


def _from_affine(affine: NDArray[Any], header: Header, path: Path, shape: tuple[int, int, int]) -> Geometry:
    """Return the grid of nibabel's affine, which is in RAS."""
    matrix, _ = _in_lps(affine, header)
    if not np.isfinite(affine).all() or not np.linalg.norm(matrix, axis=0).all():
        raise VolumeError(path, "stores no usable grid", "correct the header", kind="grid")
    if (shear := _shear(matrix)) > MAX_SHEAR:
        found = f"stores only a sheared grid (its axes are {np.degrees(np.arccos(shear)):.1f} degrees apart, not 90)"
        raise VolumeError(path, found, "resample it onto a grid with right angles", kind="grid")
    return _plain_grid(affine, header, shape)


def _check_numbers(path: Path, header: Header) -> None:
    """Refuse a grid of numbers that no scanner stores, before SimpleITK complains about them on standard error."""
    fields = ["srow_x", "srow_y", "srow_z"] if header["sform_code"] > 0 else []
    if header["qform_code"] > 0 or not fields:
        fields += ["pixdim", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]
    numbers = np.concatenate([np.atleast_1d(header[name])[:4] for name in fields]).astype(np.float64)
    if not (np.abs(numbers) < MAX_NUMBER).all():  # also where NaN
        found = "stores no usable grid: it holds NaN or absurd numbers"
        raise VolumeError(path, found, "correct the header", kind="grid")


def _best_affine(header: Header) -> NDArray[Any]:
    """Return the sform, else the qform, else what the spacing alone gives; all NaN where that cannot be computed."""
    try:
        affine: NDArray[Any] = header.get_best_affine()
        return affine
    except (ValueError, HeaderDataError):  # no unit quaternion, or no direction of the third axis
        return np.full((4, 4), np.nan)


def _in_lps(affine: NDArray[Any], header: Header) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the affine's matrix and offset in mm and LPS."""
    scale = MM_PER_UNIT.get(int(header["xyzt_units"]) % 8, 1.0)
    whole = np.asarray(affine, dtype=np.float64) * scale
    return whole[:3, :3] * TO_LPS[:, None], whole[:3, 3] * TO_LPS


def _shear(matrix: NDArray[np.float64]) -> float:
    """Return the largest cosine between two columns."""
    norms = np.linalg.norm(matrix, axis=0)
    if not norms.all() or not np.isfinite(norms).all():
        return 0.0
    cosines = np.abs((matrix / norms).T @ (matrix / norms))
    return float(np.triu(cosines, 1).max())


def _doubts(header: Header, grid: Geometry, shape: tuple[int, int, int]) -> list[str]:
    """Return what is doubtful about the grid that was taken."""
    sform = header.get_sform() if header["sform_code"] > 0 else None
    qform = _qform(header) if header["qform_code"] > 0 else None
    if sform is None and qform is None:
        return [
            "stores neither qform nor sform: orientation and position are unknown, its axes are taken to run as stored"
        ]
    if sform is not None and (shear := _shear(sform[:3, :3])) > MAX_SHEAR:
        shift = shear * np.linalg.norm(sform[:3, 2]) * (shape[0] - 1)
        found = f"its sform is sheared (a tilted gantry: the last slice is shifted by {shift:.1f} mm)"
        return [f"{found}; its qform, which has right angles, is used as SimpleITK does"]
    if sform is None or qform is None:
        return []
    grids = {name: _plain_grid(affine, header, shape) for name, affine in (("sform", sform), ("qform", qform))}
    differing = {name: same_geometry(other, grid) for name, other in grids.items()}
    if all(difference is None for difference in differing.values()):
        return []
    name, other = ("sform", "qform") if differing["sform"] is None else ("qform", "sform")
    return [f"its {other} differs from its {name}, which is used: {differing[other]}"]


def _qform(header: Header) -> NDArray[Any] | None:
    try:
        qform: NDArray[Any] = header.get_qform()
        return qform
    except (ValueError, HeaderDataError):  # a quaternion of length above 1, or no direction of the third axis
        return None


def _plain_grid(affine: NDArray[Any], header: Header, shape: tuple[int, int, int]) -> Geometry:
    matrix, origin = _in_lps(affine, header)
    spacing = np.maximum(np.linalg.norm(matrix, axis=0), TINY)
    return make_geometry(shape, spacing[::-1].tolist(), origin.tolist(), matrix / spacing)


def store_direction(path: Path, direction: tuple[float, ...]) -> None:
    """Rewrite the sform rows of the NIfTI-1 file ``path`` so that SimpleITK reads back ``direction`` to the last bit.

    SimpleITK reads the columns of the sform (float32) and normalises them. It writes direction times spacing after a
    detour over quaternions, whose normalised column may differ by 1e-8. The float32 numbers nearest to direction times
    spacing are tried until the column comes back equal; a direction that did not come from a NIfTI file may have none,
    and keeps SimpleITK's rounding.

    Args:
        path: a little-endian file as SimpleITK writes it, replaced in place.
        direction: nine numbers, row by row, in SimpleITK's (LPS) convention.
    """
    content = bytearray(b"".join(unpacked_blocks(path)))
    rows = np.frombuffer(content, dtype="<f4", count=12, offset=SROW_OFFSET).reshape(3, 4).copy()
    spacing = np.frombuffer(content, dtype="<f4", count=3, offset=SPACING_OFFSET).astype(np.float64)
    to_ras = np.array([-1.0, -1.0, 1.0])
    wanted = np.array(direction).reshape(3, 3) * to_ras[:, None]
    for axis in range(3):
        nearest = (wanted[:, axis] * spacing[axis]).astype(np.float32)
        rows[:, axis] = _exact_column(nearest, wanted[:, axis])
    content[SROW_OFFSET : SROW_OFFSET + 48] = rows.astype("<f4").tobytes()
    path.write_bytes(gzip.compress(content, compresslevel=6, mtime=0) if path.suffix == ".gz" else content)


def _exact_column(column: NDArray[np.float32], wanted: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return float32 numbers near ``column`` that normalise to exactly ``wanted``, or ``column`` where there are
    none.
    """
    options = [_neighbours(value) if target else [np.float32(0)] for value, target in zip(column, wanted)]
    candidates = np.array(list(itertools.product(*options)), dtype=np.float32)
    exact = candidates.astype(np.float64)
    squares = exact**2
    norms = np.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])
    matches = np.flatnonzero((exact / norms[:, None] == wanted).all(axis=1))
    return candidates[matches[0]] if matches.size else column


def _neighbours(value: np.float32) -> list[np.float32]:
    """Return ``value`` and the float32 numbers up to MAX_ULPS steps away, nearest first."""
    options, above, below = [value], value, value
    for _ in range(MAX_ULPS):
        above, below = np.nextafter(above, np.float32(np.inf)), np.nextafter(below, np.float32(-np.inf))
        options += [above, below]
    return options
