"""Running a network on tensors without values: what is alive at each moment, and how much is computed.

On torch's meta device a tensor has a shape and no values, so that an iteration takes a fraction of a second whatever
the patch, on any machine. There is no autocast for that device; the rules of CUDA's are applied here.
"""

import math
import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from autoseg.plan.shapes import apply_rule

ALLOCATION_BYTES = 512
"""CUDA's caching allocator rounds every tensor up to a multiple of this."""

META = torch.device("meta")

IN_LOW_PRECISION = frozenset({
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "matmul",
    "__matmul__", "mm", "mv", "bmm", "addmm", "addbmm", "baddbmm", "addmv", "addr", "einsum", "prelu",
    "scaled_dot_product_attention",
})  # fmt: skip
"""What CUDA's autocast computes in bf16 or fp16 (torch's documentation of autocast)."""

IN_FP32 = frozenset({
    "layer_norm", "group_norm", "softmax", "log_softmax", "softplus", "norm", "exp", "log", "pow", "prod", "rsqrt",
    "sum", "cumsum", "reciprocal",
})  # fmt: skip
"""What it computes in fp32."""


def build_without_values(build: Any, *arguments: Any) -> nn.Module:
    """Return a network whose weights have no values.

    It is built for real, since some constructors read values, but its weights are not drawn, which is most of the work.
    """
    with torch.random.fork_rng(devices=[]), _UndrawnWeights():  # type: ignore[no-untyped-call]
        network: nn.Module = build(*arguments)
    for module in network.modules():
        for name, weights in module._parameters.items():
            if weights is not None:
                module._parameters[name] = nn.Parameter(weights.detach().to(META), requires_grad=weights.requires_grad)
        for name, values in module._buffers.items():
            if values is not None:
                module._buffers[name] = values.to(META)
    return network


def autocast_as_cuda(precision: str) -> AbstractContextManager[Any]:
    """Return a context in which is computed in the plan's precision as CUDA would; fp16 takes the memory of bf16."""
    return nullcontext() if precision == "fp32" else _CudaAutocast()


class Tracker(TorchDispatchMode):
    """Counts the bytes of all storages alive among the results of torch's operations, and their peak; and operations.

    Attributes:
        peak: most bytes that were alive at once.
        flops: multiplications and additions, counted as two.
    """

    def __init__(self, *, with_rules: bool = True) -> None:
        """Count; ``with_rules`` says whether results are written down by shape, which must not change any count."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._with_rules = with_rules
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
        result = apply_rule(func, args, kwargs or {}) if self._with_rules else None
        if result is None:
            result = func(*args, **(kwargs or {}))
        for leaf in (result,) if isinstance(result, torch.Tensor) else tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result


class _CudaAutocast(TorchFunctionMode):
    """Casts the arguments of torch's functions; weights are cast once, as CUDA's autocast does."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in IN_LOW_PRECISION:
            args, kwargs = tree_map(self._lower, (args, kwargs))
        elif name in IN_FP32:
            args, kwargs = tree_map(_raise, (args, kwargs))
        return func(*args, **kwargs)

    def _lower(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.bfloat16()
        if id(value) not in self._weights:
            self._weights[id(value)] = value.bfloat16()
        return self._weights[id(value)]


def _raise(value: Any) -> Any:
    is_low = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_low else value


class _UndrawnWeights(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leaves weights as they are allocated instead of drawing them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::normal_", "aten::uniform_", "aten::erfinv_"):
            return args[0]
        return func(*args, **(kwargs or {}))
