"""Telling whether a file is whole, for the formats in which SimpleITK fills what is missing, or complains on standard
error.
"""

import math
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from autoseg.data.stored import DAMAGED
from autoseg.data.streams import read_head, unpacked_blocks
from autoseg.errors import VolumeError

META_HEAD = 1 << 16
META_BYTES = {
    "CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4,
    "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip
META_LINE = re.compile(rb"(\w+)\s*=\s*(.*)")
GIPL_HEADER = 256
GIPL_BITS = {1: 1, 7: 8, 8: 8, 15: 16, 16: 16, 31: 32, 32: 32, 64: 32, 65: 64}
"""Bits a voxel by GIPL's number of the type."""


def check_whole(path: Path) -> None:
    """Refuse a file that is cut short, as far as its header tells; formats that SimpleITK checks itself pass.

    Raises:
        VolumeError: the file holds less than its header promises, or has no usable header.
    """
    for endings, check in CHECKS.items():
        if path.name.endswith(endings):
            try:
                check(path)
            except (struct.error, ValueError, KeyError, EOFError, zlib.error) as error:
                raise VolumeError(path, f"has a damaged header ({error or 'it is too short'})", DAMAGED) from None


def _check_meta(path: Path) -> None:
    head = read_head(path, META_HEAD)
    fields: dict[str, str] = {}
    end = 0
    for line in head.splitlines(keepends=True):
        end += len(line)
        if not (match := META_LINE.match(line.strip())):
            break
        fields[match.group(1).decode()] = match.group(2).decode("utf-8").strip()
        if "ElementDataFile" in fields:
            break
    if missing := [key for key in ("NDims", "DimSize", "ElementType", "ElementDataFile") if key not in fields]:
        raise ValueError(f"{missing[0]} is missing")
    source, offset = fields["ElementDataFile"], end
    if source.upper() != "LOCAL":
        if source.upper().startswith("LIST") or "%" in source:
            return
        offset = 0
        path = path.parent / source
        if not path.is_file():
            raise VolumeError(path, "no such file, but its .mhd header names it", DAMAGED, kind="missing file")
    _compare(path, path.stat().st_size - offset, _meta_bytes(fields))


def _meta_bytes(fields: dict[str, str]) -> int:
    """Return the number of bytes of the voxels as stored; 0 where the header does not tell."""
    if fields.get("CompressedData", "").lower() == "true":
        return int(fields.get("CompressedDataSize", 0))
    voxels = math.prod(int(size) for size in fields["DimSize"].split()) * int(fields.get("ElementNumberOfChannels", 1))
    return voxels * META_BYTES[fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")]


def _check_gipl(path: Path) -> None:
    head = read_head(path, GIPL_HEADER)
    *sizes, kind = struct.unpack_from(">4HH", head)
    voxels = math.prod(max(size, 1) for size in sizes)
    found = sum(len(block) for block in unpacked_blocks(path))
    _compare(path, found - GIPL_HEADER, voxels * GIPL_BITS[kind] // 8)


def _check_tiff(path: Path) -> None:
    """Follow the chain of pages; the strips of each are left to SimpleITK."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        magic = struct.unpack_from(f"{order or '<'}H", head, 2)[0]
        if order is None or magic not in (42, 43):
            raise ValueError("it does not start as a TIFF does")
        count_code, offset_code, entry, start = ("H", "I", 12, 4) if magic == 42 else ("Q", "Q", 20, 8)
        offset = struct.unpack_from(order + offset_code, head, start)[0]
        seen = set()
        while offset and offset not in seen:
            seen.add(offset)
            _compare(path, size, offset + struct.calcsize(count_code))
            file.seek(offset)
            count = struct.unpack(order + count_code, file.read(struct.calcsize(count_code)))[0]
            file.seek(count * entry, 1)
            offset = struct.unpack(order + offset_code, file.read(struct.calcsize(offset_code)))[0]
        if not seen:
            raise ValueError("it has no page")


def _compare(path: Path, found: int, needed: int) -> None:
    if found < needed:
        raise VolumeError(path, f"is truncated: it holds {max(found, 0)} of {needed} bytes", DAMAGED)


CHECKS: dict[tuple[str, ...], Callable[[Path], None]] = {
    (".mha", ".mhd"): _check_meta,
    (".gipl", ".gipl.gz"): _check_gipl,
    (".tif", ".tiff"): _check_tiff,
}
