"""Focal Tversky loss: a Tversky index in which classes that are found well count little."""

import torch
from pydantic import Field
from torch import nn

from autoseg.losses import tversky
from autoseg.losses._module import LossModule
from autoseg.losses._outputs import Outputs

SMALLEST = 1e-7
"""Below it an error counts as none: the gradient of a power below 1 is infinite at 0."""


class Config(tversky.Config):
    """Focal Tversky loss (Abraham and Khan, 2019), in whose text the exponent is 1/gamma.

    Attributes:
        exponent: of 1 - the index; below 1 it steepens the loss of classes that are nearly right.
    """

    exponent: float = Field(0.75, gt=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return the mean of (1 - Tversky index)^exponent of the foreground classes, or of all regions."""
    return _FocalTversky(config, outputs)


class _FocalTversky(LossModule[Config]):
    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        index = tversky.measure_index(self.config, self.outputs, logits, classes)
        return self.outputs.average_outputs((1 - index).clamp_min(SMALLEST).pow(self.config.exponent))
