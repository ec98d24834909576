"""The preprocessed cases of a dataset on disk, compressed, in blocks from which patches are read.

A case is four files: ``<case>.b2nd`` (image), ``<case>_seg.b2nd`` (classes), ``<case>_foreground.npz`` and
``<case>.json``. The last is written last: where it stands, the case is whole.
"""

import math
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import blosc2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from autoseg.data.dataset import Case, Dataset
from autoseg.data.labels import Labels, Region
from autoseg.documents import Document, content_hash, read_document, write_beside, write_document
from autoseg.errors import AutosegError, DatasetError, DocumentError, WorkspaceError
from autoseg.plan.plan import Plan, Preprocessing
from autoseg.preprocess.case import CaseProperties, PreprocessedCase, describe_sources

CONTENT_NAME = "preprocessing"
"""``preprocessing.json`` describes the folder; no case may have this name."""

ENDINGS = (".b2nd", "_seg.b2nd", "_foreground.npz", ".json")
PARTIAL = ".partial-"
"""How the names of half-written files begin (documents.write_beside)."""

BLOCK = (8, 32, 32)
"""Voxels decompressed together, 32 KiB of float32. Flat, so that a patch of few slices reads little too much."""

CHUNK = (64, 128, 128)
"""Voxels compressed together, 4 MiB of float32: more only makes headers rarer, and these are rare already."""

CODEC = blosc2.Codec.LZ4
LEVEL = 5
FILTER = blosc2.Filter.BITSHUFFLE
"""Measured on a CT of 78x512x512: 0.1 s to write, 4 ms to read a patch of 64x160x160; 4.7 times smaller, 2.4 times
where resampled. ZSTD is up to a quarter smaller and half as fast to read."""

MAX_LOCATIONS = 10_000
MIN_LOCATION_SHARE = 0.01
"""Voxels kept of each class: at most the first, but at least the second part of them (nnU-Net's values)."""

STALE_SECONDS = 3600.0
"""Partial files older than this belong to a run that was killed, not to one that is writing them now."""


class PreprocessingContent(Document):
    """All that the preprocessed cases depend on beside the raw ones; its hash names their folder.

    Attributes:
        preprocessing: the plan's section.
        labels: name to value.
        regions: name to region.
        region_order: their order, which numbers the foreground locations of overlapping regions.
    """

    schema_: Literal["autoseg.preprocessing.1"] = Field(alias="schema")
    preprocessing: Preprocessing
    labels: dict[str, int]
    regions: dict[str, Region]
    region_order: tuple[str, ...]


class CaseStore:
    """The preprocessed cases in one folder. Reading is safe in several threads: every call opens the file anew.

    Attributes:
        found_folder: where it stands what a previous stage found in these cases (see found.py), or None.

    Args:
        folder: where the cases stand; made when the first one is saved.
        labels: for ``save``, which draws the foreground of each region where regions overlap; else, and without labels,
            of each class.
        found_folder: see above.
    """

    def __init__(self, folder: Path, labels: Labels | None = None, *, found_folder: Path | None = None) -> None:
        self.folder = folder
        self.found_folder = found_folder
        self._labels = labels

    def names(self) -> list[str]:
        """Return the sorted names of the finished cases."""
        names = (path.name.removesuffix(".json") for path in self.folder.glob("*.json"))
        return sorted(name for name in names if name != CONTENT_NAME and not name.startswith(PARTIAL))

    def properties(self, name: str) -> CaseProperties:
        """Return what is known of a case.

        Raises:
            WorkspaceError: the case is not there. DocumentError: its document is damaged.
        """
        path = self._path(name, ".json")
        if not path.is_file():
            raise WorkspaceError(f"{path}: case {name!r} is not preprocessed; run autoseg_plan")
        return read_document(path, CaseProperties)

    def image(self, name: str) -> Any:
        """Open the image, a blosc2 array float32 (C, Z, Y, X): indexing reads and decompresses only what is asked for.

        Raises:
            WorkspaceError: the file is missing or damaged.
        """
        return _open(self._path(name, ".b2nd"))

    def classes(self, name: str) -> Any:
        """Open the classes, a blosc2 array int16 (Z, Y, X), -1 ignored, background outside a mask OUTSIDE_CLASS.

        Raises:
            WorkspaceError: the file is missing or damaged.
        """
        return _open(self._path(name, "_seg.b2nd"))

    def found(self, name: str) -> Any:
        """Open the classes that a previous stage found, a blosc2 array int16 (Z, Y, X).

        Raises:
            WorkspaceError: the file is missing or damaged.
        """
        if self.found_folder is None:
            raise WorkspaceError(f"{self.folder}: no previous stage has segmented these cases; run autoseg_train")
        path = self.found_folder / f"{name}.b2nd"
        if not path.is_file():
            raise WorkspaceError(f"{path}: what the previous stage found is not there any more; run autoseg_train")
        return _open(path)

    def foreground(self, name: str) -> dict[int, NDArray[np.int32]]:
        """Return voxels (N, 3) of each foreground class that occurs, or, where regions overlap, by region index.

        Raises:
            WorkspaceError: the file is missing or damaged.
        """
        path = self._path(name, "_foreground.npz")
        try:
            with np.load(path) as arrays:
                return {int(key): arrays[key] for key in arrays.files}
        except (OSError, ValueError, zlib.error) as error:
            raise _damaged(path, error) from None

    def save(self, case: PreprocessedCase) -> None:
        """Write a case; what stood there before is invalid from the first moment on.

        A case without a label has only an image.
        """
        name = case.properties.name
        self._path(name, ".json").unlink(missing_ok=True)
        write_array(self._path(name, ".b2nd"), case.image)
        if case.classes is not None:
            write_array(self._path(name, "_seg.b2nd"), case.classes)
            voxels = sample_foreground(case.classes, self._labels, seed=zlib.crc32(name.encode()))
            _write_arrays(self._path(name, "_foreground.npz"), {str(key): value for key, value in voxels.items()})
        write_document(self._path(name, ".json"), case.properties)

    def discard(self, name: str) -> None:
        """Make a case unfinished, if it was finished."""
        self._path(name, ".json").unlink(missing_ok=True)

    def is_current(self, case: Case) -> bool:
        """Whether the case is finished, none of its files was deleted, and its source files have not changed since."""
        if not all(self._path(case.name, ending).is_file() for ending in ENDINGS):
            return False
        try:
            return self.properties(case.name).sources == describe_sources(case, case.label)
        except DocumentError:
            return False

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / f"{name}{ending}"


