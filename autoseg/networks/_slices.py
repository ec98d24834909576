"""Networks for volumes whatever they are inside: batches stay (B, C, Z, Y, X) everywhere outside the network.

Networks in 2-D get volumes of a single slice.
"""

from typing import Any

import torch
from torch import nn

from autoseg.networks import Architecture
from autoseg.networks._previous import SecondStage


class SliceNetwork(nn.Module):
    """Takes (B, C, 1, Y, X) and returns a list of logits (B, R, 1, Y, X) of a network in 2-D."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits, finest first."""
        return [logits.unsqueeze(2) for logits in self.network(x.squeeze(2))]


def build_for_volumes(
    architecture: Architecture,
    config: Any,
    in_channels: int,
    out_channels: int,
    *,
    dimensions: int,
    num_previous: int = 0,
) -> nn.Module:
    """Return an architecture's network; one in 2-D is wrapped so that it takes volumes of one slice.

    With ``num_previous`` classes of a previous stage it takes one more channel, the map of these classes.
    """
    network = architecture.build(config, in_channels + num_previous, out_channels)
    network = SliceNetwork(network) if dimensions == 2 else network
    return SecondStage(network, num_previous) if num_previous else network
