"""What one training iteration needs: memory, parameters and operations, found by running it on tensors without data.

The network is built and run forwards and backwards under torch's FakeTensorMode, in which tensors have a shape but no
values, so it takes a fraction of a second whatever the patch. Every storage is counted from its creation to its
release; the peak, with the optimiser's state, is the estimate. The loss is Dice and cross-entropy in fp32, whichever
loss the plan has.
"""

import math
import warnings
import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from autoseg.documents import Document
from autoseg.networks import Architecture
from autoseg.plan.plan import Estimate

ALLOCATION_BYTES = 512
"""CUDA's caching allocator rounds every tensor up to a multiple of this."""

STATE_PER_PARAMETER = {"sgd": 1, "adam": 2, "adamw": 2, "rmsprop": 2}
"""fp32 numbers that an optimiser keeps for each parameter: momentum; first and second moment."""


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
    """What one iteration needs; ``num_outputs`` is the number of resolutions the network gives logits at."""

    memory_bytes: int
    parameters: int
    flops: int
    num_outputs: int

    @property
    def memory_gb(self) -> float:
        """Peak memory in GB (10^9 bytes)."""
        return self.memory_bytes / 1e9

    @property
    def estimate(self) -> Estimate:
        """The plan's section."""
        return Estimate(memory_gb=round(self.memory_gb, 3), parameters=self.parameters, flops_per_iteration=self.flops)


def measure_cost(
    workload: Workload, config: Document, patch_size: tuple[int, ...], batch_size: int, *, with_flops: bool = True
) -> Cost:
    """Return the cost of one training iteration (forward, loss, backward) at a patch and batch size.

    Memory counts weights, gradients, optimiser state, activations and temporaries; not what the device's driver takes.
    """
    memory, flops = _MemoryTracker(), FlopCounterMode(display=False)
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = workload.architecture.build(config, workload.in_channels, workload.out_channels)
        for tensor in (*network.parameters(), *network.buffers()):
            memory.add(tensor)
        with memory, flops if with_flops else nullcontext():
            num_outputs = _iterate(network, workload, patch_size, batch_size)
        parameters = sum(parameter.numel() for parameter in network.parameters())
    state = 4 * parameters * STATE_PER_PARAMETER.get(workload.optimizer, 2)
    total = flops.get_total_flops() if with_flops else 0
    return Cost(memory.peak + state, parameters, total, num_outputs)


def _iterate(network: torch.nn.Module, workload: Workload, patch_size: tuple[int, ...], batch_size: int) -> int:
    """Run one iteration without values; return the number of outputs."""
    images = torch.empty(batch_size, workload.in_channels, *patch_size)
    classes = torch.empty(batch_size, *patch_size, dtype=torch.int16)
    with torch.autocast("cpu", torch.bfloat16, enabled=workload.precision != "fp32"):
        outputs = network(images)
    num_outputs = len(outputs)
    used = outputs if workload.deep_supervision else outputs[:1]
    losses = [_loss(logits, classes) for logits in used]
    del outputs, used
    torch.stack(losses).sum().backward()
    return num_outputs


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


class _MemoryTracker(TorchDispatchMode):
    """Counts the bytes of all storages alive among the results of torch's operations, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._alive: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage until it is released."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive:
            return
        size = math.ceil(storage.nbytes() / ALLOCATION_BYTES) * ALLOCATION_BYTES
        self._alive[key] = size
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self._now -= self._alive.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result
