"""Networks that see what a previous stage found: one class map outside the network, one channel a class inside it.

So batches and volumes carry one more channel however many classes there are.
"""

import torch
from torch import nn


class SecondStage(nn.Module):
    """Takes (B, C + 1, Z, Y, X), the last channel being classes from 0, and returns what its network does."""

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        """Wrap a network of C + ``num_classes`` channels; the background is no class of its own."""
        super().__init__()
        self.network = network
        self.num_classes = num_classes

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits, finest first."""
        image, found = x[:, :-1], x[:, -1:]
        classes = torch.arange(1, self.num_classes + 1, device=x.device, dtype=x.dtype).view(1, -1, 1, 1, 1)
        logits: list[torch.Tensor] = self.network(torch.cat([image, (found == classes).to(x.dtype)], dim=1))
        return logits
