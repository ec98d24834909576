"""A contact sheet of preprocessing: cases as their files hold them, and as the network sees them, side by side.

Each case has three planes through the centre of its foreground, of pixels square in mm and of one scale before and
after, the labels outlined. Letters on the edges say where the patient's right, left, front (A), back (P), head (S) and
feet (I) are according to the file, so that anatomy which contradicts them shows a wrong orientation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from autoseg.data.dataset import Case
from autoseg.data.volumes import align, canonical_geometry, orientation_code, read_image, read_label
from autoseg.documents import write_beside
from autoseg.errors import WorkspaceError
from autoseg.plan.plan import Plan
from autoseg.preprocess.store import CaseStore

NUM_CASES = 6
EDGE = 190
"""Pixels of the longest edge of a case."""

GAP, LINE = 8, 14
"""Pixels between pictures, and of a line of text."""

DARKEST, BRIGHTEST = 0.5, 99.5
"""Percentiles of the planes' voxels, those of the smallest value left out, that are shown black and white."""

OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}
WHITE, BLACK, YELLOW = (255, 255, 255), (0, 0, 0), (255, 230, 90)

COLOURS = np.array(
    [[230, 60, 60], [70, 170, 255], [250, 200, 40], [90, 210, 110], [220, 120, 240], [255, 150, 80], [120, 230, 230]],
    dtype=np.uint8,
)
"""Of the outlines of the classes, in turn."""


@dataclass(frozen=True)
class _View:
    """One state of a case.

    Attributes:
        title: what it is.
        shape: voxels, spacing: mm; of ``axes``, to which the patient's axes run (z, y, x).
        planes: image and classes of the plane across each axis.
    """

    title: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    axes: str
    planes: list[tuple[NDArray[np.float32], NDArray[np.int16]]]

    @property
    def extent(self) -> float:
        """The longest edge in mm."""
        return max(size * mm for size, mm in zip(self.shape, self.spacing))


def write_sheet(cases: Sequence[Case], plan: Plan, store: CaseStore, path: Path, *, num_cases: int = NUM_CASES) -> None:
    """Write a PNG of some cases before and after preprocessing: those of different orientations first.

    Args:
        cases: labelled cases of the dataset.
        plan: by which they were preprocessed.
        store: where they stand.
        path: of the picture.
        num_cases: most cases to show.

    Raises:
        WorkspaceError: none of the cases is preprocessed. VolumeError: a file cannot be read.
    """
    done = set(store.names())
    finished = [case for case in cases if case.name in done]
    if not finished:
        raise WorkspaceError(f"{store.folder}: no case is preprocessed, so there is nothing to show; run autoseg_plan")
    tiles = [_draw_case(case, plan, store) for case in _choose(finished, store, num_cases)]
    with write_beside(path) as temporary:
        _stack(tiles).save(temporary, format="PNG")


def outline(classes: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Return which pixels (Y, X) have a neighbour of another class."""
    padded = np.pad(classes, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    found: NDArray[np.bool_] = np.any([neighbour != classes for neighbour in neighbours], axis=0)
    return found


def _choose(cases: Sequence[Case], store: CaseStore, count: int) -> list[Case]:
    """Return one case of each orientation, then others evenly through the dataset, in the dataset's order."""
    first: dict[str, int] = {}
    for index, case in enumerate(cases):
        first.setdefault(orientation_code(store.properties(case.name).geometry), index)
    spread = np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int).tolist()
    chosen = list(dict.fromkeys([*first.values(), *spread]))[:count]
    return [cases[index] for index in sorted(chosen)]


def _draw_case(case: Case, plan: Plan, store: CaseStore) -> Image.Image:
    views = [_before(case, plan), _after(case, plan, store)]
    scale = EDGE / max(view.extent for view in views)
    pictures = [_draw_view(view, scale) for view in views]
    width, height = sum(p.width for p in pictures) + 3 * GAP, max(p.height for p in pictures) + LINE + GAP
    tile = Image.new("RGB", (width, height), WHITE)
    ImageDraw.Draw(tile).text((GAP, 0), case.name, fill=BLACK, font=ImageFont.load_default())
    tile.paste(pictures[0], (GAP, LINE))
    tile.paste(pictures[1], (pictures[0].width + 2 * GAP, LINE))
    return tile


def _before(case: Case, plan: Plan) -> _View:
    """Return the first channel and the label as the files hold them."""
    labels, image = plan.dataset.label_scheme, read_image(case.images)
    geometry = image.geometry
    classes = np.zeros(geometry.shape, dtype=np.int16)
    if case.label is not None:
        label = align(read_label(case.label, labels), geometry, case.label, case.images[0])
        classes = labels.encode(label.array[0], where=str(case.label))
    code = orientation_code(geometry)
    planes = _cut(image.array[:1], classes)
    return _View(f"file, {code}", geometry.shape, geometry.spacing, code[::-1], planes)


