"""The optimiser and the learning rate that a plan asks for."""

import math
from collections.abc import Iterable, Sequence

import torch

from autoseg.plan.optimization import (
    Adam,
    AdamW,
    Cosine,
    Cyclic,
    OneCycle,
    Optimizer,
    Plateau,
    Poly,
    RmsProp,
    Schedule,
    Sgd,
    Step,
)


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


def learning_rate(schedule: Schedule, base: float, iteration: int, total: int, *, drops: int = 0) -> float:
    """Return the learning rate of an iteration (from 0) of a training of ``total`` iterations.

    It rises linearly to ``base`` over the warm-up iterations; the schedule changes it over those that remain. A
    plateau's depends on how often it dropped so far, see ``count_drops``.
    """
    warmup = schedule.warmup_iterations
    if iteration < warmup:
        return base * (iteration + 1) / warmup
    done, left = iteration - warmup, max(total - warmup, 1)
    if isinstance(schedule, OneCycle):
        return base * _one_cycle(schedule, done, left)
    if isinstance(schedule, Plateau):
        return base * max(schedule.factor**drops, schedule.least)
    return base * _part(schedule, done / left)


def _part(schedule: Schedule, progress: float) -> float:
    """Return what part of the learning rate is left after ``progress``, from 0 to 1, of the training."""
    if isinstance(schedule, Poly):
        return float((1 - progress) ** schedule.exponent)
    if isinstance(schedule, Cosine):
        return (1 + math.cos(math.pi * progress)) / 2
    if isinstance(schedule, Step):
        return float(schedule.factor ** sum(progress >= milestone for milestone in schedule.milestones))
    if isinstance(schedule, Cyclic):
        cycle, place = divmod(progress * schedule.cycles, 1)
        rise = (1 - schedule.lowest) * schedule.decay**cycle
        return float(schedule.lowest + rise * (1 - abs(2 * place - 1)))
    raise TypeError(f"unknown schedule section {type(schedule).__name__}")


def _one_cycle(schedule: OneCycle, done: int, left: int) -> float:
    """Return the part of the learning rate after ``done`` of ``left`` iterations; PyTorch counts both phases so."""
    summit = schedule.rise * left - 1
    start, end = 1 / schedule.start_divisor, 1 / schedule.start_divisor / schedule.end_divisor
    if done <= summit:
        return _along_cosine(start, 1.0, done / summit if summit > 0 else 1.0)
    return _along_cosine(1.0, end, min((done - summit) / max(left - 1 - summit, 1), 1.0))


def _along_cosine(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def count_drops(schedule: Schedule, losses: Sequence[float], epochs: int) -> int:
    """Return how often a plateau has lowered the learning rate after epochs with ``losses``; 0 for other schedules.

    It is PyTorch's ReduceLROnPlateau on the smoothed losses, derived from the history alone, so that a resumed training
    goes on as the uninterrupted one does.
    """
    if not isinstance(schedule, Plateau):
        return 0
    patience = max(round(schedule.patience * epochs), 1)
    smoothed, least, waited, drops = None, math.inf, 0, 0
    for loss in losses:
        smoothed = loss if smoothed is None else schedule.smoothing * smoothed + (1 - schedule.smoothing) * loss
        better = smoothed < least - schedule.threshold * abs(least) if math.isfinite(least) else True
        least, waited = (smoothed, 0) if better else (least, waited + 1)
        if waited > patience:
            drops, waited = drops + 1, 0
    return drops


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
