"""Preparing a measured dataset: plans and preprocessed cases. With measuring.py the recipe behind ``autoseg_plan``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoseg.data.dataset import Dataset
from autoseg.data.workspace import Workspace, plan_names
from autoseg.documents import read_document, write_document
from autoseg.errors import PlanError, nearest
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.launch.first_stage import check_previous_stages
from autoseg.launch.initial import check_initial_weights
from autoseg.launch.measuring import OnCase, Part, cases_of_part
from autoseg.plan.assignments import check_assignments
from autoseg.plan.plan import Plan, read_plan
from autoseg.plan.planner import make_plan
from autoseg.plan.recipe import find_recipe, flat_name, previous_recipe, recipe_names
from autoseg.plan.spacing import choose_grid
from autoseg.plan.variant import INITIAL_WEIGHTS, make_variant
from autoseg.preprocess.memory import Crew, choose_crew
from autoseg.preprocess.preview import write_sheet
from autoseg.preprocess.run import OnError, preprocess_dataset
from autoseg.preprocess.store import CaseStore, preprocessing_digest
from autoseg.train.preview import write_preview
from autoseg.train.state import training_digest

DEFAULT_ARCHITECTURES = ("unet", "nnunet", "attention_unet", "unetr")
ALL = "all"


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


def make_plans(
    fingerprint: Fingerprint, workspace: Workspace, request: PlanRequest
) -> tuple[list[Plan], dict[str, str]]:
    """Make and write the plans of ``request``.

    Returns:
        the plans, and for each recipe that does not suit the data the reason.

    Raises:
        PlanError: no plan at all can be made, or results of another plan of that name exist; a recipe or base plan is
            unknown. DocumentError: a key is unknown, or a value does not fit. Nothing is written then.
    """
    check_request(request)
    if request.base:
        plans, refused = _varied_base(request, workspace, fingerprint.dataset)
    else:
        plans, refused = _derived(fingerprint, workspace, request)
    for plan in plans:
        check_results(plan, workspace)
    check_previous_stages(plans, workspace)
    check_initial_weights(plans, workspace)
    for plan in plans:
        write_document(workspace.plan(fingerprint.dataset, plan.name), plan)
    return plans, refused


def check_request(request: PlanRequest) -> None:
    """Refuse a request that contradicts itself or names an unknown recipe, before anything long is started.

    Raises:
        PlanError: an unknown recipe, a variant without a name or with the name of a recipe, or a base plan together
            with what it fixes already.
    """
    for name in request.architectures:
        if name != ALL:
            find_recipe(name)
    check_assignments(request.assignments)
    if request.assignments and not request.name:
        raise PlanError("--set: a variant needs a name of its own; add --name, e.g. --name unet_short")
    if request.base and not request.assignments:
        raise PlanError(f"--from {request.base}: nothing is changed; add --set KEY=VALUE")
    if request.base and (request.architectures or request.downsample != 1.0):
        option = "-a" if request.architectures else "--downsample"
        raise PlanError(f"--from {request.base}: this plan fixes what {option} would say; leave {option} out")
    changed = request.base or request.assignments or request.architectures != (request.name,)
    if request.name in recipe_names() and len(request.architectures) < 2 and changed:
        raise PlanError(f"--name {request.name}: this is the name of a recipe's own plan; choose another")


def extend(request: PlanRequest, trained: str) -> PlanRequest:
    """Return the request for a variant of a trained plan that starts from its weights, named ``TRAINED_extended``.

    Raises:
        PlanError: it asks for another base plan, or for other weights.
    """
    if request.base:
        raise PlanError(f"--extend {trained}: is --from and more; leave --from {request.base} out")
    if any(text.partition("=")[0].strip() == INITIAL_WEIGHTS for text in request.assignments):
        raise PlanError(f"--extend {trained}: sets {INITIAL_WEIGHTS} already; leave it out, or use --from {trained}")
    assignments = (f"{INITIAL_WEIGHTS}={trained}", *request.assignments)
    return replace(request, base=trained, assignments=assignments, name=request.name or f"{trained}_extended")


def gpu_memory_gb() -> float:
    """Return the memory of this machine's first CUDA device in 10^9 bytes.

    Raises:
        PlanError: there is none.
    """
    if not torch.cuda.is_available():
        raise PlanError("--memory auto: this machine has no CUDA GPU to ask; give its memory in GB, e.g. --memory 24")
    return float(torch.cuda.get_device_properties(0).total_memory / 1e9)


def preprocess(
    dataset: Dataset,
    plans: Sequence[Plan],
    workspace: Workspace,
    *,
    num_workers: int,
    part: Part | None = None,
    device: torch.device | None = None,
    force: bool = False,
    on_case: OnCase | None = None,
    on_error: OnError | None = None,
    on_crew: Callable[[Crew], None] | None = None,
) -> list[str]:
    """Preprocess the dataset once for each distinct preprocessing among ``plans``; finished cases are kept.

    Args:
        dataset: measured already.
        plans: of it.
        workspace: where the cases go.
        num_workers: most threads; fewer where memory is short.
        part: whose cases alone are made; parts may run anywhere at the same time.
        device: that images are resampled on; None: the CPU.
        force: make finished cases again too.
        on_case: told each case that is done, failed or skipped.
        on_error: told each case that failed, and why.
        on_crew: told, for each preprocessing, how many workers there are and what each may take.

    Returns:
        sorted names of the cases that failed in any preprocessing.
    """
    fingerprint = read_document(workspace.fingerprint(dataset.name), Fingerprint)
    cases = cases_of_part(dataset, part) if part else dataset.cases
    failed: set[str] = set()
    for digest, plan in distinct_preprocessing(plans).items():
        crew = choose_crew(fingerprint.cases, plan, wanted=num_workers)
        if on_crew:
            on_crew(crew)
        failed |= set(
            preprocess_dataset(
                dataset, plan, workspace.preprocessed(dataset.name, digest), num_workers=crew.num_workers,
                cases=cases, device=device, force=force, on_case=on_case, on_error=on_error,
            )
        )  # fmt: skip
    return sorted(failed)


def find_made_plans(fingerprint: Fingerprint, workspace: Workspace, request: PlanRequest) -> list[Plan]:
    """Return the plans of a request as they were made; its architectures may name any other plan too.

    A recipe without a plan was skipped when the others were made.

    Raises:
        PlanError: there is none of them, or one is neither a plan nor a recipe.
    """
    folder, recipes = workspace.plans(fingerprint.dataset), _recipes_of(fingerprint, request)
    names = [request.name or ""] if request.base else [_name(one, request, alone=len(recipes) == 1) for one in recipes]
    known = plan_names(folder)
    for name in request.architectures:
        if name not in (*known, ALL) and not _is_recipe(name):
            raise PlanError(
                f"-a {name}: {folder} has no such plan{nearest(name, known)}; there are: {', '.join(known)}"
            )
    if not (made := [name for name in names if name in known]):
        raise PlanError(f"{folder}: no plan {' or '.join(names)} is made yet; run the same without --only-preprocess")
    return [read_plan(workspace.plan(fingerprint.dataset, name)) for name in made]


def with_first_stages(plans: Sequence[Plan], workspace: Workspace) -> list[Plan]:
    """Return the plans and, before them, the first stages of those that have one: both need their cases."""
    own = {plan.name for plan in plans}
    names = dict.fromkeys(plan.previous_stage for plan in plans if plan.previous_stage not in (None, *own))
    paths = [workspace.plan(plans[0].dataset.name, str(name)) for name in names]
    return [*(read_plan(path) for path in paths), *plans]


def count_preprocessed(dataset: Dataset, plans: Sequence[Plan], workspace: Workspace) -> int:
    """Return how many cases are preprocessed for all of the plans, by whomever, changed since or not."""
    names = {case.name for case in dataset.cases}
    for digest in distinct_preprocessing(plans):
        names &= set(CaseStore(workspace.preprocessed(dataset.name, digest)).names())
    return len(names)


def preview(plan: Plan, workspace: Workspace, *, num_workers: int) -> Path:
    """Write a picture of the plan's augmented patches beside the plan, and return where.

    Raises:
        TrainingError: no case is preprocessed.
    """
    path = workspace.plan(plan.dataset.name, plan.name).with_suffix(".augmentation.png")
    store = CaseStore(workspace.preprocessed(plan.dataset.name, preprocessing_digest(plan)))
    write_preview(plan, store, path, num_workers=num_workers)
    return path


def preview_preprocessing(dataset: Dataset, plan: Plan, workspace: Workspace) -> Path:
    """Write a picture of some cases before and after the plan's preprocessing beside the plan, and return where.

    Raises:
        WorkspaceError: no case is preprocessed.
    """
    path = workspace.plan(plan.dataset.name, plan.name).with_suffix(".preprocessing.png")
    store = CaseStore(workspace.preprocessed(plan.dataset.name, preprocessing_digest(plan)))
    write_sheet(dataset.cases, plan, store, path)
    return path


def distinct_preprocessing(plans: Sequence[Plan]) -> dict[str, Plan]:
    """Return one plan for each preprocessing digest."""
    return {preprocessing_digest(plan): plan for plan in plans}


def _derived(fingerprint: Fingerprint, workspace: Workspace, request: PlanRequest) -> tuple[list[Plan], dict[str, str]]:
    plans: list[Plan] = []
    refused: dict[str, str] = {}
    names = _recipes_of(fingerprint, request)
    for name in names:
        try:
            plan = _derive_one(name, fingerprint, request, alone=len(names) == 1)
            plans += [*_first_stage(name, plan, plans, fingerprint, workspace, request), plan]
        except PlanError as error:
            refused[name] = str(error)
    if not plans:
        reasons = list(dict.fromkeys(refused.values()))
        each = "; ".join(f"{name}: {text}" for name, text in refused.items())
        raise PlanError(reasons[0] if len(reasons) == 1 else each)
    return plans, refused


def _recipes_of(fingerprint: Fingerprint, request: PlanRequest) -> list[str]:
    """Return the names of the recipes; images of a single slice get the default ones in 2-D as well."""
    if request.architectures:
        names = [one for name in request.architectures for one in (recipe_names() if name == ALL else [name])]
        return list(dict.fromkeys(names))
    defaults = ("unet",) if request.assignments else DEFAULT_ARCHITECTURES
    flat = [flat_name(name) for name in defaults] if choose_grid(fingerprint, dimensions=2).is_flat else []
    return [*defaults, *(name for name in flat if name)]


def _is_recipe(name: str) -> bool:
    try:
        find_recipe(name)
    except PlanError:
        return False
    return True


def _name(recipe: str, request: PlanRequest, *, alone: bool) -> str:
    """Return the name of a recipe's plan; ``alone``: no other is asked for."""
    name = recipe.rsplit(".", 1)[-1]
    return name if not request.name else request.name if alone else f"{name}_{request.name}"


