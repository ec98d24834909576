"""Why a plan is as it is: one plain sentence for each number that was derived, under the number's own name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.networks import TrainingDefaults
from autoseg.networks._topology import MAX_FEATURES
from autoseg.plan import rules
from autoseg.plan.memory import Cost
from autoseg.plan.patch_size import Choice
from autoseg.plan.recipe import Recipe
from autoseg.plan.spacing import Grid
from autoseg.plurals import count


@dataclass(frozen=True)
class Decisions:
    """What the planner decided, and from what."""

    recipe: Recipe
    defaults: TrainingDefaults
    fingerprint: Fingerprint
    grid: Grid
    full_grid: Grid
    choice: Choice
    batch_dice: bool
    cost: Cost
    memory_gb: float
    downsample: float


def explain(decisions: Decisions) -> dict[str, str]:
    """Return dotted name of the plan's field to sentence."""
    return {**_explain_data(decisions), **_explain_network(decisions), **_explain_training(decisions)}


def masks_background(fingerprint: Fingerprint) -> bool:
    """Return whether cropping to nonzero removes so much that z-scores are taken within the nonzero mask."""
    return fingerprint.median_relative_size_after_cropping < rules.MASK_BELOW_RELATIVE_SIZE


def times(values: Sequence[float]) -> str:
    """Return numbers as text, e.g. ``40 x 56 x 40``."""
    return " x ".join(f"{value:.4g}" for value in values)


def _explain_data(decisions: Decisions) -> dict[str, str]:
    grid, fingerprint = decisions.grid, decisions.fingerprint
    if grid.coarse:
        spacing = (
            f"Median spacing of {count(len(fingerprint.cases), 'case')}, but along the coarse axis the "
            f"{rules.COARSE_AXIS_PERCENTILE:g}th percentile: it is over "
            f"{rules.ANISOTROPY:g} times as coarse as the others and has few voxels."
        )
    else:
        spacing = f"Median spacing of {count(len(fingerprint.cases), 'case')} along each axis."
    if decisions.downsample != 1:
        spacing += f" It was then coarsened {decisions.downsample:g} times on request."
    if decisions.recipe.dimensions == 2:
        spacing += " Slices are taken as they lie, so the first axis keeps each case's own spacing."
    if decisions.recipe.low_resolution:
        spacing += (
            f" From {times(decisions.full_grid.spacing)} mm it was coarsened in steps of 3 % until a patch showed "
            f"{rules.LOW_RESOLUTION_BELOW:.0%} of the median image (nnU-Net's rule for low resolution)."
        )
    moved = grid.transpose != (0, 1, 2)
    transpose = f"Canonical axis {'zyx'[grid.transpose[0]]} has the largest spacing, so it comes first."
    relative = fingerprint.median_relative_size_after_cropping
    names = ", ".join(fingerprint.channels)
    part = "below" if masks_background(fingerprint) else "not below"
    return {
        "preprocessing.spacing": spacing,
        "preprocessing.transpose": transpose if moved else "The first axis already has the largest spacing.",
        "preprocessing.normalization": (
            f"Chosen by the channels' names ({names}): CT by the foreground's percentiles, others by each image's "
            f"z-score; cropping leaves {relative:.2f} of the median image, {part} the "
            f"{rules.MASK_BELOW_RELATIVE_SIZE:g} that asks for a mask."
        ),
    }


def _explain_network(decisions: Decisions) -> dict[str, str]:
    config = decisions.choice.fit.config.model_dump()
    sentences = {
        "training.patch_size": _explain_patch(decisions),
        "training.batch_size": _explain_batch(decisions.choice),
    }
    if "strides" in config:
        sentences |= _explain_topology(config, decisions.grid)
    else:
        sentences["network.config"] = "The architecture's published sizes."
    return sentences


