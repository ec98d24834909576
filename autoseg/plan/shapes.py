"""Results of frequent operations by their shapes alone.

torch works out what many operations give on its meta device by running them in Python, piece by piece, which takes ten
times as long as writing down the shape. Each rule here is for one operation of torch's dispatcher; it takes its
arguments and returns what the operation would, or None where it does not apply.
"""

from collections.abc import Callable
from typing import Any

import torch

Rule = Callable[..., Any]

aten = torch.ops.aten


def apply_rule(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the operation's result by a rule, or None without one; an operation in place returns what it changes."""
    if func in IN_PLACE:
        return args[0]
    rule = RULES.get(func)
    return None if rule is None or kwargs else rule(*args)


def _batch_norm(x: torch.Tensor, *_: Any) -> Any:
    statistics = x.new_empty(x.shape[1], dtype=torch.float32)
    return torch.empty_like(x), statistics, torch.empty_like(statistics)


def _batch_norm_backward(gradient: torch.Tensor, x: torch.Tensor, weight: Any, *rest: Any) -> Any:
    if weight is None or not all(rest[-1]):
        return None
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


def _like_first(x: torch.Tensor, *_: Any) -> Any:
    return torch.empty_like(x)


def _like_both(x: Any, y: Any, *_: Any) -> Any:
    is_plain = isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)
    alike = is_plain and x.shape == y.shape and x.dtype == y.dtype and x.stride() == y.stride()
    return torch.empty_like(x) if alike else None


def _layer_norm(x: torch.Tensor, shape: Any, *_: Any) -> Any:
    statistics = x.new_empty((*x.shape[: x.dim() - len(shape)], *(1 for _ in shape)), dtype=torch.float32)
    return torch.empty_like(x), statistics, torch.empty_like(statistics)


def _group_norm(x: torch.Tensor, *rest: Any) -> Any:
    _, _, batch, _, _, groups, *_ = rest  # weight, bias, samples, channels, voxels, groups
    statistics = x.new_empty(batch, groups)
    return torch.empty_like(x), statistics, torch.empty_like(statistics)


IN_PLACE = frozenset({
    aten.leaky_relu_.default, aten.relu_.default, aten.add_.Tensor, aten.mul_.Tensor, aten.copy_.default,
    aten.zero_.default, aten.fill_.Scalar,
})  # fmt: skip

RULES: dict[Any, Rule] = {
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_group_norm.default: _group_norm,
    aten.leaky_relu_backward.default: _like_both,
    aten.gelu.default: _like_first,
    aten.gelu_backward.default: _like_both,
    aten.add.Tensor: _like_both,
    aten.mul.Tensor: _like_both,
    aten.clone.default: _like_first,
}
