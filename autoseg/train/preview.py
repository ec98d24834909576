"""A contact sheet of augmented patches: a picture of what a plan's augmentation does to the images of a dataset."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from autoseg.augment._pipeline import Pipeline
from autoseg.augment.spatial import crop_centre
from autoseg.documents import write_beside
from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.preprocess.preview import COLOURS, outline
from autoseg.preprocess.store import CaseStore
from autoseg.train.loader import BatchRequest, CaseCache, Sampling, open_pool, stream_batches

NUM_PATCHES = 24
PATCHES_A_ROW = 4
EDGE = 192
"""Pixels of the longer edge of a slice."""

GAP, LINE, LETTER = 8, 14, 7
"""Pixels between pictures, and of a line and a letter of text."""

LINES = 3
"""Lines of text above a picture."""


@dataclass(frozen=True)
class _Patch:
    """A patch before and after augmentation, (C, Z, Y, X) and (Z, Y, X) each, and what was applied."""

    before: tuple[torch.Tensor, torch.Tensor]
    after: tuple[torch.Tensor, torch.Tensor]
    names: list[str]


def write_preview(
    plan: Plan, store: CaseStore, path: Path, *, num_workers: int, num_patches: int = NUM_PATCHES
) -> None:
    """Write a PNG of the first patches of a training: each one's middle slice before and after, labels outlined.

    Only the first channel is shown, in the grey values of the patch before augmentation.

    Raises:
        TrainingError: no case is preprocessed, or one cannot be read.
    """
    if not store.names():
        raise TrainingError(f"{store.folder}: no case is preprocessed, so there is nothing to show; run autoseg_plan")
    patches = list(islice(_augmented(plan, store, num_workers), num_patches))
    tiles = [_draw_patch(patch) for patch in patches]
    with write_beside(path) as temporary:
        _arrange(tiles).save(temporary, format="PNG")


def _augmented(plan: Plan, store: CaseStore, num_workers: int) -> Iterator[_Patch]:
    training = plan.training
    pipeline = Pipeline([(entry.name, entry.parameters) for entry in training.augmentation])
    sampling = Sampling(
        tuple(store.names()), "training", len(plan.dataset.channels), training.patch_shape, training.batch_size,
        1.0, training.seed, pipeline,
    )  # fmt: skip
    requests = (BatchRequest(0, iteration) for iteration in count())
    with open_pool(num_workers) as pool:
        for batch in stream_batches(requests, sampling, CaseCache(store), pool):
            before = [crop_centre(part, training.patch_shape).clone() for part in (batch.images, batch.classes)]
            images, classes, names = pipeline.apply_by_name(
                batch.images, batch.classes, batch.parameters or (), training.patch_shape
            )
            for index, applied in enumerate(names):
                yield _Patch((before[0][index], before[1][index]), (images[index], classes[index]), applied)


def _draw_patch(patch: _Patch) -> Image.Image:
    """Return both pictures side by side, above them what was applied."""
    image, classes = patch.before
    depth = int((classes > 0).sum((1, 2)).argmax()) if (classes > 0).any() else len(classes) // 2
    low, high = (float(image[0, depth].quantile(part)) for part in (0.005, 0.995))
    after_depth = int((patch.after[1] > 0).sum((1, 2)).argmax()) if (patch.after[1] > 0).any() else depth
    slices = [(image[0, depth], classes[depth]), (patch.after[0][0, after_depth], patch.after[1][after_depth])]
    pictures = [_draw_slice(*one, low, high) for one in slices]
    width = 2 * pictures[0].width + 2
    lines = _wrap(patch.names or ["not changed"], width // LETTER)
    tile = Image.new("RGB", (width, pictures[0].height + LINE * LINES), (255, 255, 255))
    for index, line in enumerate(lines[:LINES]):
        ImageDraw.Draw(tile).text((0, index * LINE), line, fill=(0, 0, 0), font=ImageFont.load_default())
    for index, picture in enumerate(pictures):
        tile.paste(picture, (index * (picture.width + 2), LINE * LINES))
    return tile


def _wrap(names: Sequence[str], length: int) -> list[str]:
    """Return the names joined by commas in lines of about ``length`` letters."""
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + len(name) > length:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{name}"
    return lines


def _draw_slice(image: torch.Tensor, classes: torch.Tensor, low: float, high: float) -> Image.Image:
    """Return a slice (Y, X) in grey between ``low`` and ``high``, with coloured outlines."""
    factor = max(EDGE // max(image.shape), 1)
    grey = ((image.numpy() - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    pixels = np.repeat(_enlarge(grey, factor)[..., None], 3, axis=2)
    large: NDArray[np.int16] = _enlarge(classes.numpy(), factor)
    edges = outline(large) & (large > 0)
    pixels[edges] = COLOURS[(large[edges] - 1) % len(COLOURS)]
    return Image.fromarray(pixels)


def _enlarge(values: NDArray[Any], factor: int) -> NDArray[Any]:
    return values.repeat(factor, axis=0).repeat(factor, axis=1)


def _arrange(tiles: Sequence[Image.Image]) -> Image.Image:
    width, height = (max(sizes) + GAP for sizes in zip(*(tile.size for tile in tiles)))
    columns = min(PATCHES_A_ROW, len(tiles))
    sheet = Image.new("RGB", (columns * width + GAP, -(-len(tiles) // columns) * height + GAP), (255, 255, 255))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (GAP + index % columns * width, GAP + index // columns * height))
    return sheet
