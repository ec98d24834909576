"""Focal loss: a cross-entropy in which well classified voxels count little."""

import torch
from pydantic import Field
from torch import nn

from autoseg.data.labels import Labels
from autoseg.documents import Document
from autoseg.losses._overlap import Outputs, average_known


class Config(Document):
    """Focal loss (Lin et al., 2017).

    Attributes:
        gamma: exponent of the probability of being wrong; 0 is cross-entropy.
    """

    gamma: float = Field(2.0, ge=0)


def build(config: Config, labels: Labels) -> nn.Module:
    """Return the mean over voxels of (1 - p)^gamma (-log p), p being the probability of what is right."""
    return _Focal(config, labels)


class _Focal(nn.Module):
    def __init__(self, config: Config, labels: Labels) -> None:
        super().__init__()
        self.config = config
        self.outputs = Outputs(labels)

    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        log_probabilities = self.outputs.log_probabilities(logits)
        entropy = self.outputs.cross_entropy(logits, log_probabilities, classes)
        # 1 - p from log p; clamped, since the power's gradient at 0 is infinite for exponents below 1
        wrong = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).tiny)
        return average_known(entropy * wrong.pow(self.config.gamma), classes)
