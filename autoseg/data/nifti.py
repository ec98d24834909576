"""What SimpleITK leaves undone for NIfTI files: noticing that one is cut short, and storing an oblique orientation exactly."""

import gzip
import itertools
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 352
NIFTI1_HEADER_SIZE, NIFTI2_HEADER_SIZE = 348, 540
SPACING_OFFSET, SROW_OFFSET = 80, 280
MAX_ULPS = 2


@dataclass(frozen=True)
class _Header:
    """The size of the header that a file declares, and of the whole file (bytes, uncompressed) as its header demands."""

    size: int
    file_bytes: int


def is_nifti(path: Path) -> bool:
    """Tell by its name whether ``path`` is a NIfTI file, compressed or not."""
    return path.name.endswith((".nii", ".nii.gz"))


def find_defect(path: Path) -> str | None:
    """Return what makes the NIfTI file ``path`` unreadable, or None.

    SimpleITK fills the missing end of a shortened file with zeros and says nothing, so the length is compared here. A gzip file's
    last four bytes are its uncompressed length; only where these disagree is the whole file unpacked and its checksum verified.
    """
    try:
        header = _read_header(path)
        if header.size == NIFTI2_HEADER_SIZE:
            return "is a NIfTI-2 file, which SimpleITK cannot read; convert it to NIfTI-1"
        if header.size != NIFTI1_HEADER_SIZE:
            return "is no NIfTI file (it does not start with a NIfTI-1 header)"
        if _is_gzip(path) and _declared_length(path) == header.file_bytes % 2**32:
            return None
        found = _unpacked_length(path)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        return f"is truncated or damaged ({error}); copy or download it again"
    if found < header.file_bytes:
        return f"is truncated: it holds {found} of {header.file_bytes} bytes (uncompressed); copy or download it again"
    return None


def store_direction(path: Path, direction: tuple[float, ...]) -> None:
    """Rewrite the sform rows of the NIfTI-1 file ``path`` so that SimpleITK reads back ``direction`` to the last bit.

    SimpleITK reads the columns of the sform (float32) and normalises them. It writes direction times spacing after a detour over
    quaternions, whose normalised column may differ by 1e-8. The float32 numbers nearest to direction times spacing are tried until the
    column comes back equal; a direction that did not come from a NIfTI file may have none, and keeps SimpleITK's rounding.

    Args:
        path: a little-endian file as SimpleITK writes it, replaced in place.
        direction: nine numbers, row by row, in SimpleITK's (LPS) convention.
    """
    with _open(path) as file:
        content = bytearray(file.read())
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
    """Return float32 numbers near ``column`` that normalise to exactly ``wanted``, or ``column`` where there are none."""
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


def _read_header(path: Path) -> _Header:
    with _open(path) as file:
        head = file.read(HEADER_BYTES)
    order = "<" if struct.unpack_from("<i", head)[0] in (NIFTI1_HEADER_SIZE, NIFTI2_HEADER_SIZE) else ">"
    size = struct.unpack_from(order + "i", head)[0]
    if size != NIFTI1_HEADER_SIZE:
        return _Header(size, 0)
    dimensions = struct.unpack_from(order + "8h", head, 40)
    bits = struct.unpack_from(order + "h", head, 72)[0]
    offset = struct.unpack_from(order + "f", head, 108)[0]
    voxels = int(np.prod(dimensions[1 : 1 + max(dimensions[0], 0)], dtype=np.int64))
    return _Header(size, int(offset) + voxels * bits // 8)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if _is_gzip(path) else path.open("rb")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _declared_length(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(-4, 2)
        return int.from_bytes(file.read(4), "little")


def _unpacked_length(path: Path) -> int:
    if not _is_gzip(path):
        return path.stat().st_size
    with gzip.open(path, "rb") as file:
        return sum(len(chunk) for chunk in iter(lambda: file.read(1 << 20), b""))