def preprocessing_digest(plan: Plan) -> str:
    """Return 64 hexadecimal digits that are equal for plans that can share one preprocessed folder."""
    return content_hash(preprocessing_content(plan))


def preprocessing_content(plan: Plan) -> PreprocessingContent:
    """Return what the digest is of."""
    return PreprocessingContent(
        schema="autoseg.preprocessing.1",
        preprocessing=plan.preprocessing,
        labels=plan.dataset.labels,
        regions=plan.dataset.regions,
        region_order=tuple(plan.dataset.regions),
    )


def check_names(dataset: Dataset) -> None:
    """Refuse names of cases whose files would overwrite each other.

    Raises:
        DatasetError: a case is named like the folder's own document, or like another case's classes.
    """
    names = {case.name for case in dataset.cases}
    if CONTENT_NAME in names:
        raise DatasetError(f"{dataset.folder}: a case cannot be named {CONTENT_NAME!r}; rename its files")
    clashes = sorted(name for name in names if f"{name}_seg" in names)
    if clashes:
        raise DatasetError(
            f"{dataset.folder}: the classes of case {clashes[0]!r} would overwrite the image of case "
            f"{clashes[0] + '_seg'!r}; rename one of them"
        )


def remove_stale(folder: Path, *, older_than: float = STALE_SECONDS) -> None:
    """Remove what a killed run left half-written more than so many seconds ago; 0 where nobody else can be writing."""
    limit = time.time() - older_than
    for path in folder.glob(f"{PARTIAL}*"):
        try:
            if path.stat().st_mtime <= limit:
                path.unlink()
        except FileNotFoundError:  # its owner finished it in this moment
            continue


def sample_foreground(classes: NDArray[np.int16], labels: Labels | None, *, seed: int) -> dict[int, NDArray[np.int32]]:
    """Return voxels (N, 3), ascending and drawn without replacement, of each class or overlapping region that occurs.

    At most 10,000 each, but at least 1 % of a class (as nnU-Net).

    Args:
        classes: (Z, Y, X), -1 ignored.
        labels: where its regions overlap, these are drawn, keyed by their index; else the classes, keyed by class.
        seed: of the draw.
    """
    if labels is not None and labels.overlapping:
        members = dict(enumerate(labels.membership()))
    else:
        members = dict(enumerate(np.eye(max(int(classes.max()), 0) + 1, dtype=np.bool_)))
        del members[0]
    lowest = 0 if any(member[0] for member in members.values()) else 1
    flat = classes.reshape(-1)
    positions = np.flatnonzero(flat >= lowest)
    values = flat[positions]
    generator = np.random.default_rng(seed)
    drawn = {}
    for key, member in members.items():
        own = positions[member[values]]
        if own.size:
            drawn[key] = _to_voxels(_draw(own, generator), classes.shape)
    return drawn


def _draw(positions: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    count = max(MAX_LOCATIONS, math.ceil(len(positions) * MIN_LOCATION_SHARE))
    if len(positions) <= count:
        return positions
    return np.sort(generator.choice(positions, count, replace=False))


def _to_voxels(positions: NDArray[np.int64], shape: Sequence[int]) -> NDArray[np.int32]:
    return np.stack(np.unravel_index(positions, tuple(shape)), axis=1).astype(np.int32)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array (..., Z, Y, X) compressed, in blocks, whole or not at all."""
    blocks, chunks = block_and_chunk(array.shape[-3:])
    lead = (1,) * (array.ndim - 3)
    with write_beside(path) as temporary:
        blosc2.asarray(
            np.ascontiguousarray(array),
            urlpath=str(temporary),
            mode="w",
            blocks=(*lead, *blocks),
            chunks=(*lead, *chunks),
            cparams=blosc2.CParams(codec=CODEC, clevel=LEVEL, filters=[FILTER], filters_meta=[0], nthreads=1),
        )


def _write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with write_beside(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def block_and_chunk(shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the sizes of blocks and chunks for ``shape``: near BLOCK and CHUNK, dividing it with little padding."""
    blocks = tuple(_even_part(size, target) for size, target in zip(shape, BLOCK))
    chunks = tuple(
        min(block * _even_part(math.ceil(size / block), target // block), size)
        for size, block, target in zip(shape, blocks, CHUNK)
    )
    return blocks, chunks


def _even_part(size: int, target: int) -> int:
    """Return the size of equal parts, at most ``target`` each, into which ``size`` is cut."""
    return math.ceil(size / math.ceil(size / target))


def _open(path: Path) -> Any:
    try:
        return blosc2.open(str(path), mode="r", dparams=blosc2.DParams(nthreads=1))
    except (OSError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> AutosegError:
    if not path.is_file():
        return WorkspaceError(f"{path}: no such file; run autoseg_plan")
    return WorkspaceError(f"{path}: cannot be read ({error}); delete it, then run autoseg_plan")
