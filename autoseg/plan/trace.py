"""Running a network on tensors without values: what is alive at each moment, and how much is computed.

torch's FakeTensorMode lets an iteration run in a fraction of a second whatever the patch, on any machine. The tensors
say that they are on the CPU, since torch without CUDA cannot differentiate any others; what CUDA's autocast does
differently is put right here.
"""

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

ALLOCATION_BYTES = 512
"""CUDA's caching allocator rounds every tensor up to a multiple of this."""

IN_FP32 = frozenset({"layer_norm", "group_norm", "softmax", "log_softmax", "norm", "exp", "log", "pow", "prod", "rsqrt", "sum"})
"""What CUDA's autocast computes in fp32 and the CPU's does not (torch's documentation of autocast)."""

AS_IT_COMES = frozenset({"avg_pool3d", "interpolate", "grid_sample"})
"""What the CPU's autocast computes in fp32 and CUDA's does not."""

FAKE = FakeTensorMode(allow_non_fake_inputs=True)
"""One mode for all networks, so that a network can be kept and run again."""


def build_without_values(build: Any, *arguments: Any) -> nn.Module:
    """Return a network whose weights have no values.

    It is built for real, since some constructors read values, but its weights are not drawn, which is most of the work.
    """
    with torch.random.fork_rng(devices=[]), _undrawn_weights():
        network: nn.Module = build(*arguments)
    with FAKE:
        for module in network.modules():
            for name, weights in module._parameters.items():
                if weights is not None:
                    empty = torch.empty(weights.shape, dtype=weights.dtype)
                    module._parameters[name] = nn.Parameter(empty, requires_grad=weights.requires_grad)
            for name, values in module._buffers.items():
                if values is not None:
                    module._buffers[name] = torch.empty(values.shape, dtype=values.dtype)
    return network


@contextmanager
def autocast_as_cuda(precision: str) -> Iterator[None]:
    """Compute in the plan's precision as CUDA would; fp16 takes the same memory as bf16."""
    if precision == "fp32":
        yield
        return
    with torch.autocast("cpu", torch.bfloat16), _CudaPolicy():
        yield


class Tracker(TorchDispatchMode):
    """Counts the bytes of all storages alive among the results of torch's operations, and their peak; and operations.

    Attributes:
        peak: most bytes that were alive at once.
        flops: multiplications and additions, counted as two.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.flops = 0
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
        for leaf in (result,) if isinstance(result, torch.Tensor) else tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result


class _CudaPolicy(TorchFunctionMode):
    """Where the two autocasts differ, does what CUDA's does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in IN_FP32:
            args, kwargs = tree_map(_to_fp32, (args, kwargs))
        with torch.autocast("cpu", enabled=False) if name in AS_IT_COMES else nullcontext():
            return func(*args, **kwargs)


def _to_fp32(value: Any) -> Any:
    is_low = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_low else value


@contextmanager
def _undrawn_weights() -> Iterator[None]:
    """Leave weights as they are allocated instead of drawing them."""

    def leave(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor

    names = ("normal_", "uniform_", "erfinv_")
    with mock.patch.multiple(torch.Tensor, **dict.fromkeys(names, leave)):
        yield
