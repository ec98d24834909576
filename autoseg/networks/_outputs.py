"""Networks of other libraries as this package has them: they return a list of logits, finest first."""

import torch
from torch import nn


class ListedOutputs(nn.Module):
    """Gives the logits of a network, one tensor or several, as a list."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Take (B, C, ...); return the logits, finest first. Some networks give the finest alone when they predict."""
        outputs = self.network(x)
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
