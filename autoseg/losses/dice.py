"""Soft Dice alone."""

import torch
from pydantic import Field
from torch import nn

from autoseg.data.labels import Labels
from autoseg.documents import Document
from autoseg.losses._overlap import Outputs, measure_overlap, soft_dice


class Config(Document):
    """Soft Dice (Milletari et al., V-Net, 2016).

    Attributes:
        batch_dice: whether the batch counts as one large image, which steadies the Dice of small structures.
        smooth: added to numerator and denominator, in voxels.
    """

    batch_dice: bool = False
    smooth: float = Field(1e-5, ge=0)


def build(config: Config, labels: Labels) -> nn.Module:
    """Return 1 - the mean soft Dice of the foreground classes, or of all regions."""
    return _Dice(config, labels)


class _Dice(nn.Module):
    def __init__(self, config: Config, labels: Labels) -> None:
        super().__init__()
        self.config = config
        self.outputs = Outputs(labels)

    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        probabilities = self.outputs.log_probabilities(logits).exp()
        overlap = measure_overlap(self.outputs, probabilities, classes, background=False, batch=self.config.batch_dice)
        return 1 - soft_dice(overlap, self.config.smooth).mean()
