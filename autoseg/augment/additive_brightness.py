"""Additive brightness: a number is added to each channel."""

import torch
from pydantic import Field

from autoseg.augment import Parameters
from autoseg.augment._draw import Probability, draw_flags
from autoseg.augment._rows import change_channels, spread
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """DA5's additive brightness.

    Attributes:
        probability: of changing a sample.
        probability_channel: of changing a channel of such a sample.
        sigma: standard deviation of the normally distributed numbers, in units of the normalised image.
    """

    probability: Probability = 0.1
    probability_channel: Probability = 0.5
    sigma: float = Field(default=0.5, ge=0)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which channels are changed, (B, C), and the numbers, (B, C)."""
    samples = draw_flags(config.probability, (shape[0], 1), generator)
    return {
        "applied": samples & draw_flags(config.probability_channel, shape[:2], generator),
        "shift": config.sigma * torch.randn(shape[:2], generator=generator),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the numbers."""
    applied = parameters["applied"]
    return change_channels(images, applied, lambda rows, s: rows.add_(spread(s, rows)), parameters["shift"]), classes