def _after(case: Case, plan: Plan, store: CaseStore) -> _View:
    """Return the first channel and the classes as the network sees them, the transposition undone."""
    back = np.argsort(plan.preprocessing.transpose).tolist()
    properties = store.properties(case.name)
    image = store.image(case.name)[0:1].transpose(0, *(1 + axis for axis in back))
    classes = store.classes(case.name)[:] if case.label is not None else np.zeros(properties.shape, dtype=np.int16)
    spacing = plan.preprocessing.spacing_of(properties.spacing)
    code = orientation_code(canonical_geometry(properties.geometry))
    turned = tuple(float(spacing[axis]) for axis in back)
    shape = tuple(properties.shape[axis] for axis in back)
    planes = _cut(image, classes.transpose(back))
    return _View(f"preprocessed, {code}", shape, turned, code[::-1], planes)


def _cut(image_czyx: Any, classes: Any) -> list[tuple[NDArray[np.float32], NDArray[np.int16]]]:
    """Return the three planes through the foreground's centre."""
    foreground = np.nonzero(classes > 0)
    centre = [int(np.median(f)) if f.size else size // 2 for f, size in zip(foreground, classes.shape)]
    return [
        (np.asarray(image_czyx[0].take(index, axis=axis)), classes.take(index, axis=axis))
        for axis, index in enumerate(centre)
    ]


def _draw_view(view: _View, scale: float) -> Image.Image:
    """Return the three planes of a view in a row, above them what it is."""
    low, high = _window([image for image, _ in view.planes])
    pictures = [_draw_plane(view, axis, scale, low, high) for axis in range(3)]
    lines = [
        f"{view.title}, grey {low:.4g} to {high:.4g}",
        f"{_times(view.shape)} voxels, {_times(view.spacing)} mm (z, y, x)",
    ]
    width = max(sum(p.width for p in pictures) + 4, 3 * EDGE + 4)
    result = Image.new("RGB", (width, max(p.height for p in pictures) + 2 * LINE), WHITE)
    for row, line in enumerate(lines):
        ImageDraw.Draw(result).text((0, row * LINE), line, fill=BLACK, font=ImageFont.load_default())
    left = 0
    for picture in pictures:
        result.paste(picture, (left, 2 * LINE))
        left += picture.width + 2
    return result


def _window(images: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the values shown black and white; a constant margin, which cropping removes, does not count."""
    values = np.concatenate([image.ravel() for image in images])
    inside = values[values != values.min()]
    low, high = np.percentile(inside, (DARKEST, BRIGHTEST)) if inside.size else (0.0, 0.0)
    return (float(low), float(high)) if low < high else (float(values.min()), float(values.max()))


def _draw_plane(view: _View, axis: int, scale: float, low: float, high: float) -> Image.Image:
    image, classes = view.planes[axis]
    rows, columns = (other for other in range(3) if other != axis)
    if view.axes[rows] in "SRA":  # head, and what faces the reader, up
        image, classes = image[::-1], classes[::-1]
    height, width = (max(1, round(view.shape[a] * view.spacing[a] * scale)) for a in (rows, columns))
    grey = ((image - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR).convert("RGB")
    large = classes[np.arange(height) * classes.shape[0] // height][:, np.arange(width) * classes.shape[1] // width]
    pixels, edges = np.array(picture), outline(large) & (large > 0)
    pixels[edges] = COLOURS[(large[edges] - 1) % len(COLOURS)]
    picture = Image.fromarray(pixels)
    _letter(picture, view.axes[rows], view.axes[columns])
    return picture


def _letter(picture: Image.Image, down: str, right: str) -> None:
    """Write what the edges are towards: ``down`` is where rows run to, unless they were reversed for display."""
    up = down if down in "SRA" else OPPOSITE[down]
    middle, across = picture.height // 2 - 6, picture.width // 2 - 3
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    for letter, (x, y) in ((up, (across, 0)), (OPPOSITE[right], (1, middle)), (right, (picture.width - 9, middle))):
        draw.rectangle((x - 1, y, x + 8, y + 12), fill=BLACK)  # else it is lost where the image is bright
        draw.text((x, y), letter, fill=YELLOW, font=font)


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _stack(tiles: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(t.width for t in tiles), sum(t.height + GAP for t in tiles)), WHITE)
    top = 0
    for tile in tiles:
        sheet.paste(tile, (0, top))
        top += tile.height + GAP
    return sheet
