"""Soft Dice and cross-entropy, nnU-Net's loss."""

import torch
from pydantic import Field
from torch import nn

from autoseg.losses._module import DiceAnd, DiceConfig, Predicted
from autoseg.losses._outputs import Outputs


class Config(DiceConfig):
    """nnU-Net's loss; its value is higher by 1, so that 0 is perfect.

    Attributes:
        weight_ce: of the cross-entropy; a binary one of each region where these overlap.
    """

    weight_ce: float = Field(1.0, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return weighted 1 - mean soft Dice of the foreground classes, or of all regions, plus mean cross-entropy."""
    return _DiceCe(config, outputs)


class _DiceCe(DiceAnd[Config]):
    def measure_rest(self, predicted: Predicted) -> torch.Tensor:
        entropy = self.outputs.average_voxels(self.find_entropy(predicted), predicted.classes)
        return self.config.weight_ce * entropy
