"""The augmentations of a plan, one after another.

``sample`` and ``source_sizes`` run where batches are read, ``apply`` on the device.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autoseg.augment import Augmentation, Parameters, load_augmentation
from autoseg.augment.spatial import crop_centre
from autoseg.data.labels import OUTSIDE_CLASS
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

    An augmentation that reads more than the patch also defines ``source_sizes(config, parameters, patch_size)``; there
    can be one of these. It then also mirrors the patches, at no cost of its own, if only augmentations that do not care
    about orientation lie between it and the mirroring.

    Raises:
        PlanError: an augmentation is not known, or a second one reads more than the patch.
        DocumentError: its parameters do not fit.
    """

    def __init__(self, components: Sequence[tuple[str, dict[str, Any]]]) -> None:
        self._steps = [_make_step(index, *component) for index, component in enumerate(components)]
        larger = [index for index, step in enumerate(self._steps) if hasattr(step.augmentation, "source_sizes")]
        if len(larger) > 1:
            names = " and ".join(self._steps[index].name for index in larger)
            raise PlanError(f"training.augmentation: {names} both enlarge the patch; keep one of them")
        self._larger = larger[0] if larger else None
        self._mirror = self._find_foldable_mirror()

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> BatchParameters:
        """Draw all parameters for a batch of ``shape`` (B, C, *patch), on the CPU."""
        drawn = [step.augmentation.sample(step.config, shape, generator) for step in self._steps]
        if self._larger is not None and self._mirror is not None:
            mirrored = drawn[self._mirror]["mirrored"]
            drawn[self._larger]["mirrored"] = mirrored
            drawn[self._mirror] = {"mirrored": torch.zeros_like(mirrored)}
        return tuple(drawn)

    def source_sizes(self, parameters: BatchParameters, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return, for each sample of ``shape`` (B, C, *patch), the box about its centre that augmentation looks at."""
        patch_size = shape[2:]
        if self._larger is None:
            return [patch_size] * shape[0]
        step, drawn = self._steps[self._larger], parameters[self._larger]
        sizes: list[list[int]] = step.augmentation.source_sizes(step.config, drawn, patch_size).tolist()  # type: ignore[attr-defined]
        return [tuple(size) for size in sizes]

    def source_shape(self, parameters: BatchParameters, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Return the box that holds those of all samples: the patch with as many voxels at either side."""
        return tuple(max(axis) for axis in zip(tuple(patch_size), *self.source_sizes(parameters, (0, 0, *patch_size))))

    def apply(
        self, images: torch.Tensor, classes: torch.Tensor, parameters: BatchParameters, patch_size: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, C, *patch) and classes (B, *patch) from boxes (B, C, *source) and (B, *source).

        In a cascade the classes are (B, 2, *source), see ``join_previous``. The inputs may be changed in place and
        returned. What lies outside becomes background at the end.
        """
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            for step, drawn in zip(self._steps, parameters):
                images, classes = step.augmentation.apply(images, classes, drawn)
            images, classes = (crop_centre(part, tuple(patch_size)).contiguous() for part in (images, classes))
            return join_previous(images, classes.masked_fill_(classes == OUTSIDE_CLASS, 0))

    def apply_by_name(
        self, images: torch.Tensor, classes: torch.Tensor, parameters: BatchParameters, patch_size: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, list[list[str]]]:
        """Do the same step by step, and return too what changed each sample, by name; slow, for pictures."""
        size = tuple(patch_size)
        names: list[list[str]] = [[] for _ in range(len(images))]
        mirrored = self._folded_flags(parameters)
        for index, (step, drawn) in enumerate(zip(self._steps, parameters)):
            before = [crop_centre(part, size).clone() for part in (images, classes)]
            images, classes = step.augmentation.apply(images, classes, drawn)
            for sample, own in enumerate(names):
                pairs = zip(before, (crop_centre(images, size), crop_centre(classes, size)))
                changed = not all(torch.equal(old[sample], new[sample]) for old, new in pairs)
                if index == self._larger:
                    changed = bool(drawn["applied"][sample])
                own += [step.name] * (changed or (index == self._mirror and bool(mirrored[sample])))
        return *self.apply(images, classes, (), patch_size), names

    def _folded_flags(self, parameters: BatchParameters) -> torch.Tensor:
        if self._larger is None or self._mirror is None:
            return torch.zeros(0)
        return parameters[self._larger]["mirrored"].any(1)

    def _find_foldable_mirror(self) -> int | None:
        if self._larger is None:
            return None
        for index in range(self._larger + 1, len(self._steps)):
            if self._steps[index].name == "mirror":
                return index
            if not getattr(self._steps[index].augmentation, "COMMUTES_WITH_MIRRORING", False):
                return None
        return None


def join_previous(images: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Make what a previous stage found the last channel of the images, if there is such a map.

    So nothing that changes intensities ever sees it.

    Args:
        images: (B, C, Z, Y, X).
        classes: (B, Z, Y, X); or (B, 2, Z, Y, X), the reference's and those that were found.
    """
    if classes.dim() == images.dim() - 1:
        return images, classes
    return torch.cat([images, classes[:, 1:2].to(images.dtype)], dim=1), classes[:, 0].contiguous()


def _make_step(index: int, name: str, parameters: dict[str, Any]) -> _Step:
    augmentation = load_augmentation(name)
    where = f"training.augmentation.{index} ({name})"
    return _Step(name, augmentation, parse_document(json.dumps(parameters), augmentation.Config, where=where))
