"""Tversky index: a Dice that weighs false positives and false negatives differently."""

import torch
from pydantic import Field
from torch import nn

from autoseg.documents import Document
from autoseg.losses._module import LossModule
from autoseg.losses._outputs import Outputs
from autoseg.losses._overlap import measure_overlap, tversky_index


class Config(Document):
    """Tversky index (Salehi et al., 2017); 0.5 and 0.5 is Dice.

    Attributes:
        alpha: weight of false positives.
        beta: weight of false negatives; more than ``alpha`` finds more of small structures.
        batch_dice: whether the batch counts as one large image.
        smooth: added to numerator and denominator, in voxels.
    """

    alpha: float = Field(0.3, ge=0)
    beta: float = Field(0.7, ge=0)
    batch_dice: bool = False
    smooth: float = Field(1e-5, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return 1 - the mean Tversky index of the foreground classes, or of all regions."""
    return _Tversky(config, outputs)


class _Tversky(LossModule[Config]):
    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return 1 - self.outputs.average_outputs(measure_index(self.config, self.outputs, logits, classes))


def measure_index(config: Config, outputs: Outputs, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the Tversky index of each sample and foreground class, or region: (B, R), or (1, R) of a batch Dice."""
    probabilities = outputs.log_probabilities(logits).exp()
    overlap = measure_overlap(outputs, probabilities, classes, background=False, batch=config.batch_dice)
    return tversky_index(overlap, config.alpha, config.beta, config.smooth)
