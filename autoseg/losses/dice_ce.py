"""Soft Dice and cross-entropy, nnU-Net's loss."""

import torch
from pydantic import Field
from torch import nn

from autoseg.documents import Document
from autoseg.losses._outputs import Outputs
from autoseg.losses._overlap import dice_loss


class Config(Document):
    """nnU-Net's loss; its value is higher by 1, so that 0 is perfect.

    Attributes:
        batch_dice: whether the batch counts as one large image, which steadies the Dice of small structures.
        smooth: added to numerator and denominator of the Dice, in voxels.
        weight_dice: of the Dice.
        weight_ce: of the cross-entropy; a binary one of each region where these overlap.
    """

    batch_dice: bool = False
    smooth: float = Field(1e-5, ge=0)
    weight_dice: float = Field(1.0, ge=0)
    weight_ce: float = Field(1.0, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return weighted 1 - mean soft Dice of the foreground classes, or of all regions, plus mean cross-entropy."""
    return _DiceCe(config, outputs)


class _DiceCe(nn.Module):
    def __init__(self, config: Config, outputs: Outputs) -> None:
        super().__init__()
        self.config = config
        self.outputs = outputs

    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        config, outputs = self.config, self.outputs
        log_probabilities = outputs.log_probabilities(logits)
        probabilities = log_probabilities.exp()
        dice = dice_loss(outputs, probabilities, classes, batch=config.batch_dice, smooth=config.smooth)
        entropy = outputs.average_voxels(outputs.cross_entropy(logits, log_probabilities, classes), classes)
        return config.weight_dice * dice + config.weight_ce * entropy
