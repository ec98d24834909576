"""Mirroring along the spatial axes."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import Axes, Probability, draw_flags, select_axes
from autoseg.augment._rows import copy_mirrored
from autoseg.documents import Document


class Config(Document):
    """nnU-Net's mirroring.

    Attributes:
        axes: the spatial axes (0, 1, 2) that may be mirrored; leave out one whose sides must be told apart.
        probability: of mirroring a sample along one axis, for each axis by itself.
    """

    axes: Axes = (0, 1, 2)
    probability: Probability = 0.5


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which samples are mirrored along which axis, (B, 3)."""
    allowed = select_axes(config.axes)
    return {"mirrored": draw_flags(config.probability, (shape[0], 3), generator) & allowed}


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror images and classes."""
    mirrored = parameters["mirrored"]
    if not mirrored.any():
        return images, classes
    rows = torch.arange(len(mirrored))
    results = torch.empty_like(images), torch.empty_like(classes)
    for result, source in zip(results, (images, classes)):
        copy_mirrored(result, source, rows, mirrored)
    return results
