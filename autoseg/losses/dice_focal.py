"""Soft Dice and focal loss: overlap, and voxels that are hard."""

import torch
from pydantic import Field
from torch import nn

from autoseg.losses._module import DiceAnd, DiceConfig, Predicted
from autoseg.losses._outputs import Outputs
from autoseg.losses.focal import focus


class Config(DiceConfig):
    """Soft Dice plus focal loss (Zhu et al., AnatomyNet, 2019).

    Attributes:
        gamma: exponent of the probability of being wrong; 0 is cross-entropy.
        weight_focal: of the focal loss.
    """

    gamma: float = Field(2.0, ge=0)
    weight_focal: float = Field(1.0, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return weighted 1 - mean soft Dice of the foreground classes, or of all regions, plus the focal loss."""
    return _DiceFocal(config, outputs)


class _DiceFocal(DiceAnd[Config]):
    def measure_rest(self, predicted: Predicted) -> torch.Tensor:
        values = focus(self.find_entropy(predicted), self.config.gamma)
        return self.config.weight_focal * self.outputs.average_voxels(values, predicted.classes)
