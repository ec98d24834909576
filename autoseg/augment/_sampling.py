"""Values at positions between voxels: images by linear interpolation, classes by a vote that amounts to the same.

nnU-Net interpolates one indicator a class. Only the eight voxels around a position can win, so that a vote among these
gives the same at a cost that does not grow with the number of classes. Beyond the volume lies what is outside.
"""

from itertools import product

import torch
from torch.nn import functional as F

from autoseg.data.labels import OUTSIDE_CLASS

MIXED = -32700
"""Stands for a cell of eight voxels that are not all of one class; no class has this number."""

TIE = 1e-5
"""Weight of the corner's own nearness in the vote: it settles ties and is too small for anything else."""


def sample_images(images: torch.Tensor, grid: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Return ``images`` (N, C, Z, Y, X) at the positions of ``grid`` (N, D, H, W, 3), (N, C, D, H, W); 0 outside.

    On the CPU, PyTorch interpolates each sample in one thread. There each slice of the result is made a sample.
    """
    if images.device.type != "cpu":
        return F.grid_sample(images, grid, mode=mode, align_corners=False)
    slices = grid.shape[1]
    rows = [
        F.grid_sample(image.expand(slices, *image.shape), part[:, None], mode=mode, align_corners=False)
        for image, part in zip(images, grid)
    ]
    together = torch.stack(rows) if len(rows) > 1 else rows[0][None]
    return together[:, :, :, 0].transpose(1, 2)


def sample_classes(classes: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Return the classes (N, Z, Y, X) at the positions of ``grid`` (N, D, H, W, 3), as ``grid_sample`` means them."""
    padded = F.pad(classes, (1, 1) * 3, value=OUTSIDE_CLASS)
    if classes.device.type != "cpu":
        rows = torch.arange(len(grid), device=grid.device).repeat_interleave(grid[0, ..., 0].numel())
        return _vote(padded, grid.view(-1, 3), rows).view(grid.shape[:-1])
    # Nearly all positions lie among eight voxels of one class. On the CPU, where picking out the others costs no
    # waiting for the device, only they are voted on.
    result = _sample_cells(padded, grid)
    mixed = (result == MIXED).nonzero(as_tuple=True)
    result[mixed] = _vote(padded, grid[mixed], mixed[0])
    return result


def _sample_cells(padded: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Return the class of the cell in which each position lies, or MIXED.

    A cell lies between two voxels of ``padded`` along each axis. There is one cell more an axis than there are voxels
    without padding, about the same centre: hence the factor.
    """
    low, high = padded, padded
    for axis in (1, 2, 3):
        count = low.shape[axis] - 1
        low = torch.minimum(low.narrow(axis, 0, count), low.narrow(axis, 1, count))
        high = torch.maximum(high.narrow(axis, 0, count), high.narrow(axis, 1, count))
    cells = torch.where(low == high, low, MIXED).sub_(OUTSIDE_CLASS).float()  # beyond them 0 is sampled
    sizes = torch.tensor(cells.shape[:0:-1], dtype=grid.dtype)
    sampled = sample_images(cells[:, None], grid * ((sizes - 1) / sizes), mode="nearest")
    return sampled[:, 0].to(padded.dtype).add_(OUTSIDE_CLASS)


def _vote(padded: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the winning class at each of the positions (P, 3), in the samples ``rows`` (P,) of ``padded``."""
    classes, weights = _corners(padded, positions, rows)
    best, winner = torch.zeros_like(weights[0]), classes[0]
    for own_class, own_weight in zip(classes, weights):
        score = (weights * (classes == own_class)).sum(0).add_(own_weight, alpha=TIE)
        winner = torch.where(score > best, own_class, winner)
        best = torch.maximum(best, score)
    return winner


def _corners(padded: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return classes and interpolation weights, (8, P) each, of the voxels around each position."""
    start, step = rows * padded[0].numel(), padded.stride()[1:]
    indices, weights = [], []
    for axis, size in enumerate(padded.shape[1:]):
        unpadded = size - 2
        place = ((positions[:, 2 - axis] + 1) * unpadded + 1) / 2  # voxel coordinate, counted from the padding
        place = place.clamp(0, size - 1)
        lower = place.floor().clamp_max(size - 2)
        share = place - lower
        index = lower.long() * step[axis]
        indices.append((index, index + step[axis]))
        weights.append((1 - share, share))
    flat = padded.reshape(-1)
    places = [start + z + y + x for z, y, x in product(*indices)]
    return torch.stack([flat[place] for place in places]), torch.stack([z * y * x for z, y, x in product(*weights)])
