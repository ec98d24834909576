"""The parts that U-Nets are made of, in 2-D and 3-D: convolution blocks, residual blocks, and the encoder-decoder
itself."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from autoseg.networks._norm import SLOPE, InstanceNorm
from autoseg.networks._topology import UNetConfig

CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_AVERAGE_POOL: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}

Block = Callable[[int, int, tuple[int, ...], tuple[int, ...]], nn.Module]
"""Makes a block from input channels, output channels, kernel size and stride."""


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    stride: Sequence[int] | None = None,
    *,
    bias: bool = True,
) -> nn.Module:
    """Return a convolution that keeps the voxels in place for odd kernels; the kernel's length gives the dimensions."""
    dimensions = len(kernel_size)
    padding = tuple((size - 1) // 2 for size in kernel_size)
    step = tuple(stride or (1,) * dimensions)
    return CONVOLUTION[dimensions](in_channels, out_channels, tuple(kernel_size), step, padding, bias=bias)


class ConvBlock(nn.Module):
    """Convolution, instance normalisation, leaky ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, kernel_size, stride)
        self.norm = InstanceNorm(out_channels, activation=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, out_channels, ...)."""
        result: torch.Tensor = self.norm(self.conv(x))
        return result


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016), which is pooled where the block is strided, as in ResNet-D
    (He et al. 2019).

    The shortcut's projection is normalised on request only: it costs a quarter more memory for a U-Net of single blocks.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...],
        *, normalized_shortcut: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels, kernel_size, stride)
        self.conv = convolution(out_channels, out_channels, kernel_size)
        self.norm = InstanceNorm(out_channels, activation=False)
        self.shortcut = nn.Sequential()
        if any(step > 1 for step in stride):
            self.shortcut.append(_AVERAGE_POOL[len(stride)](stride, stride))
        if in_channels != out_channels:
            self.shortcut.append(convolution(in_channels, out_channels, (1,) * len(stride), bias=False))
            if normalized_shortcut:
                self.shortcut.append(InstanceNorm(out_channels, activation=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, out_channels, ...)."""
        result = self.norm(self.conv(self.first(x)))
        # in place: neither the normalisation's nor the addition's gradient needs its own result
        return nn.functional.leaky_relu_(result.add_(self.shortcut(x)), SLOPE)


class EncoderDecoder(nn.Module):
    """A U-Net: stages down, transposed convolutions and stages up, and one segmentation head for each resolution.

    Args:
        gates: for each decoder stage, coarse to fine, a module that takes (skip, coarser features) and returns the
            skip to use.
    """

    def __init__(
        self, encoder: Sequence[nn.Module], upsampling: Sequence[nn.Module], decoder: Sequence[nn.Module],
        heads: Sequence[nn.Module], gates: Sequence[nn.Module] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.upsampling = nn.ModuleList(upsampling)
        self.gates = nn.ModuleList(gates)
        self.decoder = nn.ModuleList(decoder)
        self.heads = nn.ModuleList(heads)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Take (B, C, ...), return logits (B, R, ...) at the decoder's resolutions, finest first."""
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        outputs = []
        for index, upsample in enumerate(self.upsampling):
            skip = skips[-2 - index]
            if self.gates:
                skip = self.gates[index](skip, x)
            x = self.decoder[index](torch.cat([upsample(x), skip], dim=1))
            outputs.append(self.heads[index](x))
        return outputs[::-1]


def build_encoder_decoder(
    config: UNetConfig, in_channels: int, out_channels: int, *, block: Block, decoder_block: Block | None = None,
    gates: Sequence[nn.Module] = (), stem: nn.Module | None = None,
) -> EncoderDecoder:  # fmt: skip
    """Return an initialised U-Net of the given blocks: the first block of an encoder stage is strided.

    Args:
        decoder_block: of the way up; ``block`` by default.
        gates: see ``EncoderDecoder``.
        stem: a module that comes before stage 0 and gives its features.
    """
    features, kernels, strides = config.features_per_stage, config.kernel_sizes, config.strides
    encoder, channels = [], in_channels if stem is None else features[0]
    for width, kernel, stride, count in zip(features, kernels, strides, config.blocks_per_stage_encoder):
        encoder.append(_stage(block, channels, width, kernel, stride, count))
        channels = width
    if stem is not None:
        encoder[0].insert(0, stem)
    one = (1,) * config.dimensions
    decoder, upsampling, heads = [], [], []
    for stage in reversed(range(len(strides) - 1)):
        width, step = features[stage], strides[stage + 1]
        upsampling.append(_TRANSPOSED[config.dimensions](features[stage + 1], width, step, step))
        decoder.append(
            _stage(decoder_block or block, 2 * width, width, kernels[stage], one, config.blocks_per_stage_decoder[-1 - stage])
        )
        heads.append(convolution(width, out_channels, one))
    network = EncoderDecoder(encoder, upsampling, decoder, heads, gates)
    network.apply(initialize)
    return network


def initialize(module: nn.Module) -> None:
    """Draw a convolution's weights after He et al. (2015) for a leaky ReLU of slope 0.01; biases are 0."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _stage(
    block: Block, in_channels: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...], count: int
) -> nn.Sequential:
    steps = [stride, *[(1,) * len(stride)] * (count - 1)]
    widths = [in_channels, *[width] * count]
    return nn.Sequential(*(block(a, b, kernel, step) for (a, b), step in zip(pairwise(widths), steps)))
