"""How fast a device is, and how long an epoch of a plan takes on it: a rough figure, for choosing between plans."""

from time import perf_counter

import torch
from torch.nn import functional as F

from autoseg.plan.plan import Plan

FEATURES = 64
EDGE = {"cuda": 64, "cpu": 24}
"""Voxels an axis of the convolution that is timed: enough to keep the device busy, little enough to take no time."""

REPETITIONS = {"cuda": 20, "cpu": 3}

FORWARD_SHARE = 1 / 3
"""Part of a training iteration's operations that a validation iteration needs: the forward pass."""


def measure_rate(device: torch.device, dtype: torch.dtype, layout: torch.memory_format) -> float:
    """Return the operations a second that a 3-D convolution reaches on a device, forwards and backwards.

    ``dtype`` and ``layout`` are those that a training would take there. Whole networks reach less, above all where they
    have few features; so what follows is the least time.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    edge, repetitions = EDGE[kind], REPETITIONS[kind]
    x = torch.zeros(1, FEATURES, edge, edge, edge, device=device).contiguous(memory_format=layout).requires_grad_()
    weight = torch.zeros(FEATURES, FEATURES, 3, 3, 3, device=device, requires_grad=True)
    _convolve(x, weight, dtype)
    started = perf_counter()
    for _ in range(repetitions):
        _convolve(x, weight, dtype)
    operations = repetitions * 3 * 2 * 27 * FEATURES**2 * edge**3
    return operations / (perf_counter() - started)


def epoch_seconds(plan: Plan, rate: float) -> float:
    """Return about how long an epoch of a plan takes at a rate in operations a second."""
    training = plan.training
    iterations = training.iterations_per_epoch + FORWARD_SHARE * training.validation_iterations
    return plan.estimate.flops_per_iteration * iterations / rate


def _convolve(x: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> None:
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        y = F.conv3d(x, weight, padding=1)
    y.sum().backward()  # type: ignore[no-untyped-call]
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
