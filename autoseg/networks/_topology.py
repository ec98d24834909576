"""The topology that U-Nets of every kind share: where they downsample, with which kernels, how wide they are.

The rule is nnU-Net's (Isensee et al. 2021, supplementary note 2; get_pool_and_conv_props of nnU-Net 2.8.1): axes are
halved from fine to coarse until all spacings agree and as long as enough voxels are left.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import model_validator

from autoseg.documents import Document

MIN_EDGE = 4
"""Fewest voxels an axis may have in the coarsest stage (nnU-Net: UNet_featuremap_min_edge_length)."""

SIMILAR_SPACING = 2.0
"""Axes whose spacings differ by less than this factor are treated alike (nnU-Net)."""

FIRST_FEATURES = 32
"""Features of stage 0; each stage doubles them (nnU-Net: UNet_base_num_features)."""

MAX_FEATURES = {2: 512, 3: 320}
"""Most features of a stage, by number of spatial axes (nnU-Net: UNet_max_features_2d and _3d)."""


@dataclass(frozen=True)
class Topology:
    """Strides and kernel sizes of each stage, and the patch size padded to what the strides divide."""

    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]


class UNetConfig(Document):
    """The numbers that fix a U-Net; stage 0 is full resolution, and lists run from it to the coarsest stage.

    Attributes:
        strides: step of the first convolution of each stage; the first is 1 everywhere.
        kernel_sizes: kernel of every convolution of a stage.
        features_per_stage: channels of each stage.
        blocks_per_stage_encoder: blocks (for ``nnunet`` single convolutions) in each stage on the way down.
        blocks_per_stage_decoder: the same on the way up, from the coarsest of its stages to stage 0, so one fewer.
    """

    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    features_per_stage: tuple[int, ...]
    blocks_per_stage_encoder: tuple[int, ...]
    blocks_per_stage_decoder: tuple[int, ...]

    @model_validator(mode="after")
    def _check(self) -> "UNetConfig":
        stages = len(self.strides)
        if stages < 2:
            raise ValueError(f"strides: a U-Net has at least 2 stages, found {stages}")
        lengths = {
            "kernel_sizes": (len(self.kernel_sizes), stages),
            "features_per_stage": (len(self.features_per_stage), stages),
            "blocks_per_stage_encoder": (len(self.blocks_per_stage_encoder), stages),
            "blocks_per_stage_decoder": (len(self.blocks_per_stage_decoder), stages - 1),
        }
        for name, (found, wanted) in lengths.items():
            if found != wanted:
                raise ValueError(f"{name}: {found} entries, but {stages} stages need {wanted}")
        if any(
            len(entry) not in (2, 3) or len(entry) != self.dimensions for entry in (*self.strides, *self.kernel_sizes)
        ):
            raise ValueError("strides and kernel_sizes: every entry needs one number for each of the 2 or 3 axes")
        if any(step != 1 for step in self.strides[0]):
            raise ValueError(f"strides: stage 0 is full resolution, so its stride is 1, found {list(self.strides[0])}")
        if any(size % 2 == 0 or size < 1 for kernel in self.kernel_sizes for size in kernel):
            raise ValueError("kernel_sizes: only odd sizes keep the voxels in place")
        counts = (*self.features_per_stage, *self.blocks_per_stage_encoder, *self.blocks_per_stage_decoder)
        if min(*counts, *(step for stride in self.strides for step in stride)) < 1:
            raise ValueError("strides, features and blocks must all be at least 1")
        return self

    @property
    def dimensions(self) -> int:
        """Number of spatial axes: 2 or 3."""
        return len(self.strides[0])


def derive_topology(
    spacing: Sequence[float], patch_size: Sequence[float], *, min_edge: int = MIN_EDGE, max_stages: int | None = None
) -> Topology:
    """Return strides and kernels for a spacing in mm and a patch size in voxels, and the padded patch size.

    A stage halves each axis that still has two coarsest edges and whose spacing is within a factor of 2 of the finest
    such axis; an axis alone is halved only from three edges on. An axis is convolved once its spacing has come within
    a factor of 2 of the finest of all axes; the coarsest stage is convolved along all axes.
    """
    dimensions = len(spacing)
    current, size = [float(value) for value in spacing], list(patch_size)
    strides, kernels, kernel = [(1,) * dimensions], [], [1] * dimensions
    while len(strides) != max_stages:
        axes = _axes_to_halve(current, size, min_edge)
        if not axes:
            break
        finest = min(current)
        kernel = [3 if k == 3 or value / finest < SIMILAR_SPACING else 1 for k, value in zip(kernel, current)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in axes else 1 for axis in range(dimensions)))
        for axis in axes:
            current[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
    kernels.append((3,) * dimensions)
    return Topology(tuple(strides), tuple(kernels), pad_to_multiple(patch_size, divisor_of(strides)))


def derive_unet(
    spacing: Sequence[float], patch_size: Sequence[float], *, blocks_encoder: int, blocks_decoder: int
) -> UNetConfig:
    """Return the configuration of a U-Net with the same number of blocks in every stage."""
    topology = derive_topology(spacing, patch_size)
    stages = max(len(topology.strides), 2)
    missing = stages - len(topology.strides)  # a patch too small to halve gets a second stage at full resolution
    dimensions = len(spacing)
    return UNetConfig(
        strides=topology.strides + ((1,) * dimensions,) * missing,
        kernel_sizes=topology.kernel_sizes + ((3,) * dimensions,) * missing,
        features_per_stage=features_of(stages, dimensions),
        blocks_per_stage_encoder=(blocks_encoder,) * stages,
        blocks_per_stage_decoder=(blocks_decoder,) * (stages - 1),
    )


def features_of(num_stages: int, dimensions: int) -> tuple[int, ...]:
    """Return nnU-Net's features of each stage: 32, 64, ... up to 320 in 3-D and 512 in 2-D."""
    return tuple(min(FIRST_FEATURES * 2**stage, MAX_FEATURES[dimensions]) for stage in range(num_stages))


def divisor_of(strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the product of the strides along each axis: what a patch must be a multiple of."""
    return tuple(math.prod(steps) for steps in zip(*strides))


def pad_to_multiple(size: Sequence[float], divisor: Sequence[int]) -> tuple[int, ...]:
    """Return the smallest sizes not below ``size`` that are multiples of ``divisor``."""
    return tuple(max(math.ceil(n / d), 1) * d for n, d in zip(size, divisor))


def stage_voxels(config: UNetConfig, patch_size: Sequence[int]) -> list[int]:
    """Return the number of voxels of one channel in each stage."""
    size, voxels = list(patch_size), []
    for stride in config.strides:
        size = [n // step for n, step in zip(size, stride)]
        voxels.append(math.prod(size))
    return voxels


def _axes_to_halve(spacing: Sequence[float], size: Sequence[float], min_edge: int) -> list[int]:
    large = [axis for axis, n in enumerate(size) if n >= 2 * min_edge]
    if not large:
        return []
    finest = min(spacing[axis] for axis in large)
    axes = [axis for axis in large if spacing[axis] / finest < SIMILAR_SPACING]
    alone_and_small = len(axes) == 1 and size[axes[0]] < 3 * min_edge
    return [] if alone_and_small else axes
