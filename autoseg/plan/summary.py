"""Plans in few words: what a person compares them by."""

import math
from collections.abc import Sequence

import numpy as np

from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.plan.plan import Plan

COLUMNS = ("patch", "in mm", "of image", "batch", "stages", "weights", "memory", "TFLOP", "optimizer")


def summarise(plan: Plan, fingerprint: Fingerprint) -> dict[str, str]:
    """Return the plan's row of a table: a text for each of ``COLUMNS``."""
    training, estimate = plan.training, plan.estimate
    spacing = plan.preprocessing.spacing[-training.dimensions :]
    extent = [round(size * (step or 0)) for size, step in zip(training.patch_size, spacing)]
    strides = plan.network.config.get("strides")
    texts = (
        "x".join(str(size) for size in training.patch_size),
        "x".join(str(size) for size in extent),
        f"{field_of_view(plan, fingerprint):.0%}",
        str(training.batch_size),
        str(len(strides)) if strides else "-",
        _millions(estimate.parameters),
        f"{estimate.memory_gb:.1f} GB",
        f"{estimate.flops_per_iteration / 1e12:.2f}",
        f"{training.optimizer.name} {training.optimizer.learning_rate:g}",
    )
    return dict(zip(COLUMNS, texts))


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 50_000 else f"{count / 1e6:.3f} M"


def memory_warnings(plan: Plan) -> list[str]:
    """Return a text if the plan is predicted to need more than its budget, as nnU-Net's own plans may."""
    needed, budget = plan.estimate.memory_gb, plan.budget.memory_gb
    if needed <= budget:
        return []
    return [
        f"{plan.name} is predicted to take {needed:.1f} GB, more than the {budget:g} GB that it was planned for: its "
        f"size comes from nnU-Net's own formula, which estimates otherwise, or was set by hand"
    ]


def field_of_view(plan: Plan, fingerprint: Fingerprint) -> float:
    """Return the part of the median image, or of its slice, that lies within a patch."""
    shape = median_shape(plan, fingerprint)
    inside = [min(size, limit) / limit for size, limit in zip(plan.training.patch_size, shape)]
    return math.prod(inside)


def median_shape(plan: Plan, fingerprint: Fingerprint) -> Sequence[float]:
    """Return the median shape of the resampled images along the axes that the network sees, in voxels."""
    order, axes = list(plan.preprocessing.transpose), slice(-plan.training.dimensions, None)
    spacings = np.array([case.spacing for case in fingerprint.cases])[:, order][:, axes]
    shapes = np.array([case.shape_after_crop for case in fingerprint.cases])[:, order][:, axes]
    target = np.array(plan.preprocessing.spacing[axes], dtype=float)
    median: Sequence[float] = np.median(np.maximum(np.round(spacings / target * shapes), 1), axis=0).tolist()
    return median
