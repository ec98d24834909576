"""Scores of the validation patches while training: counts of voxels, and the Dice from them."""

import torch


def count_voxels(
    logits: torch.Tensor, classes: torch.Tensor, membership: torch.Tensor, *, overlapping: bool
) -> torch.Tensor:
    """Return int64 (regions, 3): voxels that are truly, falsely, and falsely not predicted; ignored ones do not count.

    ``logits`` is (B, outputs, Z, Y, X), with an output a region if these overlap, else a class; ``classes`` is
    (B, Z, Y, X); ``membership`` is bool (regions, classes).
    """
    known = classes >= 0
    reference_classes = classes.clamp(min=0).long()
    predicted_classes = None if overlapping else logits.argmax(1)
    rows = []
    for region, members in enumerate(membership):
        predicted = logits[:, region] > 0 if predicted_classes is None else members[predicted_classes]
        reference = members[reference_classes]
        found, missed = predicted & known, ~predicted & known
        rows.append(torch.stack([(found & reference).sum(), (found & ~reference).sum(), (missed & reference).sum()]))
    return torch.stack(rows)


def pseudo_dice(counts: torch.Tensor) -> list[float | None]:
    """Return 2TP / (2TP + FP + FN) of each region, or None where the region is neither predicted nor there."""
    triples: list[list[int]] = counts.tolist()
    return [2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None for tp, fp, fn in triples]
