"""UNETR (Hatamizadeh et al. 2022, arXiv:2103.10504): a vision transformer as encoder, MONAI's implementation.

The transformer sees 16-voxel cubes, so every patch axis is a multiple of 16, and the patch size is part of the network.
"""

from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from autoseg.documents import Document
from autoseg.networks import TrainingDefaults
from autoseg.networks._outputs import ListedOutputs
from autoseg.networks._topology import pad_to_multiple

DIMENSIONS = (2, 3)

TOKEN_EDGE = 16
"""Edge of the cube of voxels that becomes one token; MONAI's UNETR has no other."""

TRAINING = TrainingDefaults(
    optimizer={"name": "adamw", "learning_rate": 1e-4, "betas": (0.9, 0.999), "weight_decay": 1e-5},
    schedule={"name": "cosine", "warmup_iterations": 2500},
    gradient_clip=None,
    source="UNETR's authors (MONAI research-contributions, UNETR/BTCV): AdamW, cosine after 1 % warm-up",
)


class Config(Document):
    """The numbers that fix a UNETR.

    Attributes:
        patch_size: voxels of the patch; multiples of 16.
        feature_size: channels at full resolution.
        hidden_size: length of a token.
        mlp_dim: width of the transformer's feed-forward layers.
        num_heads: attention heads.
        proj_type: how a cube becomes a token: one convolution, or a linear layer.
        norm: normalisation of the convolutional blocks.
        dropout: probability of dropping a unit of the transformer.
    """

    patch_size: tuple[int, ...] = Field(min_length=2, max_length=3)
    feature_size: int = Field(default=16, ge=1)
    hidden_size: int = Field(default=768, ge=1)
    mlp_dim: int = Field(default=3072, ge=1)
    num_heads: int = Field(default=12, ge=1)
    proj_type: Literal["conv", "perceptron"] = "conv"
    norm: Literal["instance", "batch"] = "instance"
    dropout: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if any(size % TOKEN_EDGE or size < TOKEN_EDGE for size in self.patch_size):
            raise ValueError(f"patch_size: {list(self.patch_size)}, but UNETR needs multiples of {TOKEN_EDGE}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size: {self.hidden_size} cannot be shared out among {self.num_heads} heads")
        return self


def derive(spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> Config:
    """Return the configuration for a patch size, padded to multiples of 16; the spacing plays no part."""
    return Config(patch_size=pad_to_multiple(patch_size, (TOKEN_EDGE,) * len(patch_size)))


def divisor(config: Config) -> tuple[int, ...]:
    """Return the edge of a token along each axis."""
    return (TOKEN_EDGE,) * len(config.patch_size)


def build(config: Config, in_channels: int, out_channels: int) -> nn.Module:
    """Return the network, which takes patches of exactly ``config.patch_size``."""
    return ListedOutputs(_build_unetr(config, in_channels, out_channels))


def _build_unetr(config: Config, in_channels: int, out_channels: int) -> Any:
    from monai.networks.nets import unetr  # here, since importing monai takes seconds

    network = unetr.UNETR(
        in_channels, out_channels, config.patch_size, feature_size=config.feature_size, hidden_size=config.hidden_size,
        mlp_dim=config.mlp_dim, num_heads=config.num_heads, proj_type=config.proj_type, norm_name=config.norm,
        dropout_rate=config.dropout, spatial_dims=len(config.patch_size),
    )  # fmt: skip
    for block in network.vit.blocks:
        if not block.with_cross_attention and isinstance(block.norm_cross_attn, nn.Module):
            block.norm_cross_attn = nn.Identity()  # MONAI makes it but never runs it, so it would get no gradient
    return network