def _explain_patch(decisions: Decisions) -> str:
    grid, budget, dimensions = decisions.grid, decisions.recipe.budget, decisions.recipe.dimensions
    start = (
        f"Started at {times(decisions.choice.initial)} ({rules.PATCH_EDGE[dimensions]:g}^{dimensions} voxels of equal "
        f"extent in mm, within the median image of {times(grid.network_shape)}) and shrunk along its relatively "
        "largest axis until "
    )
    if budget is None:
        return (
            f"{start}batch size {rules.MIN_BATCH} fitted into {decisions.memory_gb:g} GB; padded to what the network "
            "divides."
        )
    voxels = (budget.voxels_2d if dimensions == 2 else budget.voxels_3d) * decisions.memory_gb / budget.memory_gb
    return (
        f"{start}the feature maps had no more than the {voxels / 1e6:g} million voxels that nnU-Net's formula allows "
        f"for {decisions.memory_gb:g} GB; padded to what the network divides."
    )


def _explain_topology(config: dict[str, Any], grid: Grid) -> dict[str, str]:
    strides = [math.prod(steps) for steps in zip(*config["strides"])]
    return {
        "network.config.strides": (
            f"{len(config['strides'])} stages: axes are halved while they keep 4 voxels, those of finer spacing first "
            f"(spacing {times(grid.network_spacing)} mm); in all by {times(strides)}."
        ),
        "network.config.kernel_sizes": (
            "An axis is convolved once its spacing is within a factor of 2 of the finest axis."
        ),
        "network.config.features_per_stage": (
            f"{config['features_per_stage'][0]} features, doubled at each stage up to {MAX_FEATURES[grid.dimensions]} "
            f"(nnU-Net's rule)."
        ),
    }


def _explain_batch(choice: Choice) -> str:
    part = f"{choice.max_coverage:.0%} of the dataset's voxels"
    if choice.batch_size == choice.memory_batch:
        return f"What the memory allows; {part} would be {choice.coverage_batch}."
    if choice.batch_size == choice.coverage_batch:
        return f"One batch holds at most {part}; the memory would allow {choice.memory_batch}."
    return f"The smallest allowed; the memory allows {choice.memory_batch}, and {part} {choice.coverage_batch}."


def _explain_training(decisions: Decisions) -> dict[str, str]:
    defaults, cost = decisions.defaults, decisions.cost
    return {
        **_explain_cascade(decisions.recipe),
        "training.optimizer": f"Recommended for the architecture: {defaults.source}.",
        "training.schedule": f"Recommended for the architecture: {defaults.source}.",
        "training.epochs": f"nnU-Net's full length: {rules.EPOCHS} epochs of {rules.ITERATIONS_PER_EPOCH} iterations.",
        "training.loss": f"Dice and cross-entropy, nnU-Net's loss; {_explain_dice(decisions)}",
        "training.deep_supervision": f"The network gives logits at {count(cost.num_outputs, 'resolution')}.",
        "training.precision": "bf16 halves the activations' memory and needs no scaling of the loss.",
        "estimate": explain_cost(cost, decisions.memory_gb),
    }


def _explain_cascade(recipe: Recipe) -> dict[str, str]:
    if not recipe.cascade:
        return {}
    text = (
        f"A patch shows less than {rules.LOW_RESOLUTION_BELOW:.0%} of an image (nnU-Net's rule for low resolution); "
        f"what {recipe.previous_stage} finds in all of it enters as one channel a foreground class."
    )
    return {"previous_stage": text}


def explain_cost(cost: Cost, memory_gb: float) -> str:
    """Return what an iteration needs, and whether the budget holds it."""
    text = (
        f"One iteration was run on tensors without values: {cost.memory_gb:.2f} GB at most, "
        f"{cost.parameters / 1e6:.1f} million parameters, {cost.flops / 1e12:.2f} TFLOP; the driver's own memory, "
        f"about {rules.CONTEXT_GB:g} GB, comes on top"
    )
    if cost.memory_gb <= memory_gb - rules.CONTEXT_GB:
        return f"{text}."
    return f"{text}. This is MORE THAN the budget of {memory_gb:g} GB: a smaller batch may be needed."


def _explain_dice(decisions: Decisions) -> str:
    if decisions.recipe.dimensions == 2:
        return "Dice is taken over the whole batch, since a slice alone may show nothing."
    if decisions.batch_dice:
        return (
            "Dice is taken over the whole batch, since a patch shows less than a quarter of an image (nnU-Net's rule)."
        )
    return "Dice is taken for each sample, since a patch shows a good part of an image (nnU-Net's rule)."
