"""MedNeXt (Roy et al. 2023, arXiv:2303.09975): a U-Net of ConvNeXt blocks, MONAI's implementation, the smallest size.

Every axis is halved four times, whatever the spacing, so every patch axis is a multiple of 16. The authors resample to
1 mm along all axes instead; here it gets the spacing of the other architectures.
"""

from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from autoseg.documents import Document
from autoseg.networks import TrainingDefaults
from autoseg.networks._outputs import ListedOutputs

DIMENSIONS = (2, 3)

TRAINING = TrainingDefaults(
    optimizer={"name": "adamw", "learning_rate": 1e-3, "betas": (0.9, 0.999), "weight_decay": 3e-5},
    schedule={"name": "poly", "exponent": 0.9, "warmup_iterations": 0},
    gradient_clip=12.0,
    source="MedNeXt's authors (MIC-DKFZ/MedNeXt): nnU-Net's trainer with AdamW at a learning rate of 1e-3",
)


class Config(Document):
    """The numbers that fix a MedNeXt; the defaults are size S of the paper, with kernels of 3.

    Attributes:
        dimensions: 2 or 3 spatial axes.
        features: channels of stage 0; each stage doubles them.
        kernel_size: of the depthwise convolutions.
        expansion_encoder: by how much a block widens, in each stage on the way down.
        expansion_bottleneck: the same in the coarsest stage.
        expansion_decoder: the same on the way up, coarse to fine.
        blocks_encoder: blocks of each stage on the way down; each of these stages is followed by a halving.
        blocks_bottleneck: blocks of the coarsest stage.
        blocks_decoder: blocks of each stage on the way up, coarse to fine.
    """

    dimensions: int = Field(ge=2, le=3)
    features: int = Field(default=32, ge=1)
    kernel_size: Literal[3, 5, 7] = 3
    expansion_encoder: tuple[int, ...] = (2, 2, 2, 2)
    expansion_bottleneck: int = Field(default=2, ge=1)
    expansion_decoder: tuple[int, ...] = (2, 2, 2, 2)
    blocks_encoder: tuple[int, ...] = (2, 2, 2, 2)
    blocks_bottleneck: int = Field(default=2, ge=1)
    blocks_decoder: tuple[int, ...] = (2, 2, 2, 2)

    @model_validator(mode="after")
    def _check(self) -> "Config":
        stages = len(self.blocks_encoder)
        lists = (self.blocks_encoder, self.blocks_decoder, self.expansion_encoder, self.expansion_decoder)
        if stages < 1 or any(len(entries) != stages or min(entries) < 1 for entries in lists):
            raise ValueError(f"blocks and expansions need one number of at least 1 for each of the {stages} stages")
        return self


def derive(spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> Config:
    """Return size S; neither spacing nor patch plays a part."""
    return Config(dimensions=len(spacing))


def divisor(config: Config) -> tuple[int, ...]:
    """Return 2 to the power of the number of halvings, for each axis."""
    return (2 ** len(config.blocks_encoder),) * config.dimensions


def build(config: Config, in_channels: int, out_channels: int) -> nn.Module:
    """Return the network with its deep supervision."""
    return ListedOutputs(_build_mednext(config, in_channels, out_channels))


def _build_mednext(config: Config, in_channels: int, out_channels: int) -> Any:
    from monai.networks.nets import mednext  # here, since importing monai takes seconds

    return mednext.MedNeXt(
        spatial_dims=config.dimensions, init_filters=config.features, in_channels=in_channels, out_channels=out_channels,
        encoder_expansion_ratio=config.expansion_encoder, decoder_expansion_ratio=config.expansion_decoder,
        bottleneck_expansion_ratio=config.expansion_bottleneck, kernel_size=config.kernel_size, deep_supervision=True,
        use_residual_connection=True, blocks_down=config.blocks_encoder, blocks_bottleneck=config.blocks_bottleneck,
        blocks_up=config.blocks_decoder, norm_type="group",
    )  # fmt: skip
