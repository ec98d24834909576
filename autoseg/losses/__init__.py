"""5. One loss a file; the file's name is its name in a plan."""

import sys
from typing import Any, Protocol, cast

from torch import nn

from autoseg.components import available_components, load_component, require_members
from autoseg.documents import Document
from autoseg.losses._outputs import Outputs


class Loss(Protocol):
    """What a file in this folder must define."""

    Config: type[Document]
    """The loss's parameters, with defaults."""

    def build(self, config: Any, outputs: Outputs) -> nn.Module:
        """Return the loss of one resolution: ``forward(logits, classes)`` gives a scalar.

        logits is (B, R, Z, Y, X), a channel for each of ``outputs``, in any floating dtype; classes is (B, Z, Y, X) of
        integers, -1 ignored.
        """


def available_losses() -> list[str]:
    """Return the names of the losses that the package ships."""
    return available_components(sys.modules[__name__])


def load_loss(name: str) -> Loss:
    """Import a loss by name, or by the dotted path of a module outside the package.

    Raises:
        PlanError: there is no such loss, or it lacks what ``Loss`` describes.
    """
    module = load_component(sys.modules[__name__], name, "loss")
    require_members(module, ("Config", "build"), "loss", "docs/how-to/add-a-loss.md")
    return cast(Loss, module)
