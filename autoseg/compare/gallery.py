"""Slices of the worst, the median and the best cases, with the outlines of the reference and of every plan.

Images become 8-bit PNGs: all shown slices of a case stand below each other in one, and so do the label maps of each
plan, which compress to next to nothing. The page draws the outlines.
"""

import base64
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.compare.runs import Runs
from autoseg.compare.scores import Scores
from autoseg.compare.summary import FOREGROUND, PRIMARY
from autoseg.data.cases import Case, Dataset
from autoseg.data.pairing import list_volumes
from autoseg.errors import AutosegError

REFERENCE = "reference"
BUDGET = 6_000_000
"""Characters that all images together may take: with plotly's five million the page stays well below 15 MB."""
SIZES = ((256, 48), (192, 36), (144, 24), (96, 16), (64, 10))
"""Pixels a side and slices at most, tried from the largest on until the case is within its share of the budget."""
MARGIN = 0.25
EXTRA_SLICES = 2
GREYS = 64
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class ShownCase:
    """One case as the page shows it.

    Attributes:
        name: of the case. kind: ``worst``, ``second worst``, ``median`` or ``best``.
        dice: plan to mean Dice, None where undefined.
        size: width and height of a slice in pixels. aspect: height of a pixel by its width.
        slices: numbers of the shown slices in the volume, counted from 1, from the feet up.
        start: place of the slice to begin with: that with most reference.
        image: data URL of the slices below each other.
        labels: ``reference`` and each plan to the data URL of its label maps.
    """

    name: str
    kind: str
    dice: dict[str, float | None]
    size: tuple[int, int]
    aspect: float
    slices: tuple[int, ...]
    start: int
    image: str
    labels: dict[str, str]

    @property
    def num_characters(self) -> int:
        """Length of all images."""
        return len(self.image) + sum(len(text) for text in self.labels.values())


@dataclass(frozen=True)
class Gallery:
    """The shown cases; ``problems`` says which could not be shown and why."""

    channel: str
    cases: tuple[ShownCase, ...]
    problems: tuple[str, ...]


