"""A plan's loss, at one resolution or at all that the network gives."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autoseg.data.labels import Labels
from autoseg.documents import parse_document
from autoseg.losses import load_loss
from autoseg.losses._outputs import Outputs
from autoseg.losses._share import Share


def build_loss(
    name: str,
    parameters: dict[str, Any],
    labels: Labels,
    *,
    deep_supervision: bool,
    class_weights: Mapping[str, float] | None = None,
    share: Share | None = None,
) -> nn.Module:
    """Return a module whose ``forward(logits, classes)`` gives the training loss as a scalar.

    ``logits`` is the network's list of outputs (B, R, Z, Y, X), finest first; ``classes`` is (B, Z, Y, X) at the finest
    resolution, -1 ignored. Without ``deep_supervision`` only the finest counts. ``class_weights``, ``share``: see
    ``Outputs``.

    Raises:
        PlanError: there is no such loss.
        DocumentError: its parameters do not fit.
    """
    loss = load_loss(name)
    config = parse_document(json.dumps(parameters), loss.Config, where=f"training.loss ({name})")
    return DeepSupervision(loss.build(config, Outputs(labels, class_weights, share)), every_resolution=deep_supervision)


class DeepSupervision(nn.Module):
    """The weighted sum of a loss at several resolutions; those of weight 0 are not computed."""

    def __init__(self, loss: nn.Module, *, every_resolution: bool) -> None:
        super().__init__()
        self.loss = loss
        self.every_resolution = every_resolution

    def forward(self, logits: Sequence[torch.Tensor], classes: torch.Tensor) -> torch.Tensor:
        """Return the loss; see ``build_loss``."""
        weights = weigh_resolutions(len(logits) if self.every_resolution else 1)
        with torch.autocast(classes.device.type, enabled=False):
            parts = [
                weight * self.loss(stage, reduce_classes(classes, tuple(stage.shape[2:])))
                for weight, stage in zip(weights, logits)
                if weight > 0
            ]
        return torch.stack(parts).sum()


def weigh_resolutions(count: int) -> list[float]:
    """Return the weights of ``count`` resolutions, finest first: each half the one before, none for the coarsest.

    They add up to 1 (nnU-Net). A single resolution has the weight 1.
    """
    weights = [0.5**index for index in range(count)]
    if count > 1:
        weights[-1] = 0.0
    return [weight / sum(weights) for weight in weights]


def reduce_classes(classes: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return ``classes`` (B, Z, Y, X) at the coarser ``shape`` (z, y, x), each from the voxel nearest to its centre.

    This is PyTorch's ``nearest-exact``; of two voxels equally near it is the second. For whole factors it is a view.
    """
    for axis, (size, wanted) in enumerate(zip(classes.shape[1:], shape), start=1):
        if size == wanted:
            continue
        if size % wanted == 0:
            factor = size // wanted
            take = [slice(None)] * axis + [slice(factor // 2, None, factor)]
            classes = classes[tuple(take)]
        else:
            steps = torch.arange(wanted, device=classes.device)
            classes = classes.index_select(axis, (2 * steps + 1) * size // (2 * wanted))
    return classes
