"""The optimiser and the learning rate that a plan asks for."""

import math
from collections.abc import Iterable

import torch

from autoseg.plan.optimization import Adam, AdamW, Cosine, Optimizer, Poly, RmsProp, Schedule, Sgd


def build_optimizer(section: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser of a plan over all parameters as one group.

    Weight decay acts on every parameter, biases and normalisation included, as in nnU-Net: plans whose
    weight decay was tuned there keep their meaning.
    """
    weights = list(parameters)
    rate, decay = section.learning_rate, section.weight_decay
    if isinstance(section, Sgd):
        nesterov = section.nesterov and section.momentum > 0  # without momentum there is nothing to look ahead with
        return torch.optim.SGD(
            weights, rate, momentum=section.momentum, nesterov=nesterov, weight_decay=decay, fused=True
        )
    if isinstance(section, Adam):
        return torch.optim.Adam(weights, rate, betas=section.betas, weight_decay=decay, fused=True)
    if isinstance(section, AdamW):
        return torch.optim.AdamW(weights, rate, betas=section.betas, weight_decay=decay, fused=True)
    if isinstance(section, RmsProp):
        return torch.optim.RMSprop(weights, rate, momentum=section.momentum, weight_decay=decay)
    raise TypeError(f"unknown optimizer section {type(section).__name__}")


def learning_rate(schedule: Schedule, base: float, iteration: int, total: int) -> float:
    """Return the learning rate of an iteration (from 0) of a training of ``total`` iterations.

    It rises linearly to ``base`` over the warm-up iterations; the schedule decays it over those that remain.
    """
    warmup = schedule.warmup_iterations
    if iteration < warmup:
        return base * (iteration + 1) / warmup
    progress = (iteration - warmup) / max(total - warmup, 1)
    if isinstance(schedule, Poly):
        return float(base * (1 - progress) ** schedule.exponent)
    if isinstance(schedule, Cosine):
        return base * (1 + math.cos(math.pi * progress)) / 2
    raise TypeError(f"unknown schedule section {type(schedule).__name__}")


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
