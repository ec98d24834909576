"""Median filter: each voxel becomes the median of a cube around it."""

from typing import Annotated

import torch
from pydantic import AfterValidator

from autoseg.augment import Parameters
from autoseg.augment._draw import Probability, draw_flags, draw_integers
from autoseg.augment._rows import change_channels, send
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True

PART_SIZE = 1 << 25
"""Values whose medians are taken at a time: 128 MiB, which is much for a cache but little for a device."""


def _check_sizes(value: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= value[0] <= value[1] <= 9:
        raise ValueError("sizes are [smallest, largest] from 1 to 9")
    return value


class Config(Document):
    """DA5's median filter. It sorts up to 343 values for each voxel, and is by far the slowest of the augmentations.

    Attributes:
        probability: of changing a sample.
        probability_channel: of changing a channel of such a sample.
        size: smallest and largest edge of the cube in voxels.
    """

    probability: Probability = 0.1
    probability_channel: Probability = 0.5
    size: Annotated[tuple[int, int], AfterValidator(_check_sizes)] = (2, 7)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which channels are changed, and the edges of their cubes, each (B, C)."""
    samples = draw_flags(config.probability, (shape[0], 1), generator)
    return {
        "applied": samples & draw_flags(config.probability_channel, shape[:2], generator),
        "size": draw_integers(config.size, shape[:2], generator),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Filter the chosen channels. The loop is over the few sizes."""
    for size in sorted(set(parameters["size"][parameters["applied"]].tolist())):
        applied = parameters["applied"] & (parameters["size"] == size)
        images = change_channels(images, applied, lambda rows, n=size: _filter(rows, n))
    return images, classes


def _filter(rows: torch.Tensor, size: int) -> torch.Tensor:
    """Return medians like ``scipy.ndimage.median_filter``: edges are reflected, and of even counts the upper one."""
    padded = rows
    for axis in (1, 2, 3):
        padded = padded.index_select(axis, send(_reflect_edges(rows.shape[axis], size), rows.device))
    windows = padded.unfold(1, size, 1).unfold(2, size, 1).unfold(3, size, 1)
    result = torch.empty_like(rows)
    slices = max(PART_SIZE // (size**3 * rows[0, 0].numel()), 1)
    for target, part in zip(*(torch.split(part.flatten(0, 1), slices) for part in (result, windows))):
        target.copy_(part.flatten(3).kthvalue(size**3 // 2 + 1, dim=-1).values)
    return result


def _reflect_edges(length: int, size: int) -> torch.Tensor:
    """Return which voxel stands in each place of the padded axis; the outermost voxels are repeated, then the next."""
    places = torch.arange(-(size // 2), length + (size - 1) // 2).remainder(2 * length)
    return torch.minimum(places, 2 * length - 1 - places)
