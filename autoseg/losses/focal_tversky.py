"""Focal Tversky loss: a Tversky index in which classes that are found well count little."""

import torch
from pydantic import Field
from torch import nn

from autoseg.documents import Document
from autoseg.losses._outputs import Outputs
from autoseg.losses._overlap import measure_overlap, tversky_index

SMALLEST = 1e-7
"""Below it an error counts as none: the gradient of a power below 1 is infinite at 0."""


class Config(Document):
    """Focal Tversky loss (Abraham and Khan, 2019), in whose text the exponent is 1/gamma.

    Attributes:
        alpha: weight of false positives.
        beta: weight of false negatives; more than ``alpha`` finds more of small structures.
        exponent: of 1 - the index; below 1 it steepens the loss of classes that are nearly right.
        batch_dice: whether the batch counts as one large image.
        smooth: added to numerator and denominator, in voxels.
    """

    alpha: float = Field(0.3, ge=0)
    beta: float = Field(0.7, ge=0)
    exponent: float = Field(0.75, gt=0)
    batch_dice: bool = False
    smooth: float = Field(1e-5, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return the mean of (1 - Tversky index)^exponent of the foreground classes, or of all regions."""
    return _FocalTversky(config, outputs)


class _FocalTversky(nn.Module):
    def __init__(self, config: Config, outputs: Outputs) -> None:
        super().__init__()
        self.config = config
        self.outputs = outputs

    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        config = self.config
        probabilities = self.outputs.log_probabilities(logits).exp()
        overlap = measure_overlap(self.outputs, probabilities, classes, background=False, batch=config.batch_dice)
        index = tversky_index(overlap, config.alpha, config.beta, config.smooth)
        return self.outputs.average_outputs((1 - index).clamp_min(SMALLEST).pow(config.exponent))
