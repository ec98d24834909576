"""Growing binary volumes by a ball, as three passes along the axes: the work grows with the radius, not its cube."""

import torch

FAR = 1 << 14
"""Squared distance, in voxels, of what is farther than any ball reaches."""


def dilate(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Return which voxels of (Z, Y, X) lie within ``radius`` voxels of a set one; beyond the volume none is set.

    Squared Euclidean distances are separable: along each axis the least of the neighbours' plus the squared offset
    (Felzenszwalb and Huttenlocher, Distance transforms of sampled functions, 2012), here cut off at the radius.
    """
    squared = torch.where(mask, 0, FAR).to(torch.int16)
    for axis, size in enumerate(mask.shape):
        nearest = squared.clone()
        for offset in range(1, min(radius, size - 1) + 1):
            count = size - offset
            for here, there in ((0, offset), (offset, 0)):
                part = nearest.narrow(axis, here, count)
                torch.minimum(part, squared.narrow(axis, there, count) + offset**2, out=part)
        squared = nearest
    return squared <= radius**2


def erode(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Return which voxels have no unset one within ``radius`` voxels; beyond the volume all are set."""
    return ~dilate(~mask, radius)
