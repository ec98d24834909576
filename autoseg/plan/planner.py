"""From a fingerprint to the complete plan of one architecture, with a sentence for every number that was derived."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from autoseg.components import telling_mistakes
from autoseg.documents import Document, content_hash, parse_document
from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.losses import load_loss
from autoseg.networks import Architecture, load_architecture
from autoseg.plan import rules
from autoseg.plan.augmentation import explain_augmentation, make_recipe, setting_of
from autoseg.plan.memory import Cost, Workload, measure_cost
from autoseg.plan.patch_size import Choice, Fit, choose_by_memory, choose_by_voxels, choose_low_resolution
from autoseg.plan.plan import SCHEMA, Plan
from autoseg.plan.rationale import Decisions, explain, masks_background, times
from autoseg.plan.recipe import Recipe, find_recipe
from autoseg.plan.spacing import Grid, choose_grid


@dataclass(frozen=True)
class Outcome:
    """What was decided before anything of the network is measured.

    Attributes:
        grid: target spacing and the like.
        choice: patch size, batch size, configuration.
        batch_dice: whether the Dice is that of the whole batch.
        full_grid: the grid before it was coarsened for a plan at low resolution.
    """

    grid: Grid
    choice: Choice
    batch_dice: bool
    full_grid: Grid


def make_plan(
    recipe_name: str,
    fingerprint: Fingerprint,
    *,
    memory_gb: float | None = None,
    name: str | None = None,
    downsample: float = 1.0,
) -> Plan:
    """Derive the plan of a recipe (an architecture's name, or one like ``nnunet_2d``) for a dataset.

    Args:
        memory_gb: budget in GB (10^9 bytes); the recipe's own by default.
        name: of the plan; the recipe's own by default.
        downsample: factor by which the target spacing is coarsened.

    Raises:
        PlanError: the recipe is unknown, does not suit the data, or the budget is too small.
    """
    recipe = find_recipe(recipe_name)
    budget_gb = float(memory_gb or recipe.memory_gb)
    module = load_architecture(recipe.architecture)
    with telling_mistakes(recipe.architecture, "architecture"):
        workload = workload_of(recipe, fingerprint)
        outcome = decide(recipe, workload, fingerprint, memory_gb=budget_gb, downsample=downsample)
        choice, cost = _within_budget(recipe, workload, outcome.choice, budget_gb)
    outcome = replace(outcome, choice=choice)
    decisions = Decisions(recipe, module.TRAINING, fingerprint, outcome.grid, outcome.full_grid, choice,
                          outcome.batch_dice, cost, budget_gb, downsample)  # fmt: skip
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "name": name or recipe.name,
        "previous_stage": recipe.previous_stage,
        "dataset": _dataset(fingerprint),
        "budget": {"memory_gb": budget_gb},
        "preprocessing": _preprocessing(fingerprint, outcome.grid, downsample),
        "network": {"architecture": recipe.architecture, "config": choice.fit.config.model_dump(mode="json")},
        "training": _training(module, outcome, cost),
        "prediction": {"tile_step": rules.TILE_STEP, "surface_tolerance_mm": rules.SURFACE_TOLERANCE_MM},
        "estimate": cost.estimate.model_dump(mode="json"),
        "rationale": explain(decisions),
    }
    setting = setting_of(content)
    content["training"]["augmentation"] = make_recipe(rules.AUGMENTATION, setting)
    content["prediction"]["mirror_axes"] = setting.free_axes
    content["rationale"]["training.augmentation"] = explain_augmentation(setting)
    return parse_document(json.dumps(content), Plan, where=f"plan {content['name']}")


def workload_of(recipe: Recipe, fingerprint: Fingerprint) -> Workload:
    """Return what is trained and how, as far as it does not depend on the patch."""
    module = load_architecture(recipe.architecture)
    return Workload(
        architecture=module,
        in_channels=len(fingerprint.channels) + (fingerprint.label_scheme.num_classes - 1) * recipe.cascade,
        out_channels=fingerprint.label_scheme.num_outputs,
        precision=rules.PRECISION,
        optimizer=module.TRAINING.optimizer["name"],
    )


def decide(
    recipe: Recipe, workload: Workload, fingerprint: Fingerprint, *, memory_gb: float, downsample: float = 1.0
) -> Outcome:
    """Return spacing, patch, topology and batch; for a recipe with nnU-Net's formula no network is built.

    Raises:
        PlanError: the recipe does not suit the data, or the budget is too small.
    """
    grid = choose_grid(fingerprint, downsample=downsample, dimensions=recipe.dimensions)

    def choose(one: Grid) -> Choice:
        return choose_sizes(recipe, workload, one, fingerprint, memory_gb=memory_gb)

    choice = choose(grid)
    if recipe.dimensions == 2:
        return Outcome(grid, choice, batch_dice=True, full_grid=grid)
    if recipe.low_resolution:
        coarse = choose_low_resolution(grid, choice, choose)
        if coarse is None:
            raise PlanError(_needless_low_resolution(choice, grid))
        return Outcome(*coarse, batch_dice=False, full_grid=grid)
    if recipe.cascade:
        first = replace(recipe, low_resolution=True, cascade=False)
        decide(first, workload_of(first, fingerprint), fingerprint, memory_gb=memory_gb, downsample=downsample)
    return Outcome(grid, choice, _sees_little(recipe, workload, grid, fingerprint, memory_gb), full_grid=grid)


def _sees_little(recipe: Recipe, workload: Workload, grid: Grid, fingerprint: Fingerprint, memory_gb: float) -> bool:
    """Return whether patches show so little of an image that nnU-Net would add a plan at low resolution.

    For architectures outside nnU-Net it is ``nnunet`` that decides, so that all plans of a dataset have the same loss.
    """
    judge = recipe if recipe.budget else find_recipe("nnunet")

    def choose(one: Grid) -> Choice:
        return choose_sizes(judge, workload, one, fingerprint, memory_gb=memory_gb)

    try:
        return choose_low_resolution(grid, choose(grid), choose) is not None
    except PlanError:  # the budget is too small for nnunet
        return True


def _needless_low_resolution(choice: Choice, grid: Grid) -> str:
    shown = math.prod(choice.fit.patch_size) / grid.median_voxels
    return (
        f"low resolution: a patch of {times(choice.fit.patch_size)} voxels shows {shown:.0%} of the median image, so "
        f"that coarser images would gain too little; the plan at full resolution is enough"
    )


def loss_entry(name: str, *, batch_dice: bool) -> dict[str, Any]:
    """Return a loss's section of a plan: its defaults, with the Dice of the whole batch or of each sample."""
    config = load_loss(name).Config().model_dump(mode="json")
    if "batch_dice" in config:
        config["batch_dice"] = batch_dice
    return {"name": name, **config}


def choose_sizes(
    recipe: Recipe, workload: Workload, grid: Grid, fingerprint: Fingerprint, *, memory_gb: float
) -> Choice:
    """Return configuration, patch and batch size, by nnU-Net's formula if the recipe has it, else by memory."""
    module, num_training = load_architecture(recipe.architecture), fingerprint.num_training
    if recipe.budget is not None:
        by_formula = module.feature_map_voxels  # type: ignore[attr-defined]

        def voxels(fit: Fit) -> int:
            return int(by_formula(fit.config, fit.patch_size, fingerprint.label_scheme.num_declared))

        return choose_by_voxels(module, grid, num_training, memory_gb=memory_gb, budget=recipe.budget, voxels=voxels)

    def measure(config: Document, patch_size: tuple[int, ...], batch_size: int) -> float:
        return measure_cost(workload, config, patch_size, batch_size).memory_gb

    return choose_by_memory(module, grid, num_training, memory_gb=usable_gb(memory_gb), measure=measure)


def usable_gb(memory_gb: float) -> float:
    """Return what a training's predicted memory may reach on a device of ``memory_gb``."""
    return max(memory_gb - rules.CONTEXT_GB, 0.0) * rules.USABLE_MEMORY


def _within_budget(recipe: Recipe, workload: Workload, choice: Choice, memory_gb: float) -> tuple[Choice, Cost]:
    """Return the cost of the choice, with the batch lowered while it exceeds the budget.

    What nnU-Net's formula chose is kept, since it is to be nnU-Net's plan; the rationale then says so.

    Raises:
        PlanError: it exceeds the budget even at the smallest batch size.
    """
    while True:
        cost = measure_cost(workload, choice.fit.config, choice.fit.patch_size, choice.batch_size)
        if recipe.budget is not None or cost.memory_gb <= usable_gb(memory_gb):
            return choice, cost
        if choice.batch_size <= rules.MIN_BATCH:
            raise PlanError(
                f"memory: a patch of {times(choice.fit.patch_size)} voxels at batch size {choice.batch_size} needs "
                f"{cost.memory_gb:.2f} GB, more than the budget of {memory_gb:g} GB; give a larger --memory"
            )
        choice = replace(choice, batch_size=choice.batch_size - 1, memory_batch=choice.batch_size - 1)


def _dataset(fingerprint: Fingerprint) -> dict[str, Any]:
    return {
        "name": fingerprint.dataset,
        "channels": list(fingerprint.channels),
        "labels": fingerprint.labels,
        "regions": {name: region.model_dump(mode="json") for name, region in fingerprint.regions.items()},
        "fingerprint_sha256": content_hash(fingerprint),
    }


def _preprocessing(fingerprint: Fingerprint, grid: Grid, downsample: float) -> dict[str, Any]:
    return {
        "orientation": "LPS",
        "transpose": list(grid.transpose),
        "spacing": [None if grid.dimensions == 2 else grid.spacing[0], *grid.spacing[1:]],
        "downsample": float(downsample),
        "normalization": [normalization_of(fingerprint, index) for index in range(len(fingerprint.channels))],
        "image_order": rules.IMAGE_ORDER,
        "label_order": rules.LABEL_ORDER,
        "separate_axis_threshold": rules.ANISOTROPY,
    }


def normalization_of(fingerprint: Fingerprint, channel: int) -> dict[str, Any]:
    """Return a channel's scheme, which its name decides as in nnU-Net."""
    scheme = rules.NORMALIZATION.get(fingerprint.channels[channel].casefold(), "zscore")
    measured = fingerprint.intensities[channel] if scheme == "ct" else None
    return {
        "scheme": scheme,
        "use_mask": scheme == "zscore" and masks_background(fingerprint),
        "lower": measured.percentile_00_5 if measured else None,
        "upper": measured.percentile_99_5 if measured else None,
        "mean": measured.mean if measured else None,
        "std": measured.std if measured else None,
    }


def _training(module: Architecture, outcome: Outcome, cost: Cost) -> dict[str, Any]:
    choice = outcome.choice
    return {
        "patch_size": list(choice.fit.patch_size),
        "batch_size": choice.batch_size,
        "epochs": rules.EPOCHS,
        "iterations_per_epoch": rules.ITERATIONS_PER_EPOCH,
        "validation_iterations": rules.VALIDATION_ITERATIONS,
        "loss": loss_entry(rules.LOSS, batch_dice=outcome.batch_dice),
        "optimizer": module.TRAINING.optimizer,
        "schedule": module.TRAINING.schedule,
        "foreground_oversampling": rules.FOREGROUND_OVERSAMPLING,
        "deep_supervision": cost.num_outputs > 1,
        "gradient_accumulation": 1,
        "gradient_clip": module.TRAINING.gradient_clip,
        "class_weights": {},
        "ema_decay": None,
        "early_stopping": None,
        "on_nan": "stop",
        "precision": rules.PRECISION,
        "seed": 0,
    }
