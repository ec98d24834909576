"""Brightness gradient: a smooth bump of its own is added to each channel."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._bumps import draw_bumps, make_bumps
from autoseg.augment._draw import Probability, Range, draw_flags, draw_uniform
from autoseg.augment._rows import change_channels, spread
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """DA5's brightness gradient.

    Attributes:
        probability: of changing a sample.
        probability_channel: of changing a channel of such a sample.
        strength: range of the bump's height in units of the normalised image; up and down are equally likely.
    """

    probability: Probability = 0.3
    probability_channel: Probability = 0.5
    strength: Range = (1.0, 5.0)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which channels are changed, (B, C), their bumps, (B, C, 3), and the heights, (B, C)."""
    samples = draw_flags(config.probability, (shape[0], 1), generator)
    height = draw_uniform(config.strength, shape[:2], generator)
    return {
        "applied": samples & draw_flags(config.probability_channel, shape[:2], generator),
        "height": torch.where(draw_flags(0.5, shape[:2], generator), height, -height),
        **draw_bumps(shape, generator),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the bumps."""
    applied = parameters["applied"]
    centre, width = parameters["centre"][applied], parameters["width"][applied]

    def add(rows: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        return rows.addcmul_(make_bumps(centre, width, rows), spread(height, rows))

    return change_channels(images, applied, add, parameters["height"]), classes
