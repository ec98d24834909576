"""nnU-Net's plain convolutional U-Net (Isensee et al. 2021, Nature Methods 18), planned by its own rule.

Two convolutions a stage on both ways; the first of an encoder stage is strided. In ``Config`` a block is one
convolution.
"""

from collections.abc import Sequence

from torch import nn

from autoseg.networks import FeatureMapBudget, nnunet_training
from autoseg.networks._blocks import ConvBlock, build_encoder_decoder
from autoseg.networks._topology import UNetConfig, derive_unet, divisor_of, stage_voxels

Config = UNetConfig

DIMENSIONS = (2, 3)

BUDGETS = {
    "": FeatureMapBudget(memory_gb=8.0, voxels_2d=85e6, voxels_3d=560e6, fits_whole_batch=False, max_coverage=0.05)
}
"""nnU-Net 2.8.1, ExperimentPlanner."""

TRAINING = nnunet_training("nnU-Net 2.8.1, nnUNetTrainer")


def derive(spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> UNetConfig:
    """Return nnU-Net's topology for a spacing in mm and a patch size in voxels."""
    return derive_unet(spacing, patch_size, blocks_encoder=2, blocks_decoder=2)


def divisor(config: UNetConfig) -> tuple[int, ...]:
    """Return the product of the strides along each axis."""
    return divisor_of(config.strides)


def build(config: UNetConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Return the network."""
    return build_encoder_decoder(config, in_channels, out_channels, block=ConvBlock)


def feature_map_voxels(config: UNetConfig, patch_size: Sequence[int], out_channels: int) -> int:
    """Return nnU-Net's stand-in for memory: the voxels that all convolutions of one sample put out.

    The sum runs over the convolutions of each encoder stage, over those and the transposed convolution of each decoder
    stage, and over the finest segmentation head (compute_conv_feature_map_size of dynamic-network-architectures).
    """
    voxels = stage_voxels(config, patch_size)
    sizes = [width * count for width, count in zip(config.features_per_stage, voxels)]
    encoder = sum(size * count for size, count in zip(sizes, config.blocks_per_stage_encoder))
    decoder = sum(size * (count + 1) for size, count in zip(sizes, reversed(config.blocks_per_stage_decoder)))
    return encoder + decoder + out_channels * voxels[0]
