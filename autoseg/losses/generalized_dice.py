"""Generalised Dice: one Dice of all classes, each weighted by the inverse square of its volume."""

import torch
from pydantic import Field
from torch import nn

from autoseg.documents import Document
from autoseg.losses._module import LossModule
from autoseg.losses._outputs import TINY, Outputs
from autoseg.losses._overlap import measure_overlap


class Config(Document):
    """Generalised Dice (Sudre et al., 2017), background included.

    Attributes:
        batch_dice: whether the batch counts as one large image.
        smooth: added to numerator and denominator, in voxels of the smallest class.
    """

    batch_dice: bool = False
    smooth: float = Field(1e-5, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return 1 - the mean generalised Dice of the samples."""
    return _GeneralizedDice(config, outputs)


class _GeneralizedDice(LossModule[Config]):
    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        probabilities = self.outputs.log_probabilities(logits).exp()
        overlap = measure_overlap(self.outputs, probabilities, classes, background=True, batch=self.config.batch_dice)
        weights = weigh_volumes(overlap.reference) * self.outputs.weights.to(overlap.reference.dtype)
        shared = (weights * overlap.shared).sum(1)
        size = (weights * (overlap.predicted + overlap.reference)).sum(1)
        smooth = self.config.smooth
        return 1 - ((2 * shared + smooth) / (size + smooth).clamp_min(TINY)).mean()


def weigh_volumes(volumes: torch.Tensor) -> torch.Tensor:
    """Return weights (B, R) for ``volumes`` (B, R) in voxels: 1 for the smallest present and for absent ones.

    The common factor does not matter to a quotient, but without it ``smooth`` would outweigh large volumes.
    """
    smallest = torch.where(volumes > 0, volumes, torch.inf).amin(1, keepdim=True)
    return torch.where(volumes > 0, (smallest / volumes.clamp_min(1)).square(), 1)
