"""Reading numbers from files that may be gzipped: once, in blocks, with the checksum verified."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

BLOCK_BYTES = 1 << 21
GZIP = b"\x1f\x8b"
GZIP_WBITS = 31  # zlib's way of saying: gzip, with header and checksum


def unpacked_blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked where it is gzipped, in blocks of at most ``BLOCK_BYTES``.

    Raises:
        EOFError: a gzipped file ends too early.
        zlib.error: it is damaged, or its checksum is wrong.
    """
    with path.open("rb") as file:
        packed = file.read(BLOCK_BYTES)
        if packed[:2] != GZIP:
            while packed:
                yield packed
                packed = file.read(BLOCK_BYTES)
            return
        decoder = zlib.decompressobj(GZIP_WBITS)
        while packed or not decoder.eof:
            if not packed:
                raise EOFError("the compressed data end too early")
            yield decoder.decompress(packed, BLOCK_BYTES)
            packed = decoder.unconsumed_tail or file.read(BLOCK_BYTES) if not decoder.eof else decoder.unused_data
            if decoder.eof:
                packed = packed.lstrip(b"\0") or file.read(BLOCK_BYTES).lstrip(b"\0")
                if packed[:1] != GZIP[:1]:  # what stands behind the last member is not ours
                    return
                decoder = zlib.decompressobj(GZIP_WBITS)


def read_head(path: Path, size: int) -> bytes:
    """Return the first ``size`` unpacked bytes of a file, or all where there are fewer."""
    head = b""
    for block in unpacked_blocks(path):
        head += block
        if len(head) >= size:
            break
    return head[:size]


def read_numbers(
    path: Path, *, offset: int, count: int, dtype: np.dtype, result: DTypeLike, slope: float = 1, intercept: float = 0
) -> NDArray[np.generic]:
    """Return ``count`` numbers of a file as a flat array, reading it once and to its end.

    Args:
        path: gzipped or not.
        offset: unpacked bytes before the first number.
        count: how many numbers.
        dtype: as stored.
        result: dtype to return; the memory needed is this array and a block.
        slope: what each number is multiplied by.
        intercept: what is added then.

    Raises:
        EOFError: there are fewer numbers.
        zlib.error: the file is damaged.
    """
    numbers = np.empty(count, dtype=result)
    done, left, pending = 0, offset, b""
    for block in unpacked_blocks(path):
        skipped = min(left, len(block))
        left -= skipped
        if done == count or skipped == len(block):
            continue
        pending += block[skipped:]
        found = np.frombuffer(pending, dtype=dtype, count=min(len(pending) // dtype.itemsize, count - done))
        target = numbers[done : done + found.size]
        with np.errstate(over="ignore", invalid="ignore"):
            target[:] = found if slope == 1 and intercept == 0 else found.astype(np.float64) * slope + intercept
        done += found.size
        pending = pending[found.size * dtype.itemsize :] if done < count else b""
    if done < count:
        raise EOFError(f"it holds {done} of {count} voxels")
    return numbers