def choose_cases(table: Scores, names: Sequence[str]) -> dict[str, str]:
    """Return case to kind: of the cases that all plans have, by mean Dice over plans; only those among ``names``."""
    means = table.matrix().mean(axis=1)
    order = [table.cases[place] for place in table.common()[np.argsort(means, kind="stable")]]
    known = [name for name in order if name in set(names)]
    if not known:
        return {}
    wanted = (("worst", 0), ("second worst", 1), ("median", len(known) // 2), ("best", len(known) - 1))
    chosen: dict[str, str] = {}
    for kind, place in wanted:
        if place < len(known):
            chosen.setdefault(known[place], kind)
    return chosen


def make_gallery(
    runs: Runs, table: Scores, dataset: Dataset, *, on_case: Callable[[str], None] | None = None
) -> Gallery:
    """Read and draw the chosen cases; a case whose files cannot be read is a problem, not an error."""
    cases = {case.name: case for case in dataset.cases}
    chosen = choose_cases(table, list(cases)) if len(table.common()) else {}
    shown, problems = [], []
    for name, kind in chosen.items():
        try:
            drawn = _draw_case(cases[name], find_predictions(runs, name), BUDGET // len(chosen))
        except (AutosegError, OSError) as error:
            problems.append(f"{name}: {error}")
        else:
            place = table.cases.index(name)
            dice = {plan: _value(table, plan, place) for plan in table.plans}
            shown.append(ShownCase(name=name, kind=kind, dice=dice, **drawn))
        if on_case:
            on_case(name)
    return Gallery(dataset.channels[0], tuple(shown), tuple(problems))


def find_predictions(runs: Runs, case: str) -> dict[str, Path]:
    """Return the file of each plan's segmentation of a case; plans without one are left out."""
    found = {}
    for run in runs.runs:
        if run.predictions is None or case not in run.cases or run.plan in found:
            continue
        if paths := list_volumes(run.predictions).get(case):
            found[run.plan] = paths[0]
    return found


def _value(table: Scores, plan: str, place: int) -> float | None:
    value = float(table.column(plan, FOREGROUND, PRIMARY)[place])
    return None if np.isnan(value) else value


def _draw_case(case: Case, predictions: Mapping[str, Path], budget: int) -> dict[str, Any]:
    image, labels, spacing = _read_case(case, predictions)
    box = _box(labels)
    image, labels = image[box], {name: array[box] for name, array in labels.items()}
    drawn: dict[str, Any] = {}
    for side, number in SIZES:
        drawn = _encode(image, labels, spacing, side, number, box[0].start)
        if len(drawn["image"]) + sum(map(len, drawn["labels"].values())) <= budget:
            break
    return drawn


def _read_case(
    case: Case, predictions: Mapping[str, Path]
) -> tuple[NDArray[Any], dict[str, NDArray[Any]], tuple[float, float, float]]:
    """Return the first channel, the label maps of reference and plans, all (Z, Y, X) in canonical orientation, and
    spacing.
    """
    from autoseg.data.volumes import align, canonical_geometry, read_image, read_label, to_canonical

    volume = read_image(case.images[:1])
    paths = {**({REFERENCE: case.label} if case.label else {}), **predictions}
    labels = {
        name: to_canonical(align(read_label(path), volume.geometry, path, case.images[0])).array[0]
        for name, path in paths.items()
    }
    return to_canonical(volume).array[0], labels, canonical_geometry(volume.geometry).spacing


def _box(labels: Mapping[str, NDArray[Any]]) -> tuple[slice, slice, slice]:
    """Return the box of all foreground with a margin; the whole volume where there is none."""
    shape = next(iter(labels.values())).shape
    foreground = np.zeros(shape, dtype=bool)
    for array in labels.values():
        foreground |= array > 0
    if not foreground.any():
        return (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    ends = []
    for axis, size in enumerate(shape):
        hits = np.flatnonzero(foreground.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = EXTRA_SLICES if axis == 0 else max(8, round(MARGIN * (hits[-1] - hits[0])))
        ends.append(slice(max(0, int(hits[0]) - margin), min(size, int(hits[-1]) + margin + 1)))
    return ends[0], ends[1], ends[2]


def _encode(
    image: NDArray[Any],
    labels: Mapping[str, NDArray[Any]],
    spacing: Sequence[float],
    side: int,
    number: int,
    first: int,
) -> dict[str, Any]:
    step = -(-len(image) // number)
    factor = -(-max(image.shape[1:]) // side)
    every = slice(step // 2 if step < len(image) else 0, None, step)
    grey = to_grey(_shrink(image[every], factor))
    maps = {name: number_labels(array[every, ::factor, ::factor]) for name, array in labels.items()}
    shown = maps.get(REFERENCE, next(iter(maps.values()), grey))
    start = int(np.argmax(np.count_nonzero(shown, axis=(1, 2))))
    return {
        "size": (grey.shape[2], grey.shape[1]),
        "aspect": spacing[1] / spacing[2],
        "slices": tuple(range(first + (every.start or 0) + 1, first + len(image) + 1, step)),
        "start": start,
        "image": data_url(encode_png(grey.reshape(-1, grey.shape[2]), smooth=True)),
        "labels": {name: data_url(encode_png(array.reshape(-1, array.shape[2]))) for name, array in maps.items()},
    }


def _shrink(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return slices (n, y, x) averaged over blocks of ``factor`` pixels, on the grid of every ``factor``-th pixel."""
    if factor == 1:
        return image
    pad = [(0, 0), (0, -image.shape[1] % factor), (0, -image.shape[2] % factor)]
    padded = np.pad(image.astype(np.float32), pad, mode="edge")
    number, height, width = padded.shape
    blocks = padded.reshape(number, height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(2, 4)))


def to_grey(image: NDArray[Any]) -> Bytes:
    """Return 64 grey values between 0 and 255 from the 0.5th to the 99.5th percentile: fewer would show, more cost
    much.
    """
    low, high = np.percentile(image, [0.5, 99.5])
    scaled = np.clip((image.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    return np.asarray(np.round(scaled * (GREYS - 1)) * (255 / (GREYS - 1)), dtype=np.uint8)


def number_labels(array: NDArray[Any]) -> Bytes:
    """Return label values as bytes, 0 background; values beyond 255 start anew at 1."""
    rounded = np.rint(array).astype(np.int64)
    return np.where(rounded > 0, 1 + (rounded - 1) % 255, 0).astype(np.uint8)


def encode_png(pixels: Bytes, *, smooth: bool = False) -> bytes:
    """Return an 8-bit grey PNG of ``pixels`` (height, width); ``smooth`` images are stored as differences along the
    rows.
    """
    rows = np.diff(pixels, axis=1, prepend=np.uint8(0)) if smooth else pixels
    filtered = np.concatenate([np.full((len(rows), 1), int(smooth), np.uint8), rows], axis=1)
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def data_url(png: bytes) -> str:
    """Return a PNG as a URL that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
