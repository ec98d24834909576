"""Soft Dice and the cross-entropy of the hardest voxels."""

import math

import torch
from pydantic import Field
from torch import nn

from autoseg.losses._module import DiceAnd, DiceConfig, Predicted
from autoseg.losses._outputs import TINY, Outputs


class Config(DiceConfig):
    """Soft Dice plus cross-entropy over the worst voxels of the batch (Wu et al., 2016; nnU-Net's DiceTopK10).

    Attributes:
        share: part of the known voxels that counts, in (0, 1]; 1 is the whole cross-entropy.
        weight_topk: of the cross-entropy.
    """

    share: float = Field(0.1, gt=0, le=1)
    weight_topk: float = Field(1.0, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return weighted 1 - mean soft Dice plus the mean cross-entropy of the hardest voxels."""
    return _DiceTopK(config, outputs)


class _DiceTopK(DiceAnd[Config]):
    def measure_rest(self, predicted: Predicted) -> torch.Tensor:
        return self.config.weight_topk * self._average_hardest(self.find_entropy(predicted), predicted.classes)

    def _average_hardest(self, entropy: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean of the largest values; how many these are stays on the device."""
        outputs, share = self.outputs, self.config.share
        entropy, classes = outputs.gather(entropy), outputs.gather(classes.int())
        weights = outputs.weigh_values(entropy, classes)
        known = (classes >= 0).view(-1, *[1] * (entropy.dim() - classes.dim()), *classes.shape[1:]).expand_as(entropy)
        # the ignored go last: they would otherwise be level with what is perfectly right
        ranked = torch.where(known, (entropy * weights).detach(), -1).flatten()
        places = ranked.topk(math.ceil(share * ranked.numel())).indices
        wanted = torch.arange(len(places), device=places.device) < (share * known.sum()).ceil()
        chosen = weights.flatten()[places] * wanted
        return (entropy.flatten()[places] * chosen).sum() / chosen.sum().clamp_min(TINY)
