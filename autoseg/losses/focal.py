"""Focal loss: a cross-entropy in which well classified voxels count little."""

import torch
from pydantic import Field
from torch import nn

from autoseg.documents import Document
from autoseg.losses._module import LossModule
from autoseg.losses._outputs import Outputs


class Config(Document):
    """Focal loss (Lin et al., 2017).

    Attributes:
        gamma: exponent of the probability of being wrong; 0 is cross-entropy.
    """

    gamma: float = Field(2.0, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return the mean over voxels of (1 - p)^gamma (-log p), p being the probability of what is right."""
    return _Focal(config, outputs)


class _Focal(LossModule[Config]):
    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        entropy = self.outputs.cross_entropy(logits, self.outputs.log_probabilities(logits), classes)
        return self.outputs.average_voxels(focus(entropy, self.config.gamma), classes)


def focus(entropy: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the cross-entropy -log p of every voxel times (1 - p)^gamma."""
    # 1 - p from log p; clamped, since the power's gradient at 0 is infinite for exponents below 1
    wrong = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).tiny)
    return entropy * wrong.pow(gamma)
