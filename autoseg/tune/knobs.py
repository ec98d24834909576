"""What is varied but stands in no single field of a plan: each knob turns a number into values of several fields."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from autoseg.augment import CASCADE_AUGMENTATIONS
from autoseg.errors import DocumentError
from autoseg.networks import load_architecture
from autoseg.plan.plan import Component, Plan

Assignments = dict[str, Any]

WIDTHS = ("features_per_stage", "features", "feature_size")
BLOCKS = ("blocks_per_stage_encoder", "blocks_encoder")
"""What architectures call their numbers of channels, and of blocks of each stage on the way down."""

PROBABILITIES = ("probability", "probability_rotation", "probability_scaling", "probability_elastic")
SYMMETRIES = ("mirror", "rot90", "transpose_axes")
"""Augmentations that show all sides alike: half of the time is their only sensible strength."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A number, ``own`` where it leaves the plan as it is, and what it sets.

    Attributes:
        own: the value at which the plan stays as it is.
        low: the least allowed value. high: the largest.
        assign: returns the fields and their values.
        suits: whether the plan has what is to be varied.
    """

    own: int | float
    low: float
    high: float
    assign: Callable[[Plan, Any], Assignments]
    suits: Callable[[Plan], bool] = lambda plan: True

    def check(self, values: Iterable[Any], where: str) -> None:
        """Refuse values out of range.

        Raises:
            DocumentError: so.
        """
        whole = isinstance(self.own, int)
        for value in values:
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not number or not self.low <= value <= self.high:
                kind = "whole numbers" if whole else "numbers"
                raise DocumentError(f"{where}: found {value!r}; allowed are {kind} from {self.low:g} to {self.high:g}")


def _scale_learning_rate(plan: Plan, factor: float) -> Assignments:
    return {"training.optimizer.learning_rate": float(f"{plan.training.optimizer.learning_rate * factor:.4g}")}


def _scale_augmentation(plan: Plan, factor: float) -> Assignments:
    return {"training.augmentation": [_scale_entry(entry, factor) for entry in plan.training.augmentation]}


def _scale_entry(entry: Component, factor: float) -> dict[str, Any]:
    content = entry.model_dump(mode="json")
    if entry.name in SYMMETRIES or entry.name in CASCADE_AUGMENTATIONS:
        return content
    scaled = {key: round(min(1.0, content[key] * factor), 6) for key in PROBABILITIES if key in content}
    return {**content, **scaled}


def _share_patch(plan: Plan, share: float) -> Assignments:
    """Shrink the patch to a share of its voxels, in steps that the network can halve, and enlarge the batch instead.

    The network stays as it is, or two things would be compared at once.
    """
    training, architecture = plan.training, load_architecture(plan.network.architecture)
    divisor = architecture.divisor(plan.network.architecture_config)
    side = share ** (1 / training.dimensions)
    patch = [max(1, round(size * side / part)) * part for size, part in zip(training.patch_size, divisor)]
    batch = round(training.batch_size * math.prod(training.patch_size) / math.prod(patch))
    config = {key: patch if key == "patch_size" else value for key, value in plan.network.config.items()}
    return {"training.patch_size": patch, "training.batch_size": max(batch, 1), "network.config": config}


def _scale_features(plan: Plan, factor: float) -> Assignments:
    name = _field(plan, WIDTHS)
    return {f"network.config.{name}": _each(plan.network.config[name], lambda n: max(1, round(n * factor)))}


def _add_blocks(plan: Plan, more: int) -> Assignments:
    name = _field(plan, BLOCKS)
    return {f"network.config.{name}": _each(plan.network.config[name], lambda n: n + more)}


def _each(value: Any, change: Callable[[int], int]) -> Any:
    return [change(one) for one in value] if isinstance(value, list | tuple) else change(value)


def _field(plan: Plan, names: Iterable[str]) -> str:
    return next(name for name in names if name in plan.network.config)


def _has(names: Iterable[str]) -> Callable[[Plan], bool]:
    return lambda plan: any(name in plan.network.config for name in names)


KNOBS = {
    "patch_share": Knob(own=1.0, low=0.01, high=1, assign=_share_patch),
    "learning_rate_factor": Knob(own=1.0, low=1e-4, high=1e4, assign=_scale_learning_rate),
    "augmentation_strength": Knob(
        own=1.0, low=0, high=10, assign=_scale_augmentation, suits=lambda plan: bool(plan.training.augmentation)
    ),
    "features_factor": Knob(own=1.0, low=0.05, high=8, assign=_scale_features, suits=_has(WIDTHS)),
    "extra_blocks": Knob(own=0, low=0, high=8, assign=_add_blocks, suits=_has(BLOCKS)),
}
"""``patch_share``: part of the patch's voxels, the batch grows in return. ``learning_rate_factor``: times the learning
rate of the plan, or the usual one of another optimiser. ``augmentation_strength``: times the probability of each
augmentation but symmetries. ``features_factor``: times the channels. ``extra_blocks``: more blocks (residual units) in
each stage on the way down."""
