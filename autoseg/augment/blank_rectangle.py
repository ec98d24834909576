"""Blank rectangles: boxes of a channel are filled with their own mean."""

from typing import Annotated

import torch
from pydantic import AfterValidator

from autoseg.augment import Parameters
from autoseg.augment._draw import PositiveRange, Probability, draw_flags, draw_integers
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True


def _check_count(value: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= value[0] <= value[1] <= 16:
        raise ValueError("counts are [fewest, most] from 1 to 16")
    return value


class Config(Document):
    """DA5's blank rectangles.

    Attributes:
        probability: of changing a sample.
        probability_channel: of changing a channel of such a sample.
        count: fewest and most boxes in a channel.
        size: range of the edges as parts of the patch's, the end excluded.
    """

    probability: Probability = 0.4
    probability_channel: Probability = 0.5
    count: Annotated[tuple[int, int], AfterValidator(_check_count)] = (1, 4)
    size: PositiveRange = (1 / 10, 1 / 3)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which channels are changed, (B, C), and the ``start`` and ``size`` of boxes, (B, C, most, 3); 0 is none."""
    batch, channels, *patch_size = shape
    applied = draw_flags(config.probability, (batch, 1), generator)
    applied = applied & draw_flags(config.probability_channel, (batch, channels), generator)
    counts = draw_integers(config.count, (batch, channels, 1), generator)
    patch = torch.tensor(patch_size)
    smallest, end = (torch.floor(patch * part + 1e-6).long().clamp_min(1) for part in config.size)
    drawn = torch.rand((2, batch, channels, config.count[1], 3), generator=generator, dtype=torch.float64)
    size = smallest + (drawn[0] * (end - smallest).clamp_min(1)).long()
    start = (drawn[1] * (patch - size + 1)).long()
    there = (torch.arange(config.count[1]) < counts) & applied[..., None]
    return {"applied": applied, "start": start, "size": size * there[..., None]}


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill the boxes, one after another. The loop is over boxes, since these are small parts of the channels."""
    for sample_index, channel, box in (parameters["size"] > 0).all(-1).nonzero().tolist():
        start, size = (parameters[name][sample_index, channel, box].tolist() for name in ("start", "size"))
        part = images[sample_index, channel]
        for axis in range(3):
            part = part.narrow(axis, start[axis], size[axis])
        part.copy_(part.mean().expand_as(part))
    return images, classes
