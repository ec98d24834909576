"""4. One augmentation a file, batched on the device; the file's name is its name in a plan.

Every augmentation is split in two: ``sample`` draws all randomness as small tensors, ``apply`` is deterministic. A
batch augmented as a whole equals each of its samples augmented alone with its own parameters.
"""

import sys
from typing import Any, Protocol, cast

import torch

from autoseg.components import available_components, load_component, require_members
from autoseg.documents import Document

CASCADE_AUGMENTATIONS = ("previous_component", "previous_morphology")
"""Those that change what a previous stage found, and nothing else; they are for second stages only."""

Parameters = dict[str, torch.Tensor]
"""What one augmentation drew for a batch: named tensors whose first axis is the batch."""


class Augmentation(Protocol):
    """What a file in this folder must define."""

    Config: type[Document]
    """Probabilities and ranges, with nnU-Net's defaults."""

    def sample(self, config: Any, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
        """Draw parameters on the CPU for a batch of ``shape`` (B, C, Z, Y, X), the shape after augmentation."""

    def apply(
        self, images: torch.Tensor, classes: torch.Tensor, parameters: Parameters
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return augmented images (B, C, Z, Y, X) float32 and classes (B, Z, Y, X) int16, on their device.

        In the second stage of a cascade the classes are (B, 2, Z, Y, X): behind the reference's those that the
        previous stage found; whatever moves voxels moves both. The parameters stay on the CPU. The inputs are
        contiguous and may be changed in place, and returned.
        """


def available_augmentations() -> list[str]:
    """Return the names of the augmentations that the package ships."""
    return available_components(sys.modules[__name__])


def load_augmentation(name: str) -> Augmentation:
    """Import an augmentation by name, or by the dotted path of a module outside the package.

    Raises:
        PlanError: there is no such augmentation, or it lacks what ``Augmentation`` describes.
    """
    module = load_component(sys.modules[__name__], name, "augmentation")
    require_members(module, ("Config", "sample", "apply"), "augmentation", "docs/how-to/add-an-augmentation.md")
    return cast(Augmentation, module)
