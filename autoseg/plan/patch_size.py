"""Patch size and batch size: start large, shrink the axis that is largest for its image until it fits, then fill the
memory.

nnU-Net's architectures fit by nnU-Net's closed formula, for which no network is built; the others by their predicted
memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from autoseg.documents import Document
from autoseg.errors import PlanError
from autoseg.networks import Architecture, FeatureMapBudget
from autoseg.networks._topology import pad_to_multiple
from autoseg.plan import rules
from autoseg.plan.spacing import Grid, coarsened

PatchSize = tuple[int, ...]

MARGIN = 1.03
"""A patch whose memory is foreseen to exceed what is usable by more than this factor is not measured."""


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
        coverage_batch: batch size that the largest allowed part of the dataset's voxels, ``max_coverage``, allows.
    """

    fit: Fit
    initial: PatchSize
    batch_size: int
    memory_batch: int
    coverage_batch: int
    max_coverage: float


def choose_by_voxels(
    architecture: Architecture, grid: Grid, num_training: int, *, memory_gb: float, budget: FeatureMapBudget,
    voxels: Callable[[Fit], int],
) -> Choice:  # fmt: skip
    """Choose by nnU-Net's rule: feature map voxels of one sample, against those of its reference network.

    Raises:
        PlanError: even the smallest patch exceeds the budget.
    """
    per_batch = budget.voxels_2d if grid.dimensions == 2 else budget.voxels_3d
    reference = per_batch * (memory_gb / budget.memory_gb)
    reference_batch = rules.REFERENCE_BATCH[grid.dimensions]
    fitted_batch = reference_batch if budget.fits_whole_batch else rules.MIN_BATCH

    def needed(fit: Fit) -> float:
        return voxels(fit) / reference_batch * fitted_batch

    initial = initial_patch(grid)
    candidates = list(shrinking(architecture, grid, initial))
    fit = next((fit for fit in candidates if needed(fit) <= reference), None)
    if fit is None:
        raise _too_small(needed(candidates[-1]) / per_batch * budget.memory_gb)
    memory_batch = round(reference / voxels(fit) * reference_batch)
    return _with_batch(fit, initial, memory_batch, grid, num_training, budget.max_coverage)


def choose_by_memory(
    architecture: Architecture, grid: Grid, num_training: int, *, memory_gb: float, measure: Measure
) -> Choice:
    """Choose the largest patch whose predicted memory fits at batch size 2, then the largest batch.

    Args:
        memory_gb: what the predicted memory may reach.

    Raises:
        PlanError: even the smallest patch exceeds the budget, or the architecture does not suit the images.
    """
    batch = rules.MIN_BATCH
    initial = initial_patch(grid)
    candidates = [fit for fit in shrinking(architecture, grid, initial) if _suits(architecture, fit, grid)]
    if not candidates:
        raise _too_padded(fit_topology(architecture, grid.network_spacing, initial), grid)

    def memory_of(fit: Fit) -> float:
        return measure(fit.config, fit.patch_size, batch)

    fit = _first_within(memory_gb, candidates, memory_of)
    if fit is None:
        least = memory_of(candidates[-1])
        raise _too_small(least / rules.USABLE_MEMORY + rules.CONTEXT_GB)
    memory_batch = _largest_batch(fit, memory_gb, _coverage_batch(fit, grid, num_training, rules.MAX_COVERAGE), measure)
    return _with_batch(fit, initial, memory_batch, grid, num_training, rules.MAX_COVERAGE)


def choose_low_resolution(grid: Grid, full: Choice, choose: Callable[[Grid], Choice]) -> tuple[Grid, Choice] | None:
    """Return the coarser grid at which a patch shows a quarter of the median image, or None where none is needed.

    nnU-Net's rule: the spacing is coarsened in steps, the patch is chosen anew at each; a grid that does not at least
    halve the images' voxels is not worth a plan.
    """
    voxels, found = grid.median_voxels, None
    patch_size, steps = full.fit.patch_size, coarsened(grid)
    while math.prod(patch_size) / voxels < rules.LOW_RESOLUTION_BELOW:
        coarser = next(steps)
        choice = choose(coarser)
        found, voxels, patch_size = (coarser, choice), coarser.median_voxels, choice.fit.patch_size
    return found if grid.median_voxels / voxels >= rules.LOW_RESOLUTION_GAIN else None


def initial_patch(grid: Grid) -> tuple[float, ...]:
    """Return the patch of 256^3 voxels, or 2048^2, that has the same extent in mm along each axis, within the median
    image; where that has half voxels, so has the patch."""
    inverse = [1 / value for value in grid.network_spacing]
    scale = (rules.PATCH_EDGE[grid.dimensions] ** grid.dimensions / math.prod(inverse)) ** (1 / grid.dimensions)
    return tuple(min(round(value * scale), limit) for value, limit in zip(inverse, grid.network_shape))


def shrinking(architecture: Architecture, grid: Grid, patch_size: Sequence[float]) -> Iterator[Fit]:
    """Yield ever smaller patches: each time the axis with the largest ratio of patch to median image is shrunk."""
    fit: Fit | None = fit_topology(architecture, grid.network_spacing, patch_size)
    while fit is not None:
        yield fit
        fit = _shrink_once(architecture, grid, fit)


