"""Contrast: each channel's distance from its mean is scaled."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import PositiveRange, Probability, draw_factors, draw_flags
from autoseg.augment._rows import change_channels, mean_of, range_of, spread
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """nnU-Net's contrast.

    Attributes:
        probability: of changing a sample.
        probability_channel: of changing a channel of such a sample.
        factor: range of the factors; below and above 1 are equally likely.
        preserve_range: whether the result is clipped to the range that the channel had.
    """

    probability: Probability = 0.15
    probability_channel: Probability = 1.0
    factor: PositiveRange = (0.75, 1.25)
    preserve_range: bool = True


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which channels are changed, (B, C), and the factors, (B, C); ``preserved``, (B,), is the configuration's."""
    samples = draw_flags(config.probability, (shape[0], 1), generator)
    return {
        "applied": samples & draw_flags(config.probability_channel, shape[:2], generator),
        "factor": draw_factors(config.factor, shape[:2], generator),
        "preserved": torch.full(shape[:1], config.preserve_range),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale the distances from the mean, and clip if asked to."""
    change = _scale_and_clip if bool(parameters["preserved"][0]) else _scale
    return change_channels(images, parameters["applied"], change, parameters["factor"]), classes


def _scale(rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    factors = spread(factor, rows)
    shift = mean_of(rows) * (1 - factors)
    return rows.mul_(factors).add_(shift)


def _scale_and_clip(rows: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    low, high = range_of(rows)
    return _scale(rows, factor).clamp_(low, high)
