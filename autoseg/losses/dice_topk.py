"""Soft Dice and the cross-entropy of the hardest voxels."""

import math

import torch
from pydantic import Field
from torch import nn

from autoseg.documents import Document
from autoseg.losses._outputs import TINY, Outputs
from autoseg.losses._overlap import dice_loss


class Config(Document):
    """Soft Dice plus cross-entropy over the worst voxels of the batch (Wu et al., 2016; nnU-Net's DiceTopK10).

    Attributes:
        batch_dice: whether the batch counts as one large image, which steadies the Dice of small structures.
        smooth: added to numerator and denominator of the Dice, in voxels.
        share: part of the known voxels that counts, in (0, 1]; 1 is the whole cross-entropy.
        weight_dice: of the Dice.
        weight_topk: of the cross-entropy.
    """

    batch_dice: bool = False
    smooth: float = Field(1e-5, ge=0)
    share: float = Field(0.1, gt=0, le=1)
    weight_dice: float = Field(1.0, ge=0)
    weight_topk: float = Field(1.0, ge=0)


def build(config: Config, outputs: Outputs) -> nn.Module:
    """Return weighted 1 - mean soft Dice plus the mean cross-entropy of the hardest voxels."""
    return _DiceTopK(config, outputs)


class _DiceTopK(nn.Module):
    def __init__(self, config: Config, outputs: Outputs) -> None:
        super().__init__()
        self.config = config
        self.outputs = outputs

    def forward(self, logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        config, outputs = self.config, self.outputs
        log_probabilities = outputs.log_probabilities(logits)
        probabilities = log_probabilities.exp()
        dice = dice_loss(outputs, probabilities, classes, batch=config.batch_dice, smooth=config.smooth)
        entropy = outputs.cross_entropy(logits, log_probabilities, classes)
        return config.weight_dice * dice + config.weight_topk * self._average_hardest(entropy, classes)

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
