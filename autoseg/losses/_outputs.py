"""What a network's outputs mean, and how much each counts.

Everything is computed in float32 at least, whatever the logits come in. Ignored voxels belong to no output. References
are bool: a float32 indicator of every class would be the largest tensor of a training step.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from autoseg.data.labels import Labels
from autoseg.losses._share import Share

TINY = 1e-8
"""Keeps what is divided by above 0, where nothing counts."""


class Outputs(nn.Module):
    """The meaning of a network's outputs: classes with a softmax, or overlapping regions with a sigmoid each.

    Args:
        labels: of the dataset.
        class_weights: how much a label counts, or a region where these overlap, by name; 1 where not named.
        share: which samples of the batch this process has; None: all. What averages over a batch then includes others'.

    Attributes:
        overlapping: whether these are regions.
        first_foreground: the first output that is no background.
        weights: float32 (R,), how much each output counts.
        weighted: whether these differ from 1.
    """

    membership: torch.Tensor
    weights: torch.Tensor

    def __init__(
        self, labels: Labels, class_weights: Mapping[str, float] | None = None, share: Share | None = None
    ) -> None:
        super().__init__()
        self.share = share
        self.overlapping = labels.overlapping
        self.first_foreground = 0 if labels.overlapping else 1
        self.register_buffer("membership", torch.from_numpy(labels.membership()), persistent=False)
        given = class_weights or {}
        self.weighted = any(given.get(name, 1.0) != 1.0 for name in labels.output_names)
        weights = torch.tensor([given.get(name, 1.0) for name in labels.output_names])
        self.register_buffer("weights", weights, persistent=False)

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

    def weigh_values(self, values: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return how much each of the ``values`` that ``cross_entropy`` gives counts: as its class or its region does.

        It is 0 where the voxel is ignored.
        """
        if self.overlapping:
            weights = (classes >= 0)[:, None] * self.weights.view(1, -1, 1, 1, 1)
        else:
            weights = torch.where(classes >= 0, self.weights[classes.clamp_min(0).long()], 0)
        return weights.to(values.dtype)

    def average_voxels(self, values: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean of ``values`` as ``cross_entropy`` gives them, which are 0 where ignored."""
        if not self.weighted:  # a sum and a count need no tensor of weights
            outputs = values.numel() // classes.numel()
            return self.add_up(values) / (self.add_up(classes >= 0) * outputs).clamp_min(1)
        weights = self.weigh_values(values, classes)
        return self.add_up(values * weights) / self.add_up(weights).clamp_min(TINY)

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of ``values`` (B, ...) over the whole batch."""
        if self.share is None:
            return values.sum()
        return self.share.gather(values.flatten(1).sum(1)).sum()

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the ``values`` (B, ...) of all samples of the batch, those of other processes too."""
        return values if self.share is None else self.share.gather(values)

    def average_outputs(self, values: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean of ``values`` (B, R), of all outputs or of those in the foreground."""
        weights = self.weights[-values.shape[1] :].to(values.dtype)
        return (values.mean(0) * weights).sum() / weights.sum().clamp_min(TINY)


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Return ``logits`` in float32, or as they are if in float64."""
    return logits if logits.dtype == torch.float64 else logits.float()
