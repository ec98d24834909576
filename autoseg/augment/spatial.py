"""Rotation, scaling and elastic deformation about the centre of the patch, in one interpolation.

The image is read in a box larger than the patch, see ``source_sizes``, so that what turns into view is real. Samples
that are not transformed are not interpolated: they are the exact middle of the box.
"""

import math
from typing import Annotated

import torch
from pydantic import Field

from autoseg.augment import Parameters
from autoseg.augment._draw import Axes, PositiveRange, Probability, Range, draw_flags, draw_uniform, select_axes
from autoseg.augment._elastic import make_displacements
from autoseg.augment._noise import draw_seeds
from autoseg.augment._rows import copy_mirrored, put_rows, send, take_rows
from autoseg.augment._sampling import sample_classes, sample_images
from autoseg.documents import Document

HalfRange = Annotated[float, Field(ge=0, le=180)]

ROUNDING = 1e-4
"""Voxels that a transformed patch may reach beyond the box before another voxel is read."""


class Config(Document):
    """nnU-Net's rotation and scaling. Flat and 2-D patches are transformed within their slices only.

    Attributes:
        probability_rotation: of rotating a sample.
        probability_rotation_axis: of rotating such a sample about an axis, for each axis by itself.
        probability_scaling: of scaling a sample.
        probability_elastic: of deforming a sample; off in nnU-Net.
        rotation_degrees: largest angle, to either side, about the z, y and x axis.
        scaling: range of the factors; above 1 things become smaller.
        scale_axes_alike: whether one factor serves all axes of a sample.
        scaling_axes: the spatial axes that are scaled and deformed.
        elastic_width: range of the width over which neighbours move alike, a Gaussian's standard deviation as a part of
            the patch's edge.
        elastic_magnitude: range of the largest displacement as a part of that width; from about 1.3 on tissue may fold.
        largest_box: the box that is read is at most the patch's, rotated, times this; what lies outside is background.
            nnU-Net's is 1 / 0.85.
    """

    probability_rotation: Probability = 0.2
    probability_rotation_axis: Probability = 1.0
    probability_scaling: Probability = 0.2
    probability_elastic: Probability = 0.0
    rotation_degrees: tuple[HalfRange, HalfRange, HalfRange] = (30.0, 30.0, 30.0)
    scaling: PositiveRange = (0.7, 1.4)
    scale_axes_alike: bool = True
    scaling_axes: Axes = (0, 1, 2)
    elastic_width: PositiveRange = (0.1, 0.25)
    elastic_magnitude: Range = (0.0, 0.5)
    largest_box: float = Field(default=1 / 0.85, ge=1)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which samples are transformed, (B,), and their matrices, (B, 3, 3); ``patch_size`` (B, 3) is the result's.

    A matrix takes a (z, y, x) offset in voxels from the patch's centre to that in the source. Before it, offsets are
    reversed along ``mirrored`` axes, (B, 3), and those of ``deformed`` samples, (B,), are displaced: by fields from
    ``field_seed``, (B,), of width ``elastic_sigma`` and ``elastic_magnitude``, (B, 3), in voxels.
    """
    batch, patch_size = shape[0], torch.tensor(shape[2:])
    axes = select_axes(config.scaling_axes)
    rotated = draw_flags(config.probability_rotation, (batch, 1), generator)
    about = rotated & draw_flags(config.probability_rotation_axis, (batch, 3), generator)
    half_range = torch.tensor(config.rotation_degrees, dtype=torch.float64).deg2rad()
    angles = half_range * draw_uniform((-1.0, 1.0), (batch, 3), generator) * about
    scaled = draw_flags(config.probability_scaling, (batch, 1), generator)
    factors = draw_uniform(config.scaling, (batch, 3), generator)
    factors = factors[:, :1].expand(batch, 3) if config.scale_axes_alike else factors
    deformed = draw_flags(config.probability_elastic, (batch,), generator)
    sigma = draw_uniform(config.elastic_width, (batch, 3), generator) * patch_size
    return {
        "applied": (angles != 0).any(1) | scaled[:, 0] | deformed,
        "matrix": make_matrix(angles, torch.where(axes & scaled, factors, 1.0)),
        "patch_size": patch_size.expand(batch, 3).clone(),
        "mirrored": torch.zeros((batch, 3), dtype=torch.bool),
        "deformed": deformed,
        "elastic_sigma": sigma,
        "elastic_magnitude": draw_uniform(config.elastic_magnitude, (batch, 3), generator) * sigma * axes,
        "elastic_axes": axes.expand(batch, 3).clone(),
        "field_seed": draw_seeds(batch, generator),
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


def source_sizes(config: Config, parameters: Parameters, patch_size: tuple[int, ...]) -> torch.Tensor:
    """Return the smallest box about the patch's centre that each transformed patch fits into, int64 (B, 3).

    It differs from the patch by whole voxels at either side, and has at most the size that ``largest_box`` allows.
    """
    size = torch.tensor(patch_size, dtype=torch.float64)
    # Displacements are at most the magnitude, to either side, once more after their mean is subtracted.
    deformed = 4 * parameters["elastic_magnitude"].double() * parameters["deformed"][:, None]
    extent = (parameters["matrix"].double().abs() @ (size - 1 + deformed)[..., None])[..., 0]
    wanted = torch.minimum(extent + 1, torch.tensor(_largest_source(config, patch_size), dtype=torch.float64))
    margin = ((wanted - size) / 2 - ROUNDING).ceil().clamp_min(0)
    return (size + 2 * margin * parameters["applied"][:, None]).long()


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the patches; images linearly interpolated and 0 outside the box, classes by vote and outside there."""
    patch_size = tuple(parameters["patch_size"][0].tolist())
    applied, mirrored = parameters["applied"], parameters["mirrored"]
    middle = crop_centre(images, patch_size), crop_centre(classes, patch_size)
    if not applied.any() and not mirrored.any():
        return middle[0].contiguous(), middle[1].contiguous()
    chosen, others = applied.nonzero().flatten(), (~applied).nonzero().flatten()
    results = tuple(part.new_empty(part.shape) for part in middle)
    for result, part in zip(results, middle):
        copy_mirrored(result, part, others, mirrored[others])
    # On the CPU one after another, since fresh memory of many samples would cost more than it is worth.
    for rows in torch.split(chosen, 1 if images.device.type == "cpu" else len(applied)):
        if len(rows):
            positions = make_positions({name: values[rows] for name, values in parameters.items()}, images)
            put_rows(results[0], rows, sample_images(take_rows(images, rows), positions))
            put_rows(results[1], rows, _sample_maps(take_rows(classes, rows), positions))
    return results[0], results[1]


