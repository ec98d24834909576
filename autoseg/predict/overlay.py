"""Pictures of a segmentation: outlines on axial slices, as one PNG and as an animated GIF through the volume.

Slices are seen from the feet, as radiologists do: the patient's left is on the right. Pixels are square in mm.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from autoseg.data.cases import Case
from autoseg.data.labels import Labels
from autoseg.data.volumes import align, read_image, read_label, to_canonical
from autoseg.documents import write_beside

Pixels = NDArray[np.uint8]

LARGEST_SIDE = 512
PNG_SLICES = 9
PNG_COLUMNS = 3
GIF_FRAMES = 80
FRAME_MS = 80
DARKEST, BRIGHTEST = 1.0, 99.0
"""Percentiles of the image's nonzero voxels that are shown black and white."""
COLOURS = (
    (230, 60, 60), (70, 200, 90), (80, 140, 255), (250, 190, 40), (200, 90, 230), (60, 210, 210), (250, 130, 190),
    (160, 220, 60), (255, 140, 60), (150, 150, 255),
)  # fmt: skip
"""Of the regions, in their order, again and again."""


def draw_overlays(case: Case, segmentation: Path, labels: Labels) -> tuple[Path, Path]:
    """Draw a segmentation on the first channel of its image; write CASE.png and CASE.gif beside it, return their paths.

    Raises:
        VolumeError: a file cannot be read, or the two lie on different grids.
    """
    image, found = read_image(case.images[:1]), read_label(segmentation)
    found = align(found, image.geometry, segmentation, case.images[0])
    grey, values = to_canonical(image), to_canonical(found).array[0]
    shown = _window(grey.array[0])
    height, width = _pixel_size(grey.geometry.shape, grey.geometry.spacing)
    colours = {r.value: COLOURS[i % len(COLOURS)] for i, r in enumerate(labels.regions.values())}

    def frame(index: int) -> Image.Image:
        return _draw(shown[index], values[index], (width, height), colours, f"{index + 1} / {len(shown)}")

    name = segmentation.name.removesuffix(".gz").rpartition(".")[0]
    targets = segmentation.with_name(f"{name}.png"), segmentation.with_name(f"{name}.gif")
    with write_beside(targets[0]) as temporary:
        _montage([frame(i) for i in _spread(_occupied(values), PNG_SLICES)]).save(temporary)
    frames = [frame(i).quantize(128) for i in _spread((0, len(shown)), GIF_FRAMES)]
    with write_beside(targets[1]) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    return targets


def outlines(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return the pixels of a slice (Y, X) that belong to a label and have a neighbour of another value."""
    padded = np.pad(values, 1)
    inner = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    edge: NDArray[np.bool_] = np.any([inner != other for other in neighbours], axis=0) & (inner != 0)
    return edge


def _window(array: NDArray[np.float32]) -> Pixels:
    """Return the image as bytes, between the two percentiles of what is not 0."""
    inside = array[array != 0]
    low, high = np.percentile(inside, (DARKEST, BRIGHTEST)) if inside.size else (0.0, 1.0)
    scaled = np.clip((array - low) / max(high - low, 1e-6), 0, 1)
    return (255 * scaled).astype(np.uint8)


def _pixel_size(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[int, int]:
    """Return height and width of a picture whose pixels are square in mm and whose longer side is the largest."""
    height, width = shape[1] * spacing[1], shape[2] * spacing[2]
    scale = LARGEST_SIDE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _occupied(values: NDArray[np.integer]) -> tuple[int, int]:
    """Return the first slice with a label and the one after the last; all slices where there is no label."""
    found = np.flatnonzero(values.any(axis=(1, 2)))
    return (int(found[0]), int(found[-1]) + 1) if found.size else (0, len(values))


def _spread(extent: tuple[int, int], count: int) -> list[int]:
    """Return up to ``count`` slices, evenly over an extent."""
    low, high = extent
    return sorted({int(index) for index in np.linspace(low, high - 1, min(count, high - low)).round()})


def _draw(
    grey: Pixels,
    values: NDArray[np.integer],
    size: tuple[int, int],
    colours: dict[int, tuple[int, int, int]],
    text: str,
) -> Image.Image:
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    columns = (np.arange(size[0]) * values.shape[1]) // size[0]
    rows = (np.arange(size[1]) * values.shape[0]) // size[1]
    large = values[rows[:, None], columns]
    edge, pixels = outlines(large), np.array(picture)
    for value, colour in colours.items():
        pixels[edge & (large == value)] = colour
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).text((4, 4), text, fill=(255, 255, 255))
    return picture


def _montage(frames: list[Image.Image]) -> Image.Image:
    width, height = frames[0].size
    columns = min(PNG_COLUMNS, len(frames))
    result = Image.new("RGB", (columns * width, -(-len(frames) // columns) * height))
    for index, frame in enumerate(frames):
        result.paste(frame, (index % columns * width, index // columns * height))
    return result
