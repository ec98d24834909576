"""The sums that measures of overlap are made of, and the measures themselves. Ignored voxels enter no sum."""

from dataclasses import dataclass

import torch

from autoseg.losses._outputs import TINY, Outputs

SPATIAL = (2, 3, 4)


@dataclass(frozen=True)
class Overlap:
    """Sums of probabilities over known voxels; (B, R) of samples and outputs, or (1, R) of the whole batch.

    B counts the samples of all processes that train together.

    Attributes:
        shared: where the reference is the output.
        predicted: everywhere.
        reference: number of voxels where the reference is the output.
    """

    shared: torch.Tensor
    predicted: torch.Tensor
    reference: torch.Tensor


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
    sums = torch.stack([shared, predicted, members.sum(SPATIAL).to(shared.dtype)], dim=1)
    sums = outputs.gather(sums)
    return Overlap(*(part.sum(0, keepdim=True) if batch else part for part in sums.unbind(1)))


def soft_dice(overlap: Overlap, smooth: float) -> torch.Tensor:
    """Return the soft Dice of each sample and output: (2 shared + smooth) / (predicted + reference + smooth)."""
    size = overlap.predicted + overlap.reference + smooth
    return (2 * overlap.shared + smooth) / size.clamp_min(TINY)


def tversky_index(overlap: Overlap, alpha: float, beta: float, smooth: float) -> torch.Tensor:
    """Return each sample's and output's Tversky index (Salehi et al., 2017): ``alpha`` weighs false positives."""
    false_positive = overlap.predicted - overlap.shared
    false_negative = overlap.reference - overlap.shared
    size = overlap.shared + alpha * false_positive + beta * false_negative + smooth
    return (overlap.shared + smooth) / size.clamp_min(TINY)


def dice_loss(
    outputs: Outputs, probabilities: torch.Tensor, classes: torch.Tensor, *, batch: bool, smooth: float
) -> torch.Tensor:
    """Return 1 - the mean soft Dice of the foreground classes, or of all regions."""
    overlap = measure_overlap(outputs, probabilities, classes, background=False, batch=batch)
    return 1 - outputs.average_outputs(soft_dice(overlap, smooth))
