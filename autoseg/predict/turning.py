"""Plans that order their axes differently, averaged: each one's tiles are cut along the axes of the first plan.

Tiling, importance map and mirroring treat all axes alike, so a patch whose axes are exchanged, given to the network
with its axes put back, is the patch that the plan asks for. Nothing but views is made of the image or the logits.
"""

from collections.abc import Sequence

import torch
from torch import nn

from autoseg.plan.plan import Plan
from autoseg.train.device import choose_memory_format

Order = tuple[int, int, int]
"""For each axis of the first plan the own axis (0, 1, 2) of another that runs the same way."""


def order_of_axes(own: Plan, first: Plan) -> Order:
    """Return which axis of ``own`` stands where an axis of ``first`` does."""
    z, y, x = (own.preprocessing.transpose.index(axis) for axis in first.preprocessing.transpose)
    return z, y, x


class Turned(nn.Module):
    """A network that takes images (B, C, ...) with their axes in another order, and gives its logits in that order."""

    def __init__(self, network: nn.Module, order: Order) -> None:
        """Wrap ``network``, whose own axis ``order[i]`` is the image's axis i."""
        super().__init__()
        self.network = network
        self._there = _with_batch([order.index(axis) for axis in range(3)])
        self._back = _with_batch(order)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the finest logits only."""
        turned = x.permute(self._there).contiguous(memory_format=choose_memory_format(x.device))
        outputs = self.network(turned)
        finest = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        return [finest.permute(self._back)]


def _with_batch(order: Sequence[int]) -> tuple[int, ...]:
    return 0, 1, *(2 + axis for axis in order)
