"""3. One architecture a file; the file's name is its name in a plan.

A file gives what ``Architecture`` describes. Shared topology rules and blocks stand in files with a leading underscore.
"""

import sys
from typing import Any, Protocol, cast

from torch import nn

from autoseg.components import available_components, load_component, require_members
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


class FeatureMapBudget(Document):
    """nnU-Net's stand-in for memory: how many feature map voxels one sample of the reference batch may have.

    Attributes:
        memory_gb: memory that the voxels belong to, in GB (10^9 bytes); they grow in proportion to it.
        voxels_2d: for slices, of which the reference batch has 12.
        voxels_3d: for volumes, of which it has 2.
        fits_whole_batch: whether the patch shrinks until the whole reference batch fits, or until a batch of 2 does.
        max_coverage: largest part of the dataset's voxels that one batch may hold.
    """

    memory_gb: float
    voxels_2d: float
    voxels_3d: float
    fits_whole_batch: bool
    max_coverage: float


def nnunet_training(source: str) -> TrainingDefaults:
    """Return the recipe of nnU-Net 2.8.1's trainer, which the U-Nets share; ``source`` says why it is theirs."""
    return TrainingDefaults(
        optimizer={"name": "sgd", "learning_rate": 1e-2, "momentum": 0.99, "nesterov": True, "weight_decay": 3e-5},
        schedule={"name": "poly", "exponent": 0.9, "warmup_iterations": 0},
        gradient_clip=12.0,
        source=source,
    )


class Architecture(Protocol):
    """What a file in this folder must define.

    A file may also define ``DIMENSIONS``, the numbers of spatial axes that it can be built for; without it there are
    plans in 3-D only. A file that defines ``BUDGETS`` (suffix of the plan's name to ``FeatureMapBudget``) and
    ``feature_map_voxels(config, patch_size, num_labels)`` is planned by nnU-Net's closed formula, every other one by
    its measured memory.
    """

    Config: type[Document]
    """Plain numbers that fix the topology; spatial lists in (z, y, x) order, as tuples, so that it can be hashed."""

    TRAINING: TrainingDefaults

    def derive(self, spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> Document:
        """Return the topology (a ``Config``) for a spacing in mm and a patch size in voxels.

        The patch size need not be divisible yet: the planner pads it to a multiple of ``divisor`` and derives again.
        """

    def divisor(self, config: Any) -> tuple[int, ...]:
        """Return what each patch axis must be a multiple of."""

    def build(self, config: Any, in_channels: int, out_channels: int) -> nn.Module:
        """Return the network. ``forward`` takes (B, C, Z, Y, X), or (B, C, Y, X) where the configuration is 2-D, and
        returns a list of logits, finest first.
        """


MEMBERS = ("Config", "TRAINING", "derive", "divisor", "build")
"""What every architecture's file defines."""


def dimensions_of(architecture: Architecture) -> tuple[int, ...]:
    """Return the numbers of spatial axes that an architecture can be built for."""
    return tuple(getattr(architecture, "DIMENSIONS", (3,)))


def available_architectures() -> list[str]:
    """Return the names of the architectures that the package ships."""
    return available_components(sys.modules[__name__])


def load_architecture(name: str) -> Architecture:
    """Import an architecture by name, or by the dotted path of a module outside the package.

    Raises:
        PlanError: there is no such architecture, or it lacks what ``Architecture`` describes.
    """
    module = load_component(sys.modules[__name__], name, "architecture")
    require_members(module, MEMBERS, "architecture", "docs/how-to/add-an-architecture.md")
    return cast(Architecture, module)
