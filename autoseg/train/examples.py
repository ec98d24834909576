"""Slices of a validation patch, the same in every epoch, with the reference and what the network makes of them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from autoseg.preprocess.preview import COLOURS

NUM_SLICES = 3
NUM_PICTURES = 25
"""About so many times in a training the slices are kept, evenly, the first and the last epoch among them."""

EDGE, GAP = 224, 4
"""Pixels of the longer edge of a slice, and between slices."""

STRENGTH = 0.45
"""Part of a region's colour where it covers the image."""


@dataclass(frozen=True)
class Examples:
    """Slices of a patch.

    Attributes:
        image: float32 (N, Y, X), of the first channel.
        reference, predicted: bool (N, regions, Y, X).
    """

    image: NDArray[np.float32]
    reference: NDArray[np.bool_]
    predicted: NDArray[np.bool_]


def is_due(epoch: int, epochs: int) -> bool:
    """Return whether the slices of an epoch, counted from 1, are to be kept."""
    return epoch in (1, epochs) or epoch % max(1, round(epochs / NUM_PICTURES)) == 0


@torch.no_grad()
def take_examples(
    images: torch.Tensor, classes: torch.Tensor, logits: torch.Tensor, membership: torch.Tensor, *, overlapping: bool
) -> Examples:
    """Take slices of the last patch of a batch, which holds foreground if any does; in 2-D, of the last patches.

    ``images`` is (B, C, Z, Y, X), ``classes`` (B, Z, Y, X), ``logits`` (B, outputs, Z, Y, X), with an output a region
    if these overlap, else a class; ``membership`` is bool (regions, classes).
    """
    samples, depths = _places(len(images), images.shape[2])
    image, reference = images[samples, 0, depths], classes[samples, depths].clamp(min=0).long()
    scores = logits[samples, :, depths]
    found = scores > 0 if overlapping else membership[:, scores.argmax(1)].transpose(0, 1)
    there = membership[:, reference].transpose(0, 1)
    return Examples(image.float().cpu().numpy(), there.cpu().numpy(), found.cpu().numpy())


def draw_examples(examples: Examples) -> NDArray[np.uint8]:
    """Return a picture (Y, X, 3): a row for each slice, of the image, the reference and the prediction."""
    low, high = np.percentile(examples.image, (0.5, 99.5))
    grey = ((examples.image - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    nothing = np.zeros_like(examples.reference)
    shown = (nothing, examples.reference, examples.predicted)
    columns = [[_draw_slice(*one) for one in zip(grey, regions)] for regions in shown]
    height, width = columns[0][0].shape[:2]
    rows, gap = len(grey), GAP
    picture = np.full((rows * (height + gap) - gap, 3 * (width + gap) - gap, 3), 255, np.uint8)
    for across, column in enumerate(columns):
        for down, tile in enumerate(column):
            top, left = down * (height + gap), across * (width + gap)
            picture[top : top + height, left : left + width] = tile
    return picture


def _places(batch_size: int, depth: int) -> tuple[list[int], list[int]]:
    """Return sample and depth of each slice: a quarter, the middle and three quarters of the way down."""
    if depth == 1:
        count = min(NUM_SLICES, batch_size)
        return list(range(batch_size - count, batch_size)), [0] * count
    depths = sorted({min(depth * (index + 1) // (NUM_SLICES + 1), depth - 1) for index in range(NUM_SLICES)})
    return [batch_size - 1] * len(depths), depths


def _draw_slice(grey: NDArray[np.uint8], regions: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a slice (Y, X) in grey, each region (regions, Y, X) washed over it in its colour."""
    factor = EDGE / max(grey.shape)
    size = round(grey.shape[1] * factor), round(grey.shape[0] * factor)
    pixels = np.array(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB"), dtype=np.float32)
    for index, region in enumerate(regions):
        covered = np.array(Image.fromarray(region).resize(size, Image.Resampling.NEAREST))
        colour = COLOURS[index % len(COLOURS)].astype(np.float32)
        pixels[covered] = (1 - STRENGTH) * pixels[covered] + STRENGTH * colour
    return pixels.round().astype(np.uint8)
