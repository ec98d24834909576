"""Local gamma: each channel's intensities, scaled to [0, 1], are raised to a power where a smooth bump lies."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._bumps import draw_bumps, make_bumps
from autoseg.augment._draw import PositiveRange, Probability, draw_flags, draw_uniform
from autoseg.augment._rows import change_channels, range_of, spread
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True

EPSILON = 1e-8
"""The least range that is divided by, as in batchgeneratorsv2."""


class Config(Document):
    """DA5's local gamma.

    Attributes:
        probability: of changing a sample.
        probability_channel: of changing a channel of such a sample.
        gamma_low: range of the lower half of the exponents, which brighten.
        gamma_high: range of the upper half, which darken.
    """

    probability: Probability = 0.3
    probability_channel: Probability = 0.5
    gamma_low: PositiveRange = (0.01, 0.8)
    gamma_high: PositiveRange = (1.5, 4.0)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which channels are changed, (B, C), their bumps, (B, C, 3), and the exponents, (B, C)."""
    samples = draw_flags(config.probability, (shape[0], 1), generator)
    low = draw_uniform(config.gamma_low, shape[:2], generator)
    high = draw_uniform(config.gamma_high, shape[:2], generator)
    return {
        "applied": samples & draw_flags(config.probability_channel, shape[:2], generator),
        "gamma": torch.where(draw_flags(0.5, shape[:2], generator), low, high),
        **draw_bumps(shape, generator),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend between the channel and its power."""
    applied = parameters["applied"]
    centre, width = parameters["centre"][applied], parameters["width"][applied]

    def blend(rows: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        low, high = range_of(rows)
        extent = (high - low).clamp_min(EPSILON)
        scaled = rows.sub_(low).div_(extent)
        powers = scaled.pow(spread(gamma, rows))
        return scaled.lerp_(powers, make_bumps(centre, width, rows)).mul_(extent).add_(low)

    return change_channels(images, applied, blend, parameters["gamma"]), classes
