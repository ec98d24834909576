"""Networks in 2-D for volumes of a single slice: batches stay (B, C, 1, Y, X) everywhere outside the network."""

from typing import Any

import torch
from torch import nn

from autoseg.networks import Architecture


class SliceNetwork(nn.Module):
    """Takes (B, C, 1, Y, X) and returns a list of logits (B, R, 1, Y, X) of a network in 2-D."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits, finest first."""
        return [logits.unsqueeze(2) for logits in self.network(x.squeeze(2))]


def build_for_volumes(
    architecture: Architecture, config: Any, in_channels: int, out_channels: int, *, dimensions: int
) -> nn.Module:
    """Return an architecture's network; one in 2-D is wrapped so that it takes volumes of one slice."""
    network = architecture.build(config, in_channels, out_channels)
    return SliceNetwork(network) if dimensions == 2 else network
