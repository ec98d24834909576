"""A class map outside the network, one channel a class inside it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoseg.networks import load_architecture
from autoseg.networks._previous import SecondStage
from autoseg.networks._slices import build_for_volumes


class Echo(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x]


def test_the_last_channel_becomes_one_channel_a_foreground_class() -> None:
    images = torch.randn(2, 2, 4, 5, 6)
    found = torch.randint(0, 4, (2, 4, 5, 6))
    seen = SecondStage(Echo(), 3)(torch.cat([images, found[:, None].float()], dim=1))[0]
    assert torch.equal(seen[:, :2], images)
    assert torch.equal(seen[:, 2:], F.one_hot(found, 4).permute(0, 4, 1, 2, 3)[:, 1:].float())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_networks_are_built_for_all_channels_and_take_one_more(dimensions: int) -> None:
    architecture = load_architecture("unet")
    size = (16, 16, 16)[:dimensions]
    config = architecture.derive((1.0,) * dimensions, size)
    network = build_for_volumes(architecture, config, 2, 3, dimensions=dimensions, num_previous=5)
    first = next(weights for weights in network.parameters() if weights.dim() == dimensions + 2)
    assert first.shape[1] == 7
    volume = (1, 16, 16) if dimensions == 2 else size
    x = torch.zeros(1, 3, *volume)
    assert network(x)[0].shape == (1, 3, *volume)
    other = x.clone()
    other[:, 2] = 4
    assert not torch.equal(network(x)[0], network(other)[0])
