"""Soft Dice and cross-entropy, nnU-Net's loss."""

import torch
from pydantic import Field
from torch import nn

from autoseg.data.labels import Labels
from autoseg.documents import Document
from autoseg.losses._overlap import Outputs, average_known, measure_overlap, soft_dice


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


def build(config: Config, labels: Labels) -> nn.Module:
    """Return weighted 1 - mean soft Dice of the foreground classes, or of all regions, plus mean cross-entropy."""
    return _DiceCe(config, labels)


class _DiceCe(nn.Module):
    def __init__(self, config: Config, labels: Labels) -> None:
        super().__init__()
        self.config = config
        self.outputs = Outputs(labels)

    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        config, outputs = self.config, self.outputs
        log_probabilities = outputs.log_probabilities(logits)
        overlap = measure_overlap(outputs, log_probabilities.exp(), classes, background=False, batch=config.batch_dice)
        dice = soft_dice(overlap, config.smooth).mean()
        entropy = average_known(outputs.cross_entropy(logits, log_probabilities, classes), classes)
        return config.weight_dice * (1 - dice) + config.weight_ce * entropy
