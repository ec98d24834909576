"""Preparing a dataset: checks and fingerprint, folds, plans, preprocessed cases. The recipe behind ``autoseg_plan``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoseg.data.dataset import Case, Dataset
from autoseg.data.problems import Problems, dataset_error
from autoseg.data.splits import Splits, make_splits
from autoseg.data.workspace import Workspace
from autoseg.documents import write_document
from autoseg.errors import PlanError
from autoseg.fingerprint.extract import examine
from autoseg.fingerprint.fingerprint import Fingerprint, present_labels
from autoseg.plan.plan import Plan, plan_names, read_plan
from autoseg.plan.planner import make_plan
from autoseg.plan.variant import make_variant
from autoseg.preprocess.store import preprocess_dataset, preprocessing_digest

DEFAULT_ARCHITECTURES = ("unet", "nnunet", "attention_unet", "unetr")

OnCase = Callable[[Case], None]


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """Which plans are asked for.

    Attributes:
        architectures: one plan each.
        base: name of an existing plan to vary instead; None: the architectures' own plans are varied.
        assignments: ``key=value`` texts that make variants; empty: none.
        name: name of the variant; with several architectures it is appended to each one's name.
        memory_gb: memory budget in gigabytes.
        downsample: factor by which the target spacing is coarsened.
    """

    architectures: tuple[str, ...]
    base: str | None = None
    assignments: tuple[str, ...] = ()
    name: str | None = None
    memory_gb: float = 8.0
    downsample: float = 1.0


def measure(
    dataset: Dataset,
    workspace: Workspace,
    *,
    num_workers: int,
    on_case: OnCase | None = None,
    on_problems: Callable[[Problems], None] | None = None,
) -> tuple[Fingerprint, Splits]:
    """Check and measure all cases, and write problems.json, fingerprint.json and splits.json.

    Args:
        dataset: what to measure.
        workspace: where the documents are written.
        num_workers: number of threads; each holds one case in memory.
        on_case: told each finished case.
        on_problems: told all that is wrong or doubtful, before errors are raised.

    Raises:
        DatasetError: there are errors; only problems.json is written.
    """
    found = examine(dataset, num_workers=num_workers, on_case=on_case)
    report = workspace.problems(dataset.name)
    write_document(report, found.problems)
    if on_problems:
        on_problems(found.problems)
    if found.fingerprint is None:
        raise dataset_error(dataset.folder, found.problems.problems, report)
    splits = make_splits(dataset, presence=present_labels(found.fingerprint))
    write_document(workspace.fingerprint(dataset.name), found.fingerprint)
    write_document(workspace.splits(dataset.name), splits)
    return found.fingerprint, splits


def make_plans(
    fingerprint: Fingerprint, workspace: Workspace, request: PlanRequest
) -> tuple[list[Plan], dict[str, str]]:
    """Make and write the plans of ``request``.

    Returns:
        the plans, and for each architecture that does not suit the data the reason; with a single one the reason is raised.

    Raises:
        PlanError: no plan can be made; an architecture, key or base plan is unknown; nothing is written.
    """
    check_request(request)
    plans, refused = _varied_base(request, workspace, fingerprint.dataset) if request.base else _derived(fingerprint, request)
    for plan in plans:
        write_document(workspace.plan(fingerprint.dataset, plan.name), plan)
    return plans, refused


def check_request(request: PlanRequest) -> None:
    """Refuse a request that contradicts itself, before anything long is started.

    Raises:
        PlanError: a variant without a name, a name without assignments, or a base together with several architectures.
    """
    if request.assignments and not request.name:
        raise PlanError("--set: a variant needs a name of its own; add --name, e.g. --name unet_short")
    if request.base and not request.assignments:
        raise PlanError(f"--from {request.base}: nothing is changed; add --set KEY=VALUE")


def preprocess(
    dataset: Dataset, plans: Sequence[Plan], workspace: Workspace, *, num_workers: int, on_case: OnCase | None = None
) -> None:
    """Preprocess the dataset once for each distinct preprocessing among ``plans``; finished cases are kept."""
    for digest, plan in distinct_preprocessing(plans).items():
        folder = workspace.preprocessed(dataset.name, digest)
        preprocess_dataset(dataset, plan, folder, num_workers=num_workers, on_case=on_case)


def distinct_preprocessing(plans: Sequence[Plan]) -> dict[str, Plan]:
    """Return one plan for each preprocessing digest."""
    return {preprocessing_digest(plan): plan for plan in plans}


def _derived(fingerprint: Fingerprint, request: PlanRequest) -> tuple[list[Plan], dict[str, str]]:
    plans, refused = [], {}
    for architecture in request.architectures:
        try:
            plans.append(_derive_one(architecture, fingerprint, request))
        except PlanError as error:
            if len(request.architectures) == 1 or not plans and architecture == request.architectures[-1]:
                raise
            refused[architecture] = str(error)
    return plans, refused


def _derive_one(architecture: str, fingerprint: Fingerprint, request: PlanRequest) -> Plan:
    own_name = None if request.assignments or not request.name else _variant_name(architecture, request)
    plan = make_plan(
        architecture, fingerprint, memory_gb=request.memory_gb, name=own_name, downsample=request.downsample
    )
    if not request.assignments:
        return plan
    return make_variant(plan, _variant_name(architecture, request), request.assignments)


def _variant_name(architecture: str, request: PlanRequest) -> str:
    name = request.name or architecture
    return name if len(request.architectures) == 1 else f"{architecture}_{name}"


def _varied_base(request: PlanRequest, workspace: Workspace, dataset: str) -> tuple[list[Plan], dict[str, str]]:
    path = workspace.plan(dataset, request.base or "")
    base = read_plan(path)
    if request.name in (request.base, *DEFAULT_ARCHITECTURES):
        taken = ", ".join(plan_names(path.parent))
        raise PlanError(f"--name {request.name}: this is a plan's own name; choose another (plans: {taken})")
    return [make_variant(base, request.name or "", request.assignments)], {}
