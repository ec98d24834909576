"""A batch whose samples several processes have between them, and what a loss needs to know of those of the others."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Share:
    """The samples of a batch that this process has: those numbered ``own`` of ``total``.

    Every process computes the loss of the whole batch. Its backward pass follows the process's own samples only, so
    the whole gradient is the sum of those of all processes.
    """

    own: range
    total: int

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the ``values`` (own, ...) of all processes, (total, ...), in the order of the samples.

        All processes must call it, with the same trailing shape.
        """
        gathered: torch.Tensor = _Gather.apply(values, self.own.start, self.total)  # type: ignore[no-untyped-call]
        return gathered

    def add(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of what the processes give, without a gradient."""
        total = values.detach().clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """Zeros where the samples of others go, then a sum: unlike a gathering it takes shares of different sizes."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, start: int, total: int) -> torch.Tensor:
        ctx.own = slice(start, start + len(values))
        whole = values.new_zeros((total, *values.shape[1:]))
        whole[ctx.own] = values
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradients[0][ctx.own], None, None
