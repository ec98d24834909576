"""Patch size and batch size: start large, shrink the axis that is largest for its image until it fits, then fill the
memory.

Architectures with a ``feature_map_voxels`` (nnU-Net's) fit by nnU-Net's closed formula; the others by their predicted
memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from autoseg.documents import Document
from autoseg.errors import PlanError
from autoseg.networks import Architecture
from autoseg.networks._topology import pad_to_multiple
from autoseg.plan import rules
from autoseg.plan.spacing import Grid

PatchSize = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """A patch size with the network configuration that belongs to it."""

    config: Document
    patch_size: PatchSize


class Measure(Protocol):
    """Predicts the memory in GB of training at a patch size and batch size."""

    def __call__(self, config: Document, patch_size: PatchSize, batch_size: int) -> float: ...


@dataclass(frozen=True)
class Choice:
    """What was chosen, and how the batch size came about.

    Attributes:
        memory_batch: batch size that the memory allows.
        coverage_batch: batch size that a twentieth of the dataset's voxels allows.
    """

    fit: Fit
    initial: PatchSize
    batch_size: int
    memory_batch: int
    coverage_batch: int


def choose_by_voxels(
    architecture: Architecture, grid: Grid, num_training: int, *, memory_gb: float, voxels: Callable[[Fit], int]
) -> Choice:
    """Choose by nnU-Net's rule: feature map voxels of one sample, against those of its reference network.

    Raises:
        PlanError: even the smallest patch exceeds the budget.
    """
    reference = rules.REFERENCE_VOXELS * memory_gb / rules.REFERENCE_MEMORY_GB
    initial = initial_patch(grid)
    fit = next((fit for fit in shrinking(architecture, grid, initial) if voxels(fit) <= reference), None)
    if fit is None:
        raise _too_small(memory_gb)
    memory_batch = round(reference / voxels(fit) * rules.REFERENCE_BATCH)
    return _with_batch(fit, initial, memory_batch, grid, num_training)


def choose_by_memory(
    architecture: Architecture, grid: Grid, num_training: int, *, memory_gb: float, measure: Measure
) -> Choice:
    """Choose the largest patch whose predicted memory fits at batch size 2, then the largest batch that fits.

    Raises:
        PlanError: even the smallest patch exceeds the budget.
    """
    usable = memory_gb * rules.USABLE_MEMORY
    batch = rules.REFERENCE_BATCH
    initial = initial_patch(grid)
    candidates = list(shrinking(architecture, grid, initial))

    def memory_of(fit: Fit) -> float:
        return measure(fit.config, fit.patch_size, batch)

    fit = _first_within(usable, candidates, memory_of)
    if fit is None:
        raise _too_small(memory_gb)
    # memory is affine in the batch: weights and their like, and the same again for every sample
    base, more = (measure(fit.config, fit.patch_size, size) for size in (batch, 2 * batch))
    a_sample = max((more - base) / batch, 1e-9)
    return _with_batch(fit, initial, batch + int((usable - base) / a_sample), grid, num_training)


def initial_patch(grid: Grid) -> PatchSize:
    """Return the patch of 256^3 voxels that has the same extent in mm along each axis, within the median image."""
    inverse = [1 / value for value in grid.spacing]
    scale = (rules.PATCH_VOLUME / math.prod(inverse)) ** (1 / 3)
    return tuple(math.ceil(min(round(value * scale), limit)) for value, limit in zip(inverse, grid.median_shape))


def shrinking(architecture: Architecture, grid: Grid, patch_size: Sequence[int]) -> Iterator[Fit]:
    """Yield ever smaller patches: each time the axis with the largest ratio of patch to median image is shrunk."""
    fit: Fit | None = fit_topology(architecture, grid.spacing, patch_size)
    while fit is not None:
        yield fit
        fit = _shrink_once(architecture, grid, fit)


def fit_topology(architecture: Architecture, spacing: tuple[float, ...], patch_size: Sequence[int]) -> Fit:
    """Derive the network for a patch size, padded to what the network's strides divide."""
    size = tuple(patch_size)
    while True:
        config = architecture.derive(spacing, size)
        padded = pad_to_multiple(size, architecture.divisor(config))
        if padded == size:
            return Fit(config, size)
        size = padded


def _shrink_once(architecture: Architecture, grid: Grid, fit: Fit) -> Fit | None:
    """Shrink one axis by one step of its divisor, or return None if no axis can be."""
    ratios = [n / limit for n, limit in zip(fit.patch_size, grid.median_shape)]
    divisor = architecture.divisor(fit.config)
    for axis in sorted(range(len(ratios)), key=lambda a: (ratios[a], a), reverse=True):
        if fit.patch_size[axis] - divisor[axis] < min(divisor[axis], rules.MIN_PATCH_EDGE):
            continue
        # a smaller patch may halve the axis less often, and then need not shrink by the whole divisor
        trial = architecture.derive(grid.spacing, _less(fit.patch_size, axis, divisor[axis]))
        step = architecture.divisor(trial)[axis]
        smaller = fit_topology(architecture, grid.spacing, _less(fit.patch_size, axis, step))
        if rules.MIN_PATCH_VOXELS <= math.prod(smaller.patch_size) < math.prod(fit.patch_size):
            return smaller
    return None


def _first_within(usable: float, candidates: Sequence[Fit], memory_of: Callable[[Fit], float]) -> Fit | None:
    """Return the first candidate of usable memory; the search starts where proportional memory would put it."""
    limit = usable / memory_of(candidates[0]) * math.prod(candidates[0].patch_size)
    small = (index for index, fit in enumerate(candidates) if math.prod(fit.patch_size) <= limit)
    index = next(small, len(candidates) - 1)
    while memory_of(candidates[index]) > usable:
        index += 1
        if index == len(candidates):
            return None
    while index > 0 and memory_of(candidates[index - 1]) <= usable:
        index -= 1
    return candidates[index]


def _too_small(memory_gb: float) -> PlanError:
    return PlanError(
        f"memory: even the smallest patch at batch size {rules.MIN_BATCH} needs more than the budget of "
        f"{memory_gb:g} GB; give a larger --memory, or choose a smaller architecture"
    )


def _less(patch_size: PatchSize, axis: int, step: int) -> PatchSize:
    return tuple(n - step if a == axis else n for a, n in enumerate(patch_size))


def _with_batch(fit: Fit, initial: PatchSize, memory_batch: int, grid: Grid, num_training: int) -> Choice:
    dataset_voxels = math.prod(grid.median_shape) * num_training
    coverage_batch = round(dataset_voxels * rules.MAX_COVERAGE / math.prod(fit.patch_size))
    batch_size = max(min(memory_batch, coverage_batch), rules.MIN_BATCH)
    return Choice(fit, initial, batch_size, memory_batch, coverage_batch)
