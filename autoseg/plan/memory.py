"""What one training iteration needs: memory, parameters and operations, found by running it on tensors without values.

Every storage is counted from its creation to its release; the peak, with the optimiser's state and an allowance for
cuDNN, is the estimate. The loss is Dice and cross-entropy in fp32, whichever loss the plan has.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional as F

from autoseg.documents import Document
from autoseg.errors import PlanError
from autoseg.networks import Architecture
from autoseg.plan import rules
from autoseg.plan.plan import Estimate
from autoseg.plan.trace import META, Tracker, autocast_as_cuda, build_without_values

STATE_PER_PARAMETER = {"sgd": 1, "adam": 2, "adamw": 2, "rmsprop": 2}
"""fp32 numbers that an optimiser keeps for each parameter: momentum; first and second moment; square and momentum."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained, and how; the network's configuration, patch and batch size vary."""

    architecture: Architecture
    in_channels: int
    out_channels: int
    precision: str
    optimizer: str
    deep_supervision: bool = True


@dataclass(frozen=True)
class Cost:
    """What one iteration needs; ``num_outputs`` is the number of resolutions the network gives logits at.

    ``memory_bytes`` is what tensors take at most.
    """

    memory_bytes: int
    parameters: int
    flops: int
    num_outputs: int

    @property
    def memory_gb(self) -> float:
        """Peak memory of the allocator in GB (10^9 bytes): tensors, and the allowance for cuDNN's workspaces."""
        return self.memory_bytes / 1e9 + rules.WORKSPACE_GB

    @property
    def estimate(self) -> Estimate:
        """The plan's section."""
        return Estimate(memory_gb=round(self.memory_gb, 3), parameters=self.parameters, flops_per_iteration=self.flops)


@lru_cache(maxsize=1024)
def measure_cost(workload: Workload, config: Document, patch_size: tuple[int, ...], batch_size: int) -> Cost:
    """Return the cost of one training iteration (forward, loss, backward, step) at a patch and batch size.

    Memory counts weights, gradients, optimiser state, activations and temporaries; not what the device's driver takes.
    Results are kept, since a search asks for the same ones again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = _network(workload, config)
        tracker = Tracker()
        for tensor in (*network.parameters(), *network.buffers()):
            tracker.add(tensor)
        with tracker:
            num_outputs = _iterate(network, workload, patch_size, batch_size)
        network.zero_grad(set_to_none=True)
    parameters = sum(weights.numel() for weights in network.parameters())
    state = 4 * parameters * STATE_PER_PARAMETER.get(workload.optimizer, 2)
    return Cost(tracker.peak + state, parameters, tracker.flops, num_outputs)


@lru_cache(maxsize=4)
def _network(workload: Workload, config: Document) -> torch.nn.Module:
    """Return a network without values; the last few are kept, since they are run at several sizes."""
    return build_without_values(workload.architecture.build, config, workload.in_channels, workload.out_channels)


def _iterate(network: torch.nn.Module, workload: Workload, patch_size: tuple[int, ...], batch_size: int) -> int:
    """Run one iteration without values; return the number of outputs."""
    images = torch.empty(batch_size, workload.in_channels, *patch_size, device=META)
    classes = torch.empty(batch_size, *patch_size, dtype=torch.int16, device=META)
    with autocast_as_cuda(workload.precision):
        outputs = network(images)
    _check_outputs(outputs, workload, images.shape)
    num_outputs = len(outputs)
    used = outputs if workload.deep_supervision else outputs[:1]
    losses = [_loss(logits, classes) for logits in used]
    del outputs, used
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    return num_outputs


def _check_outputs(outputs: Any, workload: Workload, shape: torch.Size) -> None:
    """Refuse a network that does not give what every architecture is to give; a training would say it late, or never.

    Raises:
        PlanError: it gives something else.
    """
    expected = (shape[0], workload.out_channels, *shape[2:])
    if isinstance(outputs, list | tuple) and outputs and all(torch.is_tensor(one) for one in outputs):
        if outputs[0].shape == expected:
            return
        found = f"a list that begins with shape {tuple(outputs[0].shape)}"
    else:
        found = f"a {type(outputs).__name__}"
    raise PlanError(
        f"{workload.architecture.__name__}: forward returns {found} for images of shape {tuple(shape)}; expected is a "  # type: ignore[attr-defined]
        f"list of logits, the first of shape {expected}"
    )


def _loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Dice and cross-entropy as they are commonly written: what matters here is which tensors they keep."""
    size = logits.shape[2:]
    target = classes[(slice(None), *(slice(None, None, n // m) for n, m in zip(classes.shape[1:], size)))].long()
    logits = logits.float()
    probabilities = logits.softmax(1)
    axes = tuple(range(2, logits.dim()))
    chosen = probabilities * torch.zeros_like(probabilities, dtype=torch.bool).scatter_(1, target[:, None], True)
    dice = chosen.sum(axes) / probabilities.sum(axes).clamp_min(1e-8)
    return F.cross_entropy(logits, target) - dice.mean()
