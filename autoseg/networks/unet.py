"""The residual U-Net: the baseline of every comparison.

The U-Net (Ronneberger et al. 2015, Cicek et al. 2016) on the planned, possibly anisotropic topology, with one
residual block of two convolutions a stage (as Zhang et al. 2018 did for U-Nets), so that it costs about what
``nnunet`` costs.
"""

from torch import nn

from autoseg.networks import nnunet_training
from autoseg.networks._blocks import ResidualBlock, build_encoder_decoder
from autoseg.networks._topology import UNetConfig, derive_unet, divisor_of

Config = UNetConfig

DIMENSIONS = (2, 3)

TRAINING = nnunet_training("nnU-Net's recipe for its residual U-Nets (Isensee et al. 2024, nnU-Net Revisited)")


def derive(spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> UNetConfig:
    """Return nnU-Net's topology with one residual block a stage, for a spacing in mm and a patch size in voxels."""
    return derive_unet(spacing, patch_size, blocks_encoder=1, blocks_decoder=1)


def divisor(config: UNetConfig) -> tuple[int, ...]:
    """Return the product of the strides along each axis."""
    return divisor_of(config.strides)


def build(config: UNetConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Return the network."""
    return build_encoder_decoder(config, in_channels, out_channels, block=ResidualBlock)
