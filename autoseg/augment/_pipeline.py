"""The augmentations of a plan, one after another.

``sample`` and ``source_shape`` run where batches are read, ``apply`` on the device.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autoseg.augment import Augmentation, Parameters, load_augmentation
from autoseg.augment.spatial import crop_centre
from autoseg.documents import Document, parse_document
from autoseg.errors import PlanError

BatchParameters = tuple[Parameters, ...]
"""What was drawn for a batch: one entry an augmentation, in their order."""


@dataclass(frozen=True)
class _Step:
    name: str
    augmentation: Augmentation
    config: Document


class Pipeline:
    """A plan's augmentations in their order.

    An augmentation that reads more than the patch also defines ``source_shape(config, parameters, patch_size)``; there
    can be one of these.

    Raises:
        PlanError: an augmentation is not known, or a second one reads more than the patch.
        DocumentError: its parameters do not fit.
    """

    def __init__(self, components: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self._steps = [_make_step(index, *component) for index, component in enumerate(components)]
        larger = [step.name for step in self._steps if hasattr(step.augmentation, "source_shape")]
        if len(larger) > 1:
            raise PlanError(f"training.augmentation: {' and '.join(larger)} both enlarge the patch; keep one of them")

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> BatchParameters:
        """Draw all parameters for a batch of ``shape`` (B, C, *patch), on the CPU."""
        return tuple(step.augmentation.sample(step.config, shape, generator) for step in self._steps)

    def source_shape(self, parameters: BatchParameters, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Return the box about the patch's centre that must be loaded: the patch with as many voxels at either side."""
        shape = tuple(patch_size)
        for step, drawn in zip(self._steps, parameters):
            if hasattr(step.augmentation, "source_shape"):
                shape = step.augmentation.source_shape(step.config, drawn, shape)
        return shape

    def apply(
        self, images: torch.Tensor, classes: torch.Tensor, parameters: BatchParameters, patch_size: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, C, *patch) and classes (B, *patch) from boxes (B, C, *source) and (B, *source).

        The inputs are left as they are, but without any augmentation they may be what is returned.
        """
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            for step, drawn in zip(self._steps, parameters):
                images, classes = step.augmentation.apply(images, classes, drawn)
            return crop_centre(images, tuple(patch_size)), crop_centre(classes, tuple(patch_size))


def _make_step(index: int, name: str, parameters: dict[str, Any]) -> _Step:
    augmentation = load_augmentation(name)
    where = f"training.augmentation.{index} ({name})"
    return _Step(name, augmentation, parse_document(json.dumps(parameters), augmentation.Config, where=where))
