"""Multiplicative brightness: a factor for each channel of a sample."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import PositiveRange, Probability, draw_factors, draw_flags
from autoseg.augment._rows import change_channels, spread
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """nnU-Net's brightness.

    Attributes:
        probability: of changing a sample.
        factor: range of the factors; below and above 1 are equally likely.
    """

    probability: Probability = 0.15
    factor: PositiveRange = (0.75, 1.25)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which samples are changed, (B,), and the factors, (B, C)."""
    return {
        "applied": draw_flags(config.probability, shape[:1], generator),
        "factor": draw_factors(config.factor, shape[:2], generator),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Multiply the channels by their factors."""
    factor = parameters["factor"]
    applied = parameters["applied"][:, None].expand_as(factor)
    return change_channels(images, applied, lambda rows, f: rows.mul_(spread(f, rows)), factor), classes
