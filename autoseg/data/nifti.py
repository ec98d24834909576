"""NIfTI-1 and NIfTI-2 files: voxels are read here, the grid by SimpleITK where it can.

SimpleITK fills the missing end of a shortened file with zeros, turns NaN into 0 and folds surfaces into volumes without
a word, so voxels are not left to it.
"""

import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from autoseg.data.nifti_grid import Header, read_grid
from autoseg.data.stored import DAMAGED, Stored, refuse_kind, volume_shape
from autoseg.data.streams import read_head, read_numbers
from autoseg.errors import VolumeError

HEADER_CLASSES = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
MIN_OFFSET = {348: 352, 540: 544}
MAX_GZIP_RATIO = 1100  # deflate packs at best 1032 to 1
DAMAGES = (EOFError, zlib.error)


def is_nifti(path: Path) -> bool:
    """Tell by its name whether ``path`` is a NIfTI file, compressed or not."""
    return path.name.endswith((".nii", ".nii.gz"))


def read_nifti(path: Path, *, as_float: bool) -> Stored:
    """Read a NIfTI file.

    Args:
        path: of the file.
        as_float: whether to return float32; else the stored dtype, or float64 where the header scales it.

    Raises:
        VolumeError: it is damaged, or no real-valued volume.
    """
    try:
        header = read_header(path)
        dtype = _number_type(header)
        slope, intercept = header.get_slope_inter()
        offset = max(int(header["vox_offset"]), MIN_OFFSET[int(header["sizeof_hdr"])])
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise VolumeError(path, f"has a damaged header ({error})", DAMAGED) from None
    except DAMAGES as error:
        raise VolumeError(path, f"is truncated or damaged ({error})", DAMAGED) from None
    refuse_kind(path, len(dtype.names or "1"), is_complex=dtype.kind == "c")
    if dtype.kind not in "fiu":
        raise VolumeError(path, f"holds no numbers (type {dtype})", DAMAGED)
    shape = volume_shape(_sizes(header), path)
    is_scaled = slope is not None and (slope, intercept) != (1, 0)
    _check_size(path, offset, shape, dtype)
    result = np.dtype(np.float32) if as_float else np.dtype(np.float64) if is_scaled else dtype.newbyteorder("=")
    scaling = {"slope": float(slope), "intercept": float(intercept)} if is_scaled else {}
    try:
        array = read_numbers(path, offset=offset, count=int(np.prod(shape)), dtype=dtype, result=result, **scaling)
    except DAMAGES as error:
        raise VolumeError(path, f"is truncated or damaged ({error})", DAMAGED) from None
    grid, remarks = read_grid(path, header, shape[1:])
    return Stored(array.reshape(shape), grid, remarks)


def read_header(path: Path) -> Header:
    """Return the header of a NIfTI file.

    Raises:
        VolumeError: it does not start with one. EOFError, zlib.error: it is gzipped and damaged.
    """
    head = read_head(path, max(HEADER_CLASSES))
    sizes = {order: int.from_bytes(head[:4], order) for order in ("little", "big")}
    order, size = next(((o, s) for o, s in sizes.items() if s in HEADER_CLASSES), ("", 0))
    if len(head) < 4 or size > len(head):
        raise EOFError(f"it holds {len(head)} bytes")
    if not order:
        raise VolumeError(path, "is no NIfTI file (it does not start with a NIfTI header)", DAMAGED)
    header: Header = HEADER_CLASSES[size](head[:size], endianness=order, check=False)
    if header["magic"].item()[:3] not in (b"n+1", b"n+2"):
        advice = "store it as a single .nii file"
        raise VolumeError(path, f"is no single-file NIfTI (its magic is {header['magic'].item()!r})", advice)
    return header


def _number_type(header: Header) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
        return dtype
    except KeyError:
        raise HeaderDataError(f"number type {int(header['datatype'])} is unknown") from None


def _sizes(header: Header) -> tuple[int, ...]:
    dimensions = [int(size) for size in header["dim"]]
    return tuple(dimensions[1 : 1 + dimensions[0]]) if 1 <= dimensions[0] <= 7 else ()


def _check_size(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse a header that promises more than the file can hold, before memory is asked for."""
    needed, size = offset + int(np.prod(shape, dtype=np.float64)) * dtype.itemsize, path.stat().st_size
    with path.open("rb") as file:
        most = size * MAX_GZIP_RATIO if file.read(2) == b"\x1f\x8b" else size
    if needed > most:
        raise VolumeError(path, f"is truncated: {size} bytes cannot hold the {needed} of its header", DAMAGED)
