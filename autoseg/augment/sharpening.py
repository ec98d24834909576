"""Sharpening: a part of each channel's second derivative is subtracted from it."""

import torch
from torch.nn import functional as F

from autoseg.augment import Parameters
from autoseg.augment._draw import Probability, Range, draw_flags, draw_uniform
from autoseg.augment._rows import change_channels, spread
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """DA5's sharpening.

    Attributes:
        probability: of changing a sample.
        probability_channel: of changing a channel of such a sample.
        strength: range of the part of the Laplacian that is subtracted.
    """

    probability: Probability = 0.2
    probability_channel: Probability = 0.5
    strength: Range = (0.1, 1.0)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which channels are changed, and how much, each (B, C)."""
    samples = draw_flags(config.probability, (shape[0], 1), generator)
    return {
        "applied": samples & draw_flags(config.probability_channel, shape[:2], generator),
        "strength": draw_uniform(config.strength, shape[:2], generator),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Subtract the Laplacian; the image is continued by its outermost voxels."""
    return change_channels(images, parameters["applied"], _sharpen, parameters["strength"]), classes


def _sharpen(rows: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    padded = F.pad(rows[None], (1,) * 6, mode="replicate")[0]
    inner = [slice(1, -1)] * 3
    laplacian = rows * -6
    for axis in range(3):
        for neighbour in (slice(None, -2), slice(2, None)):
            laplacian += padded[(slice(None), *inner[:axis], neighbour, *inner[axis + 1 :])]
    return rows.addcmul_(laplacian, spread(strength, rows), value=-1)
