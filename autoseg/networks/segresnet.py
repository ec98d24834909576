"""SegResNet (Myronenko 2018, arXiv:1810.11654) with deep supervision, MONAI's implementation, as Auto3DSeg trains it.

A residual U-Net with a deep encoder and one block a stage on the way up. MONAI derives strides and kernels from the
spacing: a coarse axis is neither convolved nor halved until the others have come within a factor of 2 of it.
"""

import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator
from torch import nn

from autoseg.documents import Document
from autoseg.networks import TrainingDefaults
from autoseg.networks._outputs import ListedOutputs

DIMENSIONS = (2, 3)

BLOCKS = (1, 2, 2, 4, 4)
"""Residual blocks of the encoder's stages (Auto3DSeg)."""

MIN_EDGE = 3
"""Fewest voxels of the coarsest stage along a halved axis. nnU-Net keeps 4; but MONAI's rule halves all axes together
once their spacings agree, so that with 4 a few thick slices would leave a network of three stages (autoseg's own). With
2, the gradients of its 512 features are NaN now and then on CPUs in bf16 (oneDNN in PyTorch 2.13)."""

TRAINING = TrainingDefaults(
    optimizer={"name": "adamw", "learning_rate": 2e-4, "betas": (0.9, 0.999), "weight_decay": 1e-5},
    schedule={"name": "cosine", "warmup_iterations": 2500},
    gradient_clip=None,
    source="MONAI's Auto3DSeg, its template segresnet: AdamW, cosine after 1 % warm-up",
)


class Config(Document):
    """The numbers that fix a SegResNet.

    Attributes:
        spacing: mm; its ratios decide which axes are halved first.
        features: channels of stage 0; each stage doubles them.
        blocks_per_stage_encoder: residual blocks of each stage; the decoder has one a stage.
        supervised_stages: number of resolutions that give logits.
    """

    spacing: tuple[float, ...] = Field(min_length=2, max_length=3)
    features: int = Field(default=32, ge=1)
    blocks_per_stage_encoder: tuple[int, ...] = Field(min_length=2)
    supervised_stages: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if min(self.spacing) <= 0 or min(self.blocks_per_stage_encoder) < 1:
            raise ValueError("spacing must be above 0, and every stage needs a block")
        return self


def derive(spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> Config:
    """Return Auto3DSeg's sizes with as many of its five stages as leave 3 voxels along each axis that is halved."""
    stages = len(BLOCKS)
    while stages > 2 and not _leaves_enough(strides_of(spacing, stages), patch_size):
        stages -= 1
    # in float32 places no ratio changes, and the plan stays readable
    rounded = tuple(float(f"{value:.6g}") for value in spacing)
    return Config(spacing=rounded, blocks_per_stage_encoder=BLOCKS[:stages])


def divisor(config: Config) -> tuple[int, ...]:
    """Return the product of the strides along each axis."""
    return tuple(math.prod(steps) for steps in zip(*strides_of(config.spacing, len(config.blocks_per_stage_encoder))))


def strides_of(spacing: Sequence[float], num_stages: int) -> list[tuple[int, ...]]:
    """Return the strides between the stages, as MONAI's scales_for_resolution does.

    Each axis is halved until it has come within a factor of 2 of the coarsest and then waits for the others; from then
    on all are halved.
    """
    lags = [math.floor(math.log2(max(spacing) / value)) for value in spacing]
    return [tuple(2 if stage < lag or stage >= max(lags) else 1 for lag in lags) for stage in range(num_stages - 1)]


def build(config: Config, in_channels: int, out_channels: int) -> nn.Module:
    """Return the network."""
    return ListedOutputs(_build_segresnet(config, in_channels, out_channels))


def _leaves_enough(strides: Sequence[Sequence[int]], patch_size: Sequence[float]) -> bool:
    halvings = [math.prod(steps) for steps in zip(*strides)]
    return all(size / factor >= MIN_EDGE for size, factor in zip(patch_size, halvings) if factor > 1)


def _build_segresnet(config: Config, in_channels: int, out_channels: int) -> Any:
    from monai.networks.nets import segresnet_ds  # here, since importing monai takes seconds

    stages = len(config.blocks_per_stage_encoder)
    return segresnet_ds.SegResNetDS(
        spatial_dims=len(config.spacing), init_filters=config.features, in_channels=in_channels,
        out_channels=out_channels, norm="instance", blocks_down=config.blocks_per_stage_encoder,
        dsdepth=min(config.supervised_stages, stages - 1), resolution=config.spacing,
    )  # fmt: skip
