"""3. One architecture a file; the file's name is its name in a plan.

A file gives what ``Architecture`` describes. Shared topology rules and blocks stand in files with a leading underscore.
"""

import sys
from typing import Any, Protocol, cast

from torch import nn

from autoseg.components import available_components, load_component
from autoseg.documents import Document


class TrainingDefaults(Document):
    """What the architecture's authors recommend for a full-length training.

    Attributes:
        optimizer: the plan's optimizer section.
        schedule: the plan's schedule section.
        gradient_clip: largest gradient norm, or null.
        source: where this is recommended.
    """

    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    gradient_clip: float | None
    source: str


class Architecture(Protocol):
    """What a file in this folder must define."""

    Config: type[Document]
    """Plain numbers that fix the topology; spatial lists in (z, y, x) order."""

    TRAINING: TrainingDefaults

    def derive(self, spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> Document:
        """Return the topology (a ``Config``) for a spacing in mm and a patch size in voxels.

        The patch size need not be divisible yet: the planner pads it to a multiple of ``divisor`` and derives again.
        """

    def divisor(self, config: Any) -> tuple[int, ...]:
        """Return what each patch axis must be a multiple of."""

    def build(self, config: Any, in_channels: int, out_channels: int) -> nn.Module:
        """Return the network. ``forward`` takes (B, C, Z, Y, X) and returns a list of logits, finest first."""


def available_architectures() -> list[str]:
    """Return the names of the architectures that the package ships."""
    return available_components(sys.modules[__name__])


def load_architecture(name: str) -> Architecture:
    """Import an architecture by name, or by the dotted path of a module outside the package.

    Raises:
        PlanError: there is no such architecture.
    """
    return cast(Architecture, load_component(sys.modules[__name__], name, "architecture"))
