"""What the losses share: what a network's outputs mean, and the sums that measures of overlap are made of.

Everything is computed in float32 at least, whatever the logits come in. Ignored voxels belong to no output and enter no
sum. References are bool: a float32 indicator of every class would be the largest tensor of a training step.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from autoseg.data.labels import Labels

SPATIAL = (2, 3, 4)


@dataclass(frozen=True)
class Overlap:
    """Sums of probabilities over known voxels; (B, R) of samples and outputs, or (1, R) of the whole batch.

    Attributes:
        shared: where the reference is the output.
        predicted: everywhere.
        reference: number of voxels where the reference is the output.
    """

    shared: torch.Tensor
    predicted: torch.Tensor
    reference: torch.Tensor


class Outputs(nn.Module):
    """The meaning of a network's outputs: classes with a softmax, or overlapping regions with a sigmoid each.

    Attributes:
        overlapping: whether these are regions.
        first_foreground: the first output that is no background.
    """

    membership: torch.Tensor

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.overlapping = labels.overlapping
        self.first_foreground = 0 if labels.overlapping else 1
        self.register_buffer("membership", torch.from_numpy(labels.membership()), persistent=False)

    def find_members(self, classes: torch.Tensor, *, first: int = 0) -> torch.Tensor:
        """Return bool (B, R, Z, Y, X): which outputs, from ``first`` on, a voxel belongs to; none if it is ignored."""
        if self.overlapping:
            regions = self.membership[first:, classes.clamp_min(0).long()] & (classes >= 0)
            return regions.transpose(0, 1)
        numbers = torch.arange(first, self.membership.shape[1], dtype=classes.dtype, device=classes.device)
        return classes[:, None] == numbers.view(1, -1, 1, 1, 1)

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of each output's probability, in float32 at least."""
        logits = at_least_float32(logits)
        return F.logsigmoid(logits) if self.overlapping else F.log_softmax(logits, dim=1)

    def cross_entropy(
        self, logits: torch.Tensor, log_probabilities: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        """Return each voxel's cross-entropy, 0 where ignored: (B, Z, Y, X); or (B, R, Z, Y, X), one a region."""
        if not self.overlapping:
            return F.nll_loss(log_probabilities, classes.long(), ignore_index=-1, reduction="none")
        logits = at_least_float32(logits)
        own = F.logsigmoid(torch.where(self.find_members(classes), logits, -logits))
        return -torch.where((classes >= 0)[:, None], own, 0)


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Return ``logits`` in float32, or as they are if in float64."""
    return logits if logits.dtype == torch.float64 else logits.float()


def average_known(values: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the mean over known voxels of ``values``, (B, Z, Y, X) or (B, R, Z, Y, X), which are 0 elsewhere."""
    outputs = values.numel() // classes.numel()
    return values.sum() / ((classes >= 0).sum() * outputs).clamp_min(1)


def measure_overlap(
    outputs: Outputs, probabilities: torch.Tensor, classes: torch.Tensor, *, background: bool, batch: bool
) -> Overlap:
    """Return the sums of ``probabilities`` (B, R, Z, Y, X), without the background's unless asked for."""
    first = 0 if background else outputs.first_foreground
    probabilities = probabilities[:, first:]
    members = outputs.find_members(classes, first=first)
    zero = probabilities.new_zeros(())
    shared = torch.where(members, probabilities, zero).sum(SPATIAL)
    predicted = torch.where((classes >= 0)[:, None], probabilities, zero).sum(SPATIAL)
    sums = shared, predicted, members.sum(SPATIAL).to(shared.dtype)
    return Overlap(*(part.sum(0, keepdim=True) if batch else part for part in sums))


def soft_dice(overlap: Overlap, smooth: float) -> torch.Tensor:
    """Return the soft Dice of each sample and output: (2 shared + smooth) / (predicted + reference + smooth)."""
    size = overlap.predicted + overlap.reference + smooth
    return (2 * overlap.shared + smooth) / size.clamp_min(1e-8)
