"""Mirroring along the spatial axes."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import Axes, Probability, draw_flags
from autoseg.augment._rows import take_rows
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
    allowed = torch.tensor([axis in config.axes for axis in range(3)])
    return {"mirrored": draw_flags(config.probability, (shape[0], 3), generator) & allowed}


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror images and classes. The loop is over the at most seven combinations of axes."""
    mirrored = parameters["mirrored"]
    if not mirrored.any():
        return images, classes
    new_images, new_classes = images.clone(), classes.clone()
    for flags in {tuple(row) for row in mirrored.tolist()}:
        rows = (mirrored == torch.tensor(flags)).all(1).nonzero().flatten()
        index = rows.to(images.device, non_blocking=True)
        flipped = [axis - 3 for axis, flag in enumerate(flags) if flag]
        if flipped:
            new_images.index_copy_(0, index, take_rows(images, rows).flip(flipped))
            new_classes.index_copy_(0, index, take_rows(classes, rows).flip(flipped))
    return new_images, new_classes
