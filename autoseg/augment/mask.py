"""Masking: what lies outside the image or its nonzero mask is set to 0 again in channels that were z-scored within it.

It belongs behind the augmentations of intensity, which would else tell the network where the mask ends.
"""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import Indices
from autoseg.augment._rows import send
from autoseg.data.labels import OUTSIDE_CLASS
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """nnU-Net's masking.

    Attributes:
        channels: the channels that are masked, counted from 0.
    """

    channels: Indices = ()


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Return which channels are masked, (B, C); nothing is drawn."""
    channels = torch.tensor([channel in config.channels for channel in range(shape[1])])
    return {"masked": channels.expand(shape[:2]).clone()}


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Set the masked channels to 0 where the classes say that it is outside."""
    masked = parameters["masked"]
    if masked.any():
        reference = classes if classes.dim() == 4 else classes[:, 0]
        outside = (reference == OUTSIDE_CLASS)[:, None]
        here = send(masked[:, :, None, None, None], images.device)
        images.masked_fill_(outside & here, 0)
    return images, classes