def _sample_maps(classes: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return classes (N, ..., Z, Y, X) at the positions, each map by a vote of its own."""
    if classes.dim() == 4:
        return sample_classes(classes, positions)
    return torch.stack([sample_classes(part, positions) for part in classes.unbind(1)], dim=1)


def make_positions(parameters: Parameters, source: torch.Tensor) -> torch.Tensor:
    """Return the positions (N, 3, *patch) of N transformed samples in ``source`` (..., Z, Y, X), see ``_sampling``.

    They are added up, since a matrix product may be rounded to TF32 on the device, which moves positions by 0.1 voxel.
    """
    patch_size = tuple(parameters["patch_size"][0].tolist())
    half = torch.tensor(source.shape[-3:]) / 2
    columns = send((parameters["matrix"] / half[:, None]).flip(1), source.device)
    signs = send(torch.where(parameters["mirrored"], -1.0, 1.0), source.device)
    z, y, x = (_term(columns[:, :, axis] * signs[:, axis, None], axis, size) for axis, size in enumerate(patch_size))
    positions = z + (y + x)
    rows = parameters["deformed"].nonzero().flatten()
    if len(rows):
        field = _displacements(parameters, rows, source.device)
        index = send(rows, source.device)
        for axis in range(3):
            own = columns[index][:, :, axis, None, None, None]
            positions.index_add_(0, index, field[:, axis, None] * own)
    return positions


def _term(column: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Return one axis's part in the positions; (N, 3, 1, 1, 1) with ``size`` in place of the axis."""
    shape = [1, 1, 1, 1, 1]
    shape[axis + 2] = size
    offsets = torch.arange(size, device=column.device) - (size - 1) / 2
    return offsets.view(shape) * column[:, :, None, None, None]


def _displacements(parameters: Parameters, rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the displacements (N, 3, *patch) of the ``rows``, mirrored as their samples are."""
    names = ("field_seed", "elastic_sigma", "elastic_magnitude")
    seeds, sigma, magnitude = (parameters[name][rows] for name in names)
    moving = tuple(parameters["elastic_axes"][0].tolist())
    field = make_displacements(seeds, sigma, magnitude, moving, tuple(parameters["patch_size"][0].tolist()), device)
    mirrored = torch.empty_like(field, memory_format=torch.contiguous_format)
    copy_mirrored(mirrored, field, torch.arange(len(rows)), parameters["mirrored"][rows])
    return mirrored


def crop_centre(volumes: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Return a view of the middle of the last three axes."""
    for axis, length in enumerate(size, start=volumes.dim() - 3):
        volumes = volumes.narrow(axis, (volumes.shape[axis] - length) // 2, length)
    return volumes


def _largest_source(config: Config, patch_size: tuple[int, ...]) -> tuple[float, ...]:
    """Return the largest box that is read: that of rotations about single axes, enlarged."""
    largest = [float(size) for size in patch_size]
    for axis, degrees in enumerate(config.rotation_degrees):
        for one in range(3):
            other = 3 - axis - one
            if one != axis:
                angle = min(math.radians(degrees), math.atan2(patch_size[other], patch_size[one]))
                extent = patch_size[one] * math.cos(angle) + patch_size[other] * math.sin(angle)
                largest[one] = max(largest[one], extent)
    return tuple(
        extent * config.largest_box if axis in config.scaling_axes else extent for axis, extent in enumerate(largest)
    )
