"""Values at positions between voxels: images by linear interpolation, classes by a vote that amounts to the same.

nnU-Net interpolates one indicator a class. Only the eight voxels around a position can win, so that a vote among these
gives the same at a cost that does not grow with the number of classes. Beyond the volume lies what is outside.

Positions are (N, 3, D, H, W), planes of x, y and z as ``grid_sample`` means them: planes of one coordinate each are
made and read several times as fast as triples.
"""

from itertools import product

import torch
from torch.nn import functional as F

from autoseg.data.labels import OUTSIDE_CLASS

MIXED = -32700
"""Stands for a cell of eight voxels that are not all of one class; no class has this number."""

TIE = 1e-5
"""Weight of the corner's own nearness in the vote: it settles ties and is too small for anything else."""

SLAB = 1 << 18
"""Positions looked up together on the CPU, whose intermediate values fit its cache."""

VOTE = 1 << 14
"""Positions voted on together on the CPU, likewise."""


def sample_images(images: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return ``images`` (N, C, Z, Y, X) at the positions, (N, C, D, H, W); 0 outside.

    On the CPU, PyTorch interpolates each sample in one thread. There each slice of the result is made a sample.
    """
    grid = positions.permute(0, 2, 3, 4, 1)
    if images.device.type != "cpu":
        return F.grid_sample(images, grid, align_corners=False)
    slices = grid.shape[1]
    rows = [
        F.grid_sample(image.expand(slices, *image.shape), part[:, None], align_corners=False)
        for image, part in zip(images, grid)
    ]
    together = torch.stack(rows) if len(rows) > 1 else rows[0][None]
    return together[:, :, :, 0].transpose(1, 2)


def sample_classes(classes: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the classes (N, Z, Y, X) at the positions, (N, D, H, W)."""
    padded = F.pad(classes, (1, 1) * 3, value=OUTSIDE_CLASS)
    x, y, z = (plane.flatten() for plane in positions.unbind(1))
    per_sample = positions[0, 0].numel()
    if classes.device.type != "cpu":
        rows = torch.arange(len(x), device=x.device).div(per_sample, rounding_mode="floor")
        return _vote(padded, (z, y, x), rows).view(len(classes), *positions.shape[2:])
    # Nearly all positions lie among eight voxels of one class. On the CPU, where picking out the others costs no
    # waiting for the device, only they are voted on.
    result = torch.cat([_sample_cells(*sample) for sample in zip(_mark_mixed(padded), positions)])
    for mixed in torch.split((result == MIXED).nonzero().flatten(), VOTE):
        result[mixed] = _vote(padded, (z[mixed], y[mixed], x[mixed]), mixed // per_sample)
    return result.view(len(classes), *positions.shape[2:])


def _mark_mixed(padded: torch.Tensor) -> torch.Tensor:
    """Return the class of each cell, which lies between two voxels of ``padded`` along each axis, or MIXED."""
    low, high = padded, padded
    for axis in (1, 2, 3):
        count = low.shape[axis] - 1
        low = torch.minimum(low.narrow(axis, 0, count), low.narrow(axis, 1, count))
        high = torch.maximum(high.narrow(axis, 0, count), high.narrow(axis, 1, count))
    return torch.where(low == high, low, MIXED)


def _sample_cells(cells: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return what the ``cells`` (Z, Y, X) of one sample hold at its positions (3, D, H, W), flat."""
    x, y, z = positions.flatten(1)
    flat, result = cells.flatten(), cells.new_empty(len(x))
    for start in range(0, len(x), SLAB):
        part = slice(start, start + SLAB)
        index = torch.zeros((), dtype=torch.int32)
        for plane, count, step in zip((z, y, x), cells.shape, cells.stride()):
            lower = _coordinate(plane[part], count - 1).to(torch.int32).clamp_(0, count - 1)
            index = index + lower.mul_(step)
        torch.index_select(flat, 0, index, out=result[part])
    return result


def _coordinate(plane: torch.Tensor, size: int) -> torch.Tensor:
    """Return voxel coordinates along an axis of ``size`` voxels, counted from the voxel of padding before them."""
    return plane * (size / 2) + (size + 1) / 2


def _vote(padded: torch.Tensor, positions: tuple[torch.Tensor, ...], rows: torch.Tensor) -> torch.Tensor:
    """Return the winning class at the positions, z, y and x (P,) each, in the samples ``rows`` (P,) of ``padded``."""
    classes, weights = _corners(padded, positions, rows)
    scores = [weight * (1 + TIE) for weight in weights]
    alike = torch.empty_like(scores[0])
    for one in range(8):
        for other in range(one):
            torch.eq(classes[one], classes[other], out=alike)
            scores[one].addcmul_(alike, weights[other])
            scores[other].addcmul_(alike, weights[one])
    best, winner = scores[0], classes[0]
    for own_class, score in zip(classes[1:], scores[1:]):
        winner = torch.where(score > best, own_class, winner)
        best = torch.maximum(best, score)
    return winner


def _corners(
    padded: torch.Tensor, positions: tuple[torch.Tensor, ...], rows: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return classes and interpolation weights, eight of (P,) each, of the voxels around each position."""
    indices, weights = [], []
    for plane, size, step in zip(positions, padded.shape[1:], padded.stride()[1:]):
        place = _coordinate(plane, size - 2).clamp_(0, size - 1)
        lower = place.floor().clamp_max_(size - 2)
        share = place - lower
        index = lower.to(torch.int32) * step
        indices.append((index, index + step))
        weights.append((1 - share, share))
    start, flat = (rows * padded.stride(0)).to(torch.int32), padded.flatten()
    places = [start + z + y + x for z, y, x in product(*indices)]
    return [flat.index_select(0, place) for place in places], [z * y * x for z, y, x in product(*weights)]
