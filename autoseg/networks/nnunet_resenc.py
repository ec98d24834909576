"""nnU-Net's residual encoder U-Net (Isensee et al. 2024, nnU-Net Revisited), planned by nnU-Net's own rule.

Residual blocks on the way down, many of them in the coarse stages; a single convolution a stage on the way up.
"""

from collections.abc import Sequence

from torch import nn

from autoseg.networks import FeatureMapBudget, nnunet_training
from autoseg.networks._blocks import ConvBlock, ResidualBlock, build_encoder_decoder
from autoseg.networks._topology import UNetConfig, derive_unet, divisor_of, stage_voxels

Config = UNetConfig

DIMENSIONS = (2, 3)

BLOCKS = (1, 3, 4)
"""Residual blocks of the first encoder stages; every further one has ``MORE_BLOCKS``."""

MORE_BLOCKS = 6

BUDGETS = {
    "": FeatureMapBudget(memory_gb=8.0, voxels_2d=135e6, voxels_3d=680e6, fits_whole_batch=True, max_coverage=0.05),
    "m": FeatureMapBudget(memory_gb=8.0, voxels_2d=135e6, voxels_3d=680e6, fits_whole_batch=True, max_coverage=1.0),
    "l": FeatureMapBudget(memory_gb=24.0, voxels_2d=380e6, voxels_3d=2100e6, fits_whole_batch=True, max_coverage=1.0),
    "xl": FeatureMapBudget(memory_gb=40.0, voxels_2d=560e6, voxels_3d=3600e6, fits_whole_batch=True, max_coverage=1.0),
}
"""nnU-Net 2.8.1: ResEncUNetPlanner and nnUNetPlannerResEncM, L and XL."""

TRAINING = nnunet_training("nnU-Net 2.8.1, nnUNetTrainer")


def derive(spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> UNetConfig:
    """Return nnU-Net's topology with 1, 3, 4, 6, 6, ... residual blocks in the encoder's stages."""
    config = derive_unet(spacing, patch_size, blocks_encoder=MORE_BLOCKS, blocks_decoder=1)
    blocks = (*BLOCKS, *config.blocks_per_stage_encoder)[: len(config.strides)]
    return config.model_copy(update={"blocks_per_stage_encoder": blocks})


def divisor(config: UNetConfig) -> tuple[int, ...]:
    """Return the product of the strides along each axis."""
    return divisor_of(config.strides)


def build(config: UNetConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Return the network: a stem that brings the image to the first stage's features, then the U-Net."""
    width = config.features_per_stage[0]
    stem = ConvBlock(in_channels, width, config.kernel_sizes[0], config.strides[0])
    return build_encoder_decoder(config, in_channels, out_channels, block=_block, decoder_block=ConvBlock, stem=stem)


def feature_map_voxels(config: UNetConfig, patch_size: Sequence[int], out_channels: int) -> int:
    """Return the voxels that all convolutions of one sample put out, as nnU-Net counts them.

    A residual block has two convolutions, and a third on its shortcut where it changes the features or is strided
    (compute_conv_feature_map_size of dynamic-network-architectures); then the stem, the decoder's convolutions and
    transposed convolutions, and the finest segmentation head.
    """
    voxels, features = stage_voxels(config, patch_size), config.features_per_stage
    total, before = features[0] * voxels[0], features[0]
    for width, count, stride, blocks in zip(features, voxels, config.strides, config.blocks_per_stage_encoder):
        projected = before != width or any(step > 1 for step in stride)
        total += width * count * (2 * blocks + projected)
        before = width
    blocks_up = reversed(config.blocks_per_stage_decoder)
    decoder = sum(width * count * (blocks + 1) for width, count, blocks in zip(features, voxels, blocks_up))
    return total + decoder + out_channels * voxels[0]


def _block(in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...]) -> nn.Module:
    """Return nnU-Net's BasicBlockD, which starts as its shortcut alone, since its last normalisation scales by 0."""
    block = ResidualBlock(in_channels, out_channels, kernel_size, stride, normalized_shortcut=True)
    nn.init.zeros_(block.norm.weight)
    return block
