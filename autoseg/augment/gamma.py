"""Gamma: each channel's intensities, scaled to [0, 1], are raised to a power; mean and deviation are then restored.

A plan may have two entries, one of them inverted, as nnU-Net has.
"""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import PositiveRange, Probability, draw_factors, draw_flags
from autoseg.augment._rows import change_channels, mean_and_std, range_of, spread
from autoseg.documents import Document

EPSILON = 1e-7
"""The least range and deviation that is divided by, as in batchgeneratorsv2."""

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """nnU-Net's gamma; its inverted one has probability 0.1.

    Attributes:
        probability: of changing a sample.
        gamma: range of the exponents; below and above 1 are equally likely.
        invert: whether the power is taken of the negative image, which changes bright structures most.
    """

    probability: Probability = 0.3
    gamma: PositiveRange = (0.7, 1.5)
    invert: bool = False


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which samples are changed, (B,), and the exponents, (B, C); ``sign``, (B,), is -1 for inversion."""
    return {
        "applied": draw_flags(config.probability, shape[:1], generator),
        "gamma": draw_factors(config.gamma, shape[:2], generator),
        "sign": torch.full(shape[:1], -1.0 if config.invert else 1.0),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the powers."""
    gamma = parameters["gamma"]
    applied = parameters["applied"][:, None].expand_as(gamma)
    sign = parameters["sign"][:, None].expand_as(gamma)
    return change_channels(images, applied, _raise, gamma, sign), classes


def _raise(rows: torch.Tensor, gamma: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    sign = spread(sign, rows)
    mean, std = mean_and_std(rows)
    low, high = range_of(rows)
    start = torch.where(sign > 0, low, high)
    # Minimum and scale of the power do not matter, since mean and deviation are restored.
    powers = (rows - start).mul_(sign / (high - low).clamp_min(EPSILON)).pow_(spread(gamma, rows))
    powers = powers.mul_(high - low)
    mean_of_powers, std_of_powers = mean_and_std(powers)
    return powers.sub_(mean_of_powers).mul_(sign * std / std_of_powers.clamp_min(EPSILON)).add_(mean)
