"""Preparing a dataset: checks and fingerprint, folds, plans, preprocessed cases. The recipe behind ``autoseg_plan``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autoseg.data.dataset import Case, Dataset
from autoseg.data.splits import Splits, make_splits
from autoseg.data.workspace import Workspace
from autoseg.documents import write_document
from autoseg.errors import PlanError
from autoseg.fingerprint.extract import extract_fingerprint
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.fingerprint.nnunet import read_nnunet_fingerprint
from autoseg.plan.plan import Plan, plan_names, read_plan
from autoseg.plan.planner import make_plan
from autoseg.plan.recipe import find_recipe, flat_name, recipe_names
from autoseg.plan.spacing import choose_grid
from autoseg.plan.variant import make_variant
from autoseg.preprocess.store import CaseStore, preprocess_dataset, preprocessing_digest
from autoseg.train.preview import write_preview

DEFAULT_ARCHITECTURES = ("unet", "nnunet", "attention_unet", "unetr")
ALL = "all"

OnCase = Callable[[Case], None]


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """Which plans are asked for.

    Attributes:
        architectures: names of recipes (an architecture, ``nnunet_2d``, ...), one plan each; ``all`` stands for all of
            ``recipe_names``; none: the default ones.
        base: name of an existing plan to vary instead; None: the architectures' own plans are varied.
        assignments: ``key=value`` texts that make variants; empty: none.
        name: name of the variant; with several architectures it is appended to each one's name.
        memory_gb: memory budget in gigabytes; None: each recipe's own.
        downsample: factor by which the target spacing is coarsened.
    """

    architectures: tuple[str, ...] = ()
    base: str | None = None
    assignments: tuple[str, ...] = ()
    name: str | None = None
    memory_gb: float | None = None
    downsample: float = 1.0


def measure(
    dataset: Dataset, workspace: Workspace, *, num_workers: int, on_case: OnCase | None = None
) -> tuple[Fingerprint, Splits]:
    """Check and measure all cases, and write fingerprint.json and splits.json.

    Raises:
        DatasetError: something is wrong with the dataset; nothing is written.
    """
    splits = make_splits(dataset)
    fingerprint = extract_fingerprint(dataset, num_workers=num_workers, on_case=on_case)
    write_document(workspace.fingerprint(dataset.name), fingerprint)
    write_document(workspace.splits(dataset.name), splits)
    return fingerprint, splits


def take_fingerprint(folder: Path, workspace: Workspace) -> Fingerprint:
    """Make the fingerprint of a folder that holds nnU-Net's two files and no images, and write fingerprint.json.

    Raises:
        DatasetError: a file has mistakes; nothing is written.
    """
    fingerprint = read_nnunet_fingerprint(folder)
    write_document(workspace.fingerprint(fingerprint.dataset), fingerprint)
    return fingerprint


def make_plans(
    fingerprint: Fingerprint, workspace: Workspace, request: PlanRequest
) -> tuple[list[Plan], dict[str, str]]:
    """Make and write the plans of ``request``.

    Returns:
        the plans, and for each recipe that does not suit the data the reason.

    Raises:
        PlanError: no plan at all can be made; a recipe, key or base plan is unknown; nothing is written.
    """
    check_request(request)
    plans, refused = _varied_base(request, workspace, fingerprint.dataset) if request.base else _derived(fingerprint, request)
    for plan in plans:
        write_document(workspace.plan(fingerprint.dataset, plan.name), plan)
    return plans, refused


def check_request(request: PlanRequest) -> None:
    """Refuse a request that contradicts itself or names an unknown recipe, before anything long is started.

    Raises:
        PlanError: a variant without a name, a base without assignments, or an unknown recipe.
    """
    for name in request.architectures:
        if name != ALL:
            find_recipe(name)
    if request.assignments and not request.name:
        raise PlanError("--set: a variant needs a name of its own; add --name, e.g. --name unet_short")
    if request.base and not request.assignments:
        raise PlanError(f"--from {request.base}: nothing is changed; add --set KEY=VALUE")


def gpu_memory_gb() -> float:
    """Return the memory of this machine's first CUDA device in 10^9 bytes.

    Raises:
        PlanError: there is none.
    """
    if not torch.cuda.is_available():
        raise PlanError("--memory auto: this machine has no CUDA GPU to ask; give its memory in GB, e.g. --memory 24")
    return float(torch.cuda.get_device_properties(0).total_memory / 1e9)


def preprocess(
    dataset: Dataset, plans: Sequence[Plan], workspace: Workspace, *, num_workers: int, on_case: OnCase | None = None
) -> None:
    """Preprocess the dataset once for each distinct preprocessing among ``plans``; finished cases are kept."""
    for digest, plan in distinct_preprocessing(plans).items():
        folder = workspace.preprocessed(dataset.name, digest)
        preprocess_dataset(dataset, plan, folder, num_workers=num_workers, on_case=on_case)


def preview(plan: Plan, workspace: Workspace, *, num_workers: int) -> Path:
    """Write a picture of the plan's augmented patches beside the plan, and return where.

    Raises:
        TrainingError: no case is preprocessed.
    """
    path = workspace.plan(plan.dataset.name, plan.name).with_suffix(".augmentation.png")
    store = CaseStore(workspace.preprocessed(plan.dataset.name, preprocessing_digest(plan)))
    write_preview(plan, store, path, num_workers=num_workers)
    return path


def distinct_preprocessing(plans: Sequence[Plan]) -> dict[str, Plan]:
    """Return one plan for each preprocessing digest."""
    return {preprocessing_digest(plan): plan for plan in plans}


def _derived(fingerprint: Fingerprint, request: PlanRequest) -> tuple[list[Plan], dict[str, str]]:
    plans: list[Plan] = []
    refused: dict[str, str] = {}
    names = _recipes_of(fingerprint, request)
    for name in names:
        try:
            plans.append(_derive_one(name, fingerprint, request, alone=len(names) == 1))
        except PlanError as error:
            refused[name] = str(error)
    if not plans:
        reasons = list(dict.fromkeys(refused.values()))
        raise PlanError(reasons[0] if len(reasons) == 1 else "; ".join(f"{name}: {text}" for name, text in refused.items()))
    return plans, refused


def _recipes_of(fingerprint: Fingerprint, request: PlanRequest) -> list[str]:
    """Return the names of the recipes; images of a single slice get the default ones in 2-D as well."""
    if request.architectures:
        names = [one for name in request.architectures for one in (recipe_names() if name == ALL else [name])]
        return list(dict.fromkeys(names))
    defaults = ("unet",) if request.assignments else DEFAULT_ARCHITECTURES
    flat = [flat_name(name) for name in defaults] if choose_grid(fingerprint, dimensions=2).is_flat else []
    return [*defaults, *(name for name in flat if name)]


def _derive_one(recipe: str, fingerprint: Fingerprint, request: PlanRequest, *, alone: bool) -> Plan:
    name = recipe.rsplit(".", 1)[-1]
    if request.name:
        name = request.name if alone else f"{name}_{request.name}"
    downsample, assignments = _split_downsample(request)
    plan = make_plan(
        recipe, fingerprint, memory_gb=request.memory_gb, downsample=downsample, name=None if assignments else name
    )
    return make_variant(plan, name, assignments) if assignments else plan


def _split_downsample(request: PlanRequest) -> tuple[float, tuple[str, ...]]:
    """Return the factor of downsampling, also if it is set by ``--set``, and the other assignments.

    Before anything is chosen it changes everything, patch and batch size too; in a finished plan only what must follow.
    """
    key = "preprocessing.downsample="
    others = tuple(text for text in request.assignments if not text.replace(" ", "").startswith(key))
    factors = [text.split("=", 1)[1] for text in request.assignments if text not in others]
    try:
        return (float(factors[-1]) if factors else request.downsample), others
    except ValueError:
        return request.downsample, request.assignments  # reported with the assignments


def _varied_base(request: PlanRequest, workspace: Workspace, dataset: str) -> tuple[list[Plan], dict[str, str]]:
    path = workspace.plan(dataset, request.base or "")
    base = read_plan(path)
    if request.name == request.base or request.name in recipe_names():
        taken = ", ".join(plan_names(path.parent))
        raise PlanError(f"--name {request.name}: this is a plan's own name; choose another (plans: {taken})")
    return [make_variant(base, request.name or "", request.assignments)], {}
