"""Attention U-Net (Oktay et al. 2018, arXiv:1804.03999): additive attention gates on every skip connection.

The convolutions and the topology are those of ``nnunet``, so a comparison with it measures the gates alone.
"""

import torch
from torch import nn
from torch.nn import functional as F

from autoseg.networks import nnunet_training
from autoseg.networks._blocks import CONVOLUTION, ConvBlock, build_encoder_decoder, convolution
from autoseg.networks._topology import UNetConfig, derive_unet, divisor_of

Config = UNetConfig

DIMENSIONS = (2, 3)

TRAINING = nnunet_training(
    "nnU-Net 2.8.1, whose convolutions and topology it has; the paper trained with Adam, batch 2 to 4"
)


def derive(spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> UNetConfig:
    """Return nnU-Net's topology for a spacing in mm and a patch size in voxels."""
    return derive_unet(spacing, patch_size, blocks_encoder=2, blocks_decoder=2)


def divisor(config: UNetConfig) -> tuple[int, ...]:
    """Return the product of the strides along each axis."""
    return divisor_of(config.strides)


def build(config: UNetConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Return the network."""
    features, strides = config.features_per_stage, config.strides
    stages = reversed(range(len(strides) - 1))
    gates = [AttentionGate(features[stage], features[stage + 1], strides[stage + 1]) for stage in stages]
    return build_encoder_decoder(config, in_channels, out_channels, block=ConvBlock, gates=gates)


class AttentionGate(nn.Module):
    """Weights each voxel of a skip by how well it agrees with the coarser features: equation 1 of the paper."""

    def __init__(self, skip_channels: int, gating_channels: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        one = (1,) * len(stride)
        inner = max(skip_channels // 2, 1)  # the authors' code halves the channels
        self.stride = stride
        # kernel = stride brings the skip onto the grid of the gating signal; one bias is enough for the sum
        self.from_skip = CONVOLUTION[len(stride)](skip_channels, inner, stride, stride, bias=False)
        self.from_gating = convolution(gating_channels, inner, one)
        self.attention = convolution(inner, 1, one)

    def forward(self, skip: torch.Tensor, gating: torch.Tensor) -> torch.Tensor:
        """Take the skip (B, C, ...) and the features one stage coarser, return the weighted skip."""
        joint = F.relu_(self.from_skip(skip).add_(self.from_gating(gating)))
        return skip * _upsample(torch.sigmoid(self.attention(joint)), self.stride)


def _upsample(x: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """Interpolate (B, 1, ...) linearly along each axis, as matrix products: torch's trilinear gradient on a GPU is
    not repeatable."""
    for axis, step in enumerate(stride, start=2):
        if step > 1:
            points = torch.eye(x.shape[axis], device=x.device)[None]
            matrix = F.interpolate(points, scale_factor=float(step), mode="linear", align_corners=False)[0]
            x = (x.transpose(axis, -1) @ matrix.to(x.dtype)).transpose(axis, -1)
    return x
