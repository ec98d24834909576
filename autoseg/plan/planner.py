"""From a fingerprint to the complete plan of one architecture, with a sentence for every number that was derived."""

import json
from dataclasses import replace
from typing import Any

from autoseg.augment import available_augmentations, load_augmentation
from autoseg.documents import Document, content_hash, parse_document
from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.losses import load_loss
from autoseg.networks import Architecture, load_architecture
from autoseg.plan import rules
from autoseg.plan.memory import Cost, Workload, measure_cost
from autoseg.plan.patch_size import Choice, Fit, choose_by_memory, choose_by_voxels
from autoseg.plan.plan import SCHEMA, Plan
from autoseg.plan.rationale import Decisions, explain, masks_background, times
from autoseg.plan.spacing import Grid, choose_grid


def make_plan(
    architecture: str,
    fingerprint: Fingerprint,
    *,
    memory_gb: float = 8.0,
    name: str | None = None,
    downsample: float = 1.0,
) -> Plan:
    """Derive the plan of an architecture for a dataset and a memory budget in GB (10^9 bytes).

    Args:
        name: of the plan; the architecture's own by default.
        downsample: factor by which the target spacing is coarsened.

    Raises:
        PlanError: the architecture is unknown, the images are 2-D, or the budget is too small.
    """
    module = load_architecture(architecture)
    grid = choose_grid(fingerprint, downsample=downsample)
    workload = Workload(
        architecture=module,
        in_channels=len(fingerprint.channels),
        out_channels=fingerprint.label_scheme.num_outputs,
        precision=rules.PRECISION,
        optimizer=module.TRAINING.optimizer["name"],
    )
    choice = choose_sizes(workload, grid, fingerprint, memory_gb=memory_gb)
    choice, cost = _within_budget(workload, choice, memory_gb)
    content = {
        "schema": SCHEMA,
        "name": name or architecture.rsplit(".", 1)[-1],
        "dataset": _dataset(fingerprint),
        "budget": {"memory_gb": float(memory_gb)},
        "preprocessing": _preprocessing(fingerprint, grid, downsample),
        "network": {"architecture": architecture, "config": choice.fit.config.model_dump(mode="json")},
        "training": _training(module, choice, cost),
        "prediction": _prediction(),
        "estimate": cost.estimate.model_dump(mode="json"),
        "rationale": explain(Decisions(module.TRAINING, fingerprint, grid, choice, cost, memory_gb, downsample)),
    }
    return parse_document(json.dumps(content), Plan, where=f"plan {content['name']}")


def augmentation_entry(name: str, patch_size: tuple[int, ...]) -> dict[str, Any]:
    """Return an augmentation's section of a plan: its defaults, with rotations that suit the patch's form."""
    config = load_augmentation(name).Config().model_dump(mode="json")
    if "rotation_degrees" in config:
        config["rotation_degrees"] = list(rotation_degrees(patch_size))
    return {"name": name, **config}


def rotation_degrees(patch_size: tuple[int, ...]) -> tuple[float, ...]:
    """Return the half-ranges of rotation: within the slices only where the patch is flat."""
    flat = max(patch_size) / patch_size[0] > rules.FLAT_PATCH
    return rules.FLAT_ROTATION_DEGREES if flat else rules.ROTATION_DEGREES


def loss_entry(name: str) -> dict[str, Any]:
    """Return a loss's section of a plan: its defaults, with the Dice of each sample rather than of the whole batch."""
    config = load_loss(name).Config().model_dump(mode="json")
    if "batch_dice" in config:
        config["batch_dice"] = False
    return {"name": name, **config}


def choose_sizes(workload: Workload, grid: Grid, fingerprint: Fingerprint, *, memory_gb: float) -> Choice:
    """Return configuration, patch and batch size, by nnU-Net's formula if the architecture has it, else by memory."""
    module, num_training = workload.architecture, fingerprint.num_training
    by_formula = getattr(module, "feature_map_voxels", None)
    if by_formula is not None:
        num_labels = len(fingerprint.labels)  # nnU-Net counts background and ignore

        def voxels(fit: Fit) -> int:
            return int(by_formula(fit.config, fit.patch_size, num_labels))

        return choose_by_voxels(module, grid, num_training, memory_gb=memory_gb, voxels=voxels)

    def measure(config: Document, patch_size: tuple[int, ...], batch_size: int) -> float:
        return measure_cost(workload, config, patch_size, batch_size, with_flops=False).memory_gb

    return choose_by_memory(module, grid, num_training, memory_gb=memory_gb, measure=measure)


def _within_budget(workload: Workload, choice: Choice, memory_gb: float) -> tuple[Choice, Cost]:
    """Return the cost of the choice, with the batch lowered while it exceeds the budget.

    Raises:
        PlanError: it exceeds the budget even at the smallest batch size.
    """
    while True:
        cost = measure_cost(workload, choice.fit.config, choice.fit.patch_size, choice.batch_size)
        if cost.memory_gb <= memory_gb:
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
        "spacing": list(grid.spacing),
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


def _training(module: Architecture, choice: Choice, cost: Cost) -> dict[str, Any]:
    names = [name for name in rules.AUGMENTATION if name in available_augmentations()]
    patch_size = choice.fit.patch_size
    return {
        "patch_size": list(patch_size),
        "batch_size": choice.batch_size,
        "epochs": rules.EPOCHS,
        "iterations_per_epoch": rules.ITERATIONS_PER_EPOCH,
        "validation_iterations": rules.VALIDATION_ITERATIONS,
        "loss": loss_entry(rules.LOSS),
        "optimizer": module.TRAINING.optimizer,
        "schedule": module.TRAINING.schedule,
        "augmentation": [augmentation_entry(name, patch_size) for name in names],
        "foreground_oversampling": rules.FOREGROUND_OVERSAMPLING,
        "deep_supervision": cost.num_outputs > 1,
        "gradient_clip": module.TRAINING.gradient_clip,
        "precision": rules.PRECISION,
        "seed": 0,
    }


def _prediction() -> dict[str, Any]:
    return {
        "tile_step": rules.TILE_STEP,
        "mirror_axes": [0, 1, 2],
        "surface_tolerance_mm": rules.SURFACE_TOLERANCE_MM,
    }