def fit_topology(architecture: Architecture, spacing: tuple[float, ...], patch_size: Sequence[float]) -> Fit:
    """Derive the network for a patch size, padded to what the network's strides divide."""
    config = architecture.derive(spacing, tuple(patch_size))  # type: ignore[arg-type]
    return Fit(config, pad_to_multiple(patch_size, architecture.divisor(config)))


def _shrink_once(architecture: Architecture, grid: Grid, fit: Fit) -> Fit | None:
    """Shrink one axis by one step of its divisor, or return None if no axis can be."""
    ratios = [n / limit for n, limit in zip(fit.patch_size, grid.network_shape)]
    divisor, spacing = architecture.divisor(fit.config), grid.network_spacing
    for axis in sorted(range(len(ratios)), key=lambda a: (ratios[a], a), reverse=True):
        if fit.patch_size[axis] - divisor[axis] < min(divisor[axis], rules.MIN_PATCH_EDGE):
            continue
        # a smaller patch may halve the axis less often, and then need not shrink by the whole divisor
        trial = architecture.derive(spacing, _less(fit.patch_size, axis, divisor[axis]))
        step = architecture.divisor(trial)[axis]
        smaller = fit_topology(architecture, spacing, _less(fit.patch_size, axis, step))
        if rules.MIN_PATCH_VOXELS[grid.dimensions] <= math.prod(smaller.patch_size) < math.prod(fit.patch_size):
            return smaller
    return None


def _first_within(usable: float, candidates: Sequence[Fit], memory_of: Callable[[Fit], float]) -> Fit | None:
    """Return the first candidate of usable memory, or None, measuring as few of them as needed.

    Memory is nearly affine in the voxels, so that two measurements tell where to look. What is returned was measured,
    and so was the candidate before it, unless it is foreseen to exceed the memory by more than ``MARGIN``.
    """
    voxels = [math.prod(fit.patch_size) for fit in candidates]
    known: dict[int, float] = {}

    def foresee(index: int) -> float:
        near = sorted(known, key=lambda k: abs(voxels[k] - voxels[index]))[:2]
        if not near:
            return voxels[index] / rules.VOXELS_PER_GB
        if len(near) == 1 or voxels[near[0]] == voxels[near[1]]:
            return known[near[0]] * voxels[index] / voxels[near[0]]
        slope = (known[near[0]] - known[near[1]]) / (voxels[near[0]] - voxels[near[1]])
        return known[near[0]] + max(slope, 0.0) * (voxels[index] - voxels[near[0]])

    while True:
        fitting = (i for i in range(len(candidates)) if known.get(i, foresee(i)) <= usable)
        index = next(fitting, len(candidates) - 1)
        if index in known:
            if known[index] > usable:
                return None
            before = index - 1
            if before < 0 or before in known or (len(known) > 1 and foresee(before) > usable * MARGIN):
                return candidates[index]
            index = before
        known[index] = memory_of(candidates[index])


def _largest_batch(fit: Fit, usable: float, most: int, measure: Measure) -> int:
    """Return the largest batch of usable memory, or ``most`` if that is smaller than what fits."""
    batch = rules.MIN_BATCH
    if most <= batch:
        return batch
    base = measure(fit.config, fit.patch_size, batch)
    # memory is affine in the batch: weights and their like, and the same again for every sample
    a_sample = max((measure(fit.config, fit.patch_size, 2 * batch) - base) / batch, 1e-9)
    return batch + int((usable - base) / a_sample)


def _suits(architecture: Architecture, fit: Fit, grid: Grid) -> bool:
    """Return whether a patch is not mostly padding and has two voxels in the coarsest stage, where norms need them."""
    padding = max(n / limit for n, limit in zip(fit.patch_size, grid.network_shape))
    coarsest = math.prod(fit.patch_size) // math.prod(architecture.divisor(fit.config))
    return padding <= rules.MAX_PADDING and coarsest > 1


def _too_padded(fit: Fit, grid: Grid) -> PlanError:
    found, limits = (" x ".join(f"{n:g}" for n in sizes) for sizes in (fit.patch_size, grid.network_shape))
    return PlanError(
        f"patch size: the smallest that the network takes is {found} voxels, but the median image has {limits}: most "
        f"of it would be padding, or nothing left in the coarsest stage; this architecture does not suit the data"
    )


def _too_small(least_gb: float) -> PlanError:
    least = math.ceil(10 * least_gb) / 10
    return PlanError(
        f"memory: even the smallest patch at batch size {rules.MIN_BATCH} needs a device of {least:g} GB; give "
        f"--memory {least:g} or more, or choose a smaller architecture"
    )


def _less(patch_size: PatchSize, axis: int, step: int) -> PatchSize:
    return tuple(n - step if a == axis else n for a, n in enumerate(patch_size))


def _with_batch(
    fit: Fit, initial: Sequence[float], memory_batch: int, grid: Grid, num_training: int, max_coverage: float
) -> Choice:
    coverage_batch = _coverage_batch(fit, grid, num_training, max_coverage)
    batch_size = max(min(memory_batch, coverage_batch), rules.MIN_BATCH)
    started = tuple(math.ceil(size) for size in initial)
    return Choice(fit, started, batch_size, memory_batch, coverage_batch, max_coverage)


def _coverage_batch(fit: Fit, grid: Grid, num_training: int, max_coverage: float) -> int:
    """Return the batch size that holds the largest allowed part of the dataset's voxels."""
    return round(grid.median_voxels * num_training * max_coverage / math.prod(fit.patch_size))
