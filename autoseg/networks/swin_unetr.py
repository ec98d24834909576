"""SwinUNETR (Hatamizadeh et al. 2022, arXiv:2201.01266): a shifted-window transformer as encoder, MONAI's implementation.

Tokens of 2 voxels an axis are merged four times, so every patch axis is a multiple of 32, whatever the spacing.
"""

from typing import Any

from pydantic import Field, model_validator
from torch import nn

from autoseg.documents import Document
from autoseg.networks import TrainingDefaults
from autoseg.networks._outputs import ListedOutputs

DIMENSIONS = (2, 3)

PATCH_DIVISOR = 32
"""2 voxels a token, halved in four stages; MONAI's SwinUNETR has no other."""

TRAINING = TrainingDefaults(
    optimizer={"name": "adamw", "learning_rate": 1e-4, "betas": (0.9, 0.999), "weight_decay": 1e-5},
    schedule={"name": "cosine", "warmup_iterations": 2500},
    gradient_clip=None,
    source="SwinUNETR's authors (MONAI research-contributions, SwinUNETR/BTCV): AdamW, cosine after 1 % warm-up",
)


class Config(Document):
    """The numbers that fix a SwinUNETR.

    Attributes:
        dimensions: 2 or 3 spatial axes.
        feature_size: channels of the first stage, a multiple of 12; each stage doubles them.
        depths: transformer blocks of each of the four stages.
        num_heads: attention heads of each stage.
        window_size: edge of an attention window in tokens.
    """

    dimensions: int = Field(ge=2, le=3)
    feature_size: int = Field(default=48, ge=12, multiple_of=12)
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    num_heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window_size: int = Field(default=7, ge=2)

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if min(*self.depths, *self.num_heads) < 1:
            raise ValueError("depths and num_heads must be at least 1")
        for stage, heads in enumerate(self.num_heads):
            if self.feature_size * 2**stage % heads:
                raise ValueError(f"num_heads: stage {stage} cannot share out {self.feature_size * 2**stage} channels")
        return self


def derive(spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> Config:
    """Return the published sizes (feature size 48); neither spacing nor patch plays a part."""
    return Config(dimensions=len(spacing))


def divisor(config: Config) -> tuple[int, ...]:
    """Return 32 for each axis."""
    return (PATCH_DIVISOR,) * config.dimensions


def build(config: Config, in_channels: int, out_channels: int) -> nn.Module:
    """Return the network, which gives one resolution."""
    return ListedOutputs(_build_swin_unetr(config, in_channels, out_channels))


def _build_swin_unetr(config: Config, in_channels: int, out_channels: int) -> Any:
    from monai.networks.nets import swin_unetr  # here, since importing monai takes seconds

    return swin_unetr.SwinUNETR(
        in_channels, out_channels, depths=config.depths, num_heads=config.num_heads, window_size=config.window_size,
        feature_size=config.feature_size, spatial_dims=config.dimensions,
    )  # fmt: skip
