"""Soft Dice and focal loss: overlap, and voxels that are hard."""

import torch
from pydantic import Field
from torch import nn

from autoseg.documents import Document
from autoseg.losses._outputs import Outputs
from autoseg.losses._overlap import dice_loss
from autoseg.losses.focal import focus


class Config(Document):
    """Soft Dice plus focal loss (Zhu et al., AnatomyNet, 2019).

    Attributes:
        batch_dice: whether the batch counts as one large image, which steadies the Dice of small structures.
        smooth: added to numerator and denominator of the Dice, in voxels.
        gamma: exponent of the probability of being wrong; 0 is cross-entropy.
        weight_dice: of the Dice.
        weight_focal: of the focal loss.
    """

    batch_dice: bool = False
    smooth: float = Field(1e-5, ge=0)
    gamma: float = Field(2.0, ge=0)
    weight_dice: float = Field(1.0, ge=0)
    weight_focal: float = Field(1.0, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return weighted 1 - mean soft Dice of the foreground classes, or of all regions, plus the focal loss."""
    return _DiceFocal(config, outputs)


class _DiceFocal(nn.Module):
    def __init__(self, config: Config, outputs: Outputs) -> None:
        super().__init__()
        self.config = config
        self.outputs = outputs

    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        config, outputs = self.config, self.outputs
        log_probabilities = outputs.log_probabilities(logits)
        probabilities = log_probabilities.exp()
        dice = dice_loss(outputs, probabilities, classes, batch=config.batch_dice, smooth=config.smooth)
        entropy = outputs.cross_entropy(logits, log_probabilities, classes)
        focal = outputs.average_voxels(focus(entropy, config.gamma), classes)
        return config.weight_dice * dice + config.weight_focal * focal
