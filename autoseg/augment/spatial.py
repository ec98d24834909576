"""Rotation and scaling about the centre of the patch, in one interpolation.

The image is read in a box larger than the patch, see ``source_shape``, so that what turns into view is real. Samples
that are neither rotated nor scaled are not interpolated: they are the exact middle of the box.
"""

import math
from typing import Annotated

import torch
from pydantic import Field

from autoseg.augment import Parameters
from autoseg.augment._draw import Axes, PositiveRange, Probability, draw_flags, draw_uniform
from autoseg.augment._rows import take_rows
from autoseg.augment._sampling import sample_classes, sample_images
from autoseg.documents import Document

HalfRange = Annotated[float, Field(ge=0, le=180)]

SMALLEST_SCALE = 0.85
"""nnU-Net enlarges the box that it reads by 1 / 0.85; what lies outside this box is background."""

ROUNDING = 1e-4
"""Voxels that a transformed patch may reach beyond the box before another voxel is read."""


class Config(Document):
    """nnU-Net's rotation and scaling. For flat patches use rotation_degrees (180, 0, 0) and scaling_axes (1, 2).

    Attributes:
        probability_rotation: of rotating a sample, about all axes at once.
        probability_scaling: of scaling a sample, by one factor for all ``scaling_axes``.
        rotation_degrees: largest angle, to either side, about the z, y and x axis.
        scaling: range of the factors; above 1 things become smaller.
        scaling_axes: the spatial axes that are scaled.
    """

    probability_rotation: Probability = 0.2
    probability_scaling: Probability = 0.2
    rotation_degrees: tuple[HalfRange, HalfRange, HalfRange] = (30.0, 30.0, 30.0)
    scaling: PositiveRange = (0.7, 1.4)
    scaling_axes: Axes = (0, 1, 2)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which samples are transformed, (B,), and their matrices, (B, 3, 3); ``patch_size`` (B, 3) is the result's.

    A matrix takes a (z, y, x) offset in voxels from the patch's centre to that in the source.
    """
    batch = shape[0]
    rotated = draw_flags(config.probability_rotation, (batch,), generator)
    scaled = draw_flags(config.probability_scaling, (batch,), generator)
    half_range = torch.tensor(config.rotation_degrees, dtype=torch.float64).deg2rad()
    angles = half_range * draw_uniform((-1.0, 1.0), (batch, 3), generator) * rotated[:, None]
    factor = torch.where(scaled, draw_uniform(config.scaling, (batch,), generator), 1.0)
    axes = torch.tensor([axis in config.scaling_axes for axis in range(3)])
    return {
        "applied": rotated | scaled,
        "matrix": make_matrix(angles, torch.where(axes, factor[:, None], 1.0)),
        "patch_size": torch.tensor(shape[2:]).expand(batch, 3).clone(),
    }


def make_matrix(angles: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Return float32 (B, 3, 3): scaling by ``factors`` (B, 3), then rotations by ``angles`` (B, 3) about z, y and x.

    Angles are in radians; order and signs are batchgeneratorsv2's.
    """
    matrix = torch.diag_embed(factors.double())
    for axis, (first, second) in enumerate(((1, 2), (2, 0), (0, 1))):
        rotation = torch.eye(3, dtype=torch.float64).repeat(len(angles), 1, 1)
        cosine, sine = angles[:, axis].cos(), angles[:, axis].sin()
        rotation[:, first, first], rotation[:, first, second] = cosine, -sine
        rotation[:, second, first], rotation[:, second, second] = sine, cosine
        matrix = rotation @ matrix
    return matrix.float()


def source_shape(config: Config, parameters: Parameters, patch_size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smallest box about the patch's centre that all transformed patches of the batch fit into.

    It differs from the patch by whole voxels at either side, and is never larger than what nnU-Net would read.
    """
    applied = parameters["applied"]
    if not applied.any():
        return tuple(patch_size)
    extent = torch.tensor(patch_size, dtype=torch.float64) - 1
    reach = (parameters["matrix"][applied].double().abs() @ extent).amax(0).tolist()
    return tuple(
        size + 2 * math.ceil(max(min(wanted + 1 - size, most - size) / 2 - ROUNDING, 0))
        for size, wanted, most in zip(patch_size, reach, _largest_source(config, patch_size))
    )


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the patches; images linearly interpolated and 0 outside the box, classes by vote and background there."""
    patch_size = tuple(parameters["patch_size"][0].tolist())
    chosen = parameters["applied"].nonzero().flatten()
    if not len(chosen):
        return crop_centre(images, patch_size), crop_centre(classes, patch_size)
    matrix = parameters["matrix"][chosen].to(images.device, non_blocking=True)
    grid = make_grid(matrix, patch_size, tuple(images.shape[2:]))
    new_images = sample_images(take_rows(images, chosen), grid)
    new_classes = sample_classes(take_rows(classes, chosen), grid)
    return _replace(images, chosen, new_images), _replace(classes, chosen, new_classes)


def make_grid(matrix: torch.Tensor, patch_size: tuple[int, ...], source: tuple[int, ...]) -> torch.Tensor:
    """Return the grid (N, *patch, 3) of offsets transformed by ``matrix`` (N, 3, 3), as ``grid_sample`` wants it.

    It is added up, since a matrix product may be rounded to TF32 on the device, which moves positions by 0.1 voxel.
    """
    z, y, x = (_term(matrix, axis, size, source) for axis, size in enumerate(patch_size))
    return z + y + x


def _term(matrix: torch.Tensor, axis: int, size: int, source: tuple[int, ...]) -> torch.Tensor:
    """Return one axis's part in the positions; (N, 1, 1, 1, 3) with ``size`` in place of the axis."""
    shape = [1, 1, 1, 1, 1]
    shape[axis + 1] = size
    offsets = (torch.arange(size, device=matrix.device) - (size - 1) / 2).view(shape)
    column = torch.stack([matrix[:, k, axis] / (source[k] / 2) for k in (2, 1, 0)], dim=1)
    return offsets * column[:, None, None, None]


def crop_centre(volumes: torch.Tensor, patch_size: tuple[int, ...]) -> torch.Tensor:
    """Return the middle of the last three axes, contiguous."""
    for axis, size in enumerate(patch_size, start=volumes.dim() - 3):
        volumes = volumes.narrow(axis, (volumes.shape[axis] - size) // 2, size)
    return volumes.contiguous()


def _replace(volumes: torch.Tensor, rows: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """Return the middle of ``volumes`` (B, ...), with ``changed`` in place of ``rows``."""
    if len(rows) == len(volumes):
        return changed.contiguous()
    index = rows.to(volumes.device, non_blocking=True)
    patches = crop_centre(volumes, tuple(changed.shape[-3:]))
    if patches.shape == volumes.shape:  # it may be the input itself
        return patches.index_copy(0, index, changed)
    return patches.index_copy_(0, index, changed)


def _largest_source(config: Config, patch_size: tuple[int, ...]) -> tuple[float, ...]:
    """Return the box that nnU-Net reads: that of rotations about single axes, enlarged by 1 / 0.85."""
    largest = [float(size) for size in patch_size]
    for axis, degrees in enumerate(config.rotation_degrees):
        for one in range(3):
            other = 3 - axis - one
            if one != axis:
                angle = min(math.radians(degrees), math.atan2(patch_size[other], patch_size[one]))
                extent = patch_size[one] * math.cos(angle) + patch_size[other] * math.sin(angle)
                largest[one] = max(largest[one], extent)
    return tuple(
        extent / SMALLEST_SCALE if axis in config.scaling_axes else extent for axis, extent in enumerate(largest)
    )
