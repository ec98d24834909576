"""One step of the optimiser: forward, loss, backward, and what the plan wants done with the gradients."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from autoseg.train.device import DTYPES
from autoseg.train.loader import Batch
from autoseg.train.processes import postpone_gradients
from autoseg.train.setup import Setup, move_batch
from autoseg.train.state import TrainState


class StepOutcome(NamedTuple):
    """The loss of a step, and whether it and the gradients were finite; both on the device, not waited for."""

    loss: torch.Tensor
    finite: torch.Tensor


def train_step(state: TrainState, setup: Setup, batches: Iterable[Batch], iteration: int) -> StepOutcome:
    """Take one step of the optimiser on the mean gradient of ``batches``, the ``iteration``-th of the training.

    Where the plan wants it, a step whose loss or gradient is not finite is left out.
    """
    section = setup.plan.training
    state.optimizer.zero_grad(set_to_none=True)  # before the forward pass, whose activations need the memory
    setup.lap("optimizer")
    loss = torch.zeros((), device=setup.device)
    for number, batch in enumerate(batches, start=1):
        images, classes = move_batch(batch, setup)
        with postpone_gradients(state.training, wait=number < section.gradient_accumulation):
            part = _compute_loss(state, setup, images, classes) / section.gradient_accumulation
            # each process has its own samples' part of the gradient, and the mean is taken of these
            _scale(part * setup.processes.count, state).backward()  # type: ignore[no-untyped-call]
        setup.lap("backward")
        loss += part.detach()
    finite = loss.isfinite()
    if (norm := _limit_gradients(state, setup)) is not None:
        finite = finite & norm.isfinite()
    _step_optimizer(state, finite, skip=section.on_nan == "skip")
    if state.averaged is not None and section.ema_decay is not None:
        average_weights(state.averaged, state.network, section.ema_decay, iteration)
    setup.lap("optimizer")
    return StepOutcome(loss, finite)


def _compute_loss(state: TrainState, setup: Setup, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return the loss of a batch; the logits that it does not need are released before the backward pass."""
    logits = compute_logits(state.training, images, setup)
    setup.lap("forward")
    loss: torch.Tensor = setup.loss(logits, classes)
    setup.lap("loss")
    return loss


def compute_logits(network: nn.Module, images: torch.Tensor, setup: Setup) -> list[torch.Tensor]:
    """Return the network's logits, finest first, in float32 for the loss."""
    with torch.autocast(setup.device.type, dtype=DTYPES[setup.precision], enabled=setup.precision != "fp32"):
        logits: list[torch.Tensor] = network(images)
    return [stage.float() for stage in logits]


@torch.no_grad()
def average_weights(averaged: nn.Module, network: nn.Module, decay: float, iteration: int) -> None:
    """Move the average a step towards the network's weights; buffers are copied.

    The average forgets faster in the beginning, by (1 + i) / (10 + i), or the first random weights would stay in it for
    long (as in TensorFlow's ExponentialMovingAverage).
    """
    weight = 1 - min(decay, (1 + iteration) / (10 + iteration))
    for average, trained in zip(averaged.parameters(), network.parameters()):
        average.lerp_(trained, weight)
    for kept, buffer in zip(averaged.buffers(), network.buffers()):
        kept.copy_(buffer)


def _limit_gradients(state: TrainState, setup: Setup) -> torch.Tensor | None:
    """Clip the gradients if the plan says so; return their norm if that tells of a step that went wrong.

    A scaler finds gradients that are not finite by itself, and meets them as a matter of course.
    """
    clip = setup.plan.training.gradient_clip
    if clip is None and (setup.plan.training.on_nan == "stop" or state.scaler is not None):
        return None
    if state.scaler is not None:
        state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), torch.inf if clip is None else clip)
    return norm if state.scaler is None else None


def _step_optimizer(state: TrainState, finite: torch.Tensor, *, skip: bool) -> None:
    if state.scaler is not None:
        state.scaler.step(state.optimizer)
        state.scaler.update()
        return
    if skip and getattr(state.optimizer, "_step_supports_amp_scaling", False):
        # fused optimisers leave the step out by themselves, on the device: what a scaler would tell them
        state.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    elif skip and not finite:  # waits for the device; RMSProp has no fused form
        return
    state.optimizer.step()


def _scale(loss: torch.Tensor, state: TrainState) -> torch.Tensor:
    return loss if state.scaler is None else state.scaler.scale(loss)