def _derive_one(recipe: str, fingerprint: Fingerprint, request: PlanRequest, *, alone: bool) -> Plan:
    name = _name(recipe, request, alone=alone)
    downsample, assignments = _split_downsample(request)
    plan = make_plan(
        recipe, fingerprint, memory_gb=request.memory_gb, downsample=downsample, name=None if assignments else name
    )
    return make_variant(plan, name, assignments) if assignments else plan


def _first_stage(
    recipe: str,
    plan: Plan,
    plans: Sequence[Plan],
    fingerprint: Fingerprint,
    workspace: Workspace,
    request: PlanRequest,
) -> list[Plan]:
    """Return the plan of a cascade's own first stage, if there is none yet and none was asked for."""
    first = previous_recipe(recipe)
    known = {*(one.name for one in plans), *plan_names(workspace.plans(fingerprint.dataset)), *request.architectures}
    if first is None or plan.previous_stage != find_recipe(recipe).previous_stage or plan.previous_stage in known:
        return []
    downsample, _ = _split_downsample(request)
    return [make_plan(first, fingerprint, memory_gb=request.memory_gb, downsample=downsample)]


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
    if request.name == request.base:
        taken = ", ".join(plan_names(path.parent))
        raise PlanError(f"--name {request.name}: this is the base plan's own name; choose another (plans: {taken})")
    return [make_variant(base, request.name or "", request.assignments)], {}


def check_results(plan: Plan, workspace: Workspace) -> None:
    """Refuse to put a plan in the place of another one that was trained: the results would belong to neither.

    Raises:
        PlanError: a fold of another plan of this name is trained.
    """
    folder = workspace.fold(plan.dataset.name, plan.name, 0).parent
    for checkpoint in sorted(folder.glob("fold_*/checkpoints/last.pt")):
        run = checkpoint.parents[1]
        if training_digest(read_document(run / "plan.json", Plan)) != training_digest(plan):
            raise PlanError(
                f"plan {plan.name}: {run} was trained with another plan of this name (options, dataset or planner "
                f"differ); give the new plan another --name, or move {folder} elsewhere"
            )
