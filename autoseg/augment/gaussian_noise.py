"""Gaussian noise, of one strength for all channels of a sample."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import Probability, Range, draw_flags, draw_uniform
from autoseg.augment._noise import draw_noise, draw_seeds
from autoseg.augment._rows import change_samples
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """nnU-Net's noise; what it calls a variance is used as a standard deviation.

    Attributes:
        probability: of changing a sample.
        sigma: range of the standard deviation, in units of the normalised image.
    """

    probability: Probability = 0.1
    sigma: Range = (0.0, 0.1)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which samples are changed, their deviations, and the seeds of their noise, each (B,)."""
    return {
        "applied": draw_flags(config.probability, shape[:1], generator),
        "sigma": draw_uniform(config.sigma, shape[:1], generator),
        "seed": draw_seeds(shape[0], generator),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the noise. It is a function of the sample's seed, but devices of different kinds draw different noise."""
    applied = parameters["applied"]

    def add_noise(rows: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        noise = draw_noise(rows, parameters["seed"][applied])
        return rows.addcmul_(noise, sigma.view(-1, 1, 1, 1, 1))

    return change_samples(images, applied, add_noise, parameters["sigma"]), classes
