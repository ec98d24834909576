"""Instance normalisation with its activation, in the form that is fastest on each device.

On a GPU these are torch's own two operations. On a CPU with channels-last tensors (in which convolutions take about
half the time), torch normalises a transposed copy, or by a slow backward pass; the closed form below needs a few
passes over memory instead.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-5
SLOPE = 0.01


class InstanceNorm(nn.Module):
    """Instance normalisation with learnt scale and shift, and optionally a leaky ReLU after it.

    Takes and returns (B, C, ...) in any floating dtype; statistics are in fp32.
    """

    def __init__(self, channels: int, *, activation: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each channel of each sample over its voxels."""
        if not _is_channels_last_on_cpu(x):
            normalized = F.instance_norm(x, None, None, self.weight, self.bias, True, 0.1, EPSILON)
            return F.leaky_relu_(normalized, SLOPE) if self.activation else normalized
        if torch.is_grad_enabled():
            result: torch.Tensor = _NormActivation.apply(  # type: ignore[no-untyped-call]
                x, self.weight, self.bias, self.activation
            )
            return result
        normalized = F.group_norm(x, x.shape[1], self.weight, self.bias, EPSILON)
        return F.leaky_relu_(normalized, SLOPE) if self.activation else normalized


class _NormActivation(torch.autograd.Function):
    """Instance normalisation and leaky ReLU with a backward pass of few, contiguous passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, activation: bool) -> torch.Tensor:
        batch, channels = x.shape[:2]
        voxels = x[0, 0].numel()
        y, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, voxels, channels, EPSILON)
        if activation:
            y = F.leaky_relu_(y, SLOPE)
        ctx.save_for_backward(x, weight, mean, rstd, y if activation else None)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, rstd, y = ctx.saved_tensors
        gradient = gradients[0]
        if y is not None:
            gradient = torch.ops.aten.leaky_relu_backward(gradient, y, SLOPE, True)
        mean, rstd = mean.float(), rstd.float()
        product = gradient * x
        total, along_x = _sum_of_voxels(gradient), _sum_of_voxels(product)
        projected = (along_x - mean * total) * rstd  # sum of gradient x normalised input, (B, C)
        # dx = scale (g - mean(g) - x_hat mean(g x_hat)) is, for each channel of each sample, a g + b x + c
        scale = weight * rstd
        slope_x = -scale * rstd * projected / x[0, 0].numel()
        offset = -scale * total / x[0, 0].numel() - slope_x * mean
        shape = (*x.shape[:2], *(1 for _ in x.shape[2:]))
        a, b, c = (t.view(shape).to(x.dtype) for t in (scale, slope_x, offset))
        # the product's memory is taken again, since touching fresh memory takes longer than the arithmetic
        result = torch.addcmul(c, x, b, out=product).addcmul_(gradient, a)
        return result, projected.sum(0), total.sum(0), None


def _sum_of_voxels(x: torch.Tensor) -> torch.Tensor:
    """Return the sums (B, C) in fp32 of a channels-last tensor.

    Slices are summed in their own dtype and then in fp32: converting all of x first takes 20 times as long.
    """
    batch, channels, slices = x.shape[:3]
    rows = x.movedim(1, -1).reshape(batch, slices, -1, channels)
    return rows.flatten(0, 1).sum(1).view(batch, slices, channels).float().sum(1)


def _is_channels_last_on_cpu(x: torch.Tensor) -> bool:
    if x.device.type != "cpu" or x.dim() not in (4, 5):
        return False
    memory_format = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return not x.is_contiguous() and x.is_contiguous(memory_format=memory_format)
