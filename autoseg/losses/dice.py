"""Soft Dice alone."""

import torch
from pydantic import Field
from torch import nn

from autoseg.documents import Document
from autoseg.losses._module import LossModule
from autoseg.losses._outputs import Outputs
from autoseg.losses._overlap import dice_loss


class Config(Document):
    """Soft Dice (Milletari et al., V-Net, 2016).

    Attributes:
        batch_dice: whether the batch counts as one large image, which steadies the Dice of small structures.
        smooth: added to numerator and denominator, in voxels.
    """

    batch_dice: bool = False
    smooth: float = Field(1e-5, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return 1 - the mean soft Dice of the foreground classes, or of all regions."""
    return _Dice(config, outputs)


class _Dice(LossModule[Config]):
    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        probabilities = self.outputs.log_probabilities(logits).exp()
        config = self.config
        return dice_loss(self.outputs, probabilities, classes, batch=config.batch_dice, smooth=config.smooth)
