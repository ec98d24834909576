"""Making a table ready to run: the fingerprint, the plans that are missing, and which runs these come to."""

from collections.abc import Callable, Sequence

from autoseg.data.dataset import Dataset
from autoseg.data.problems import Problems
from autoseg.data.splits import Splits, get_fold
from autoseg.data.workspace import Workspace, plan_names
from autoseg.documents import read_document
from autoseg.errors import PlanError, nearest
from autoseg.fingerprint.fingerprint import Fingerprint, read_fingerprint
from autoseg.launch.measuring import OnCase, measure
from autoseg.launch.order import find_needs, seeded_source, sort_entries
from autoseg.launch.prepare import PlanRequest, check_results, count_preprocessed, make_plans, with_first_stages
from autoseg.launch.table import Entry
from autoseg.plan.plan import Plan, read_plan
from autoseg.plan.recipe import recipe_names
from autoseg.plan.story import differences
from autoseg.plan.variant import INITIAL_WEIGHTS, make_variant
from autoseg.train.state import training_digest


def read_measured(dataset: Dataset, workspace: Workspace) -> tuple[Fingerprint, Splits] | None:
    """Return fingerprint.json and splits.json, or None if one is missing or the dataset has other cases by now."""
    paths = workspace.fingerprint(dataset.name), workspace.splits(dataset.name)
    if not all(path.is_file() for path in paths):
        return None
    fingerprint = read_fingerprint(paths[0])
    if {case.name for case in fingerprint.cases} != {case.name for case in dataset.cases}:
        return None
    return fingerprint, read_document(paths[1], Splits)


def is_prepared(dataset: Dataset, workspace: Workspace, plans: Sequence[str]) -> bool:
    """Whether a dataset is measured, all the plans are made, and all its cases are preprocessed for them."""
    paths = [workspace.plan(dataset.name, name) for name in plans]
    if read_measured(dataset, workspace) is None or not all(path.is_file() for path in paths):
        return False
    needed = with_first_stages([read_plan(path) for path in paths], workspace)
    return count_preprocessed(dataset, needed, workspace) == len(dataset.cases)


def measure_once(
    dataset: Dataset,
    workspace: Workspace,
    *,
    num_workers: int,
    on_case: OnCase | None = None,
    on_problems: Callable[[Problems], None] | None = None,
) -> tuple[Fingerprint, Splits]:
    """Return what ``read_measured`` finds, else measure the dataset as ``autoseg_plan`` does."""
    found = read_measured(dataset, workspace)
    if found is not None:
        return found
    return measure(dataset, workspace, num_workers=num_workers, on_case=on_case, on_problems=on_problems)


def choose_table_folds(splits: Splits, folds: Sequence[int] | None) -> tuple[int, ...]:
    """Return the given folds, or all.

    Raises:
        DatasetError: there is no such fold.
    """
    for fold in folds or ():
        get_fold(splits, fold)
    return tuple(dict.fromkeys(folds)) if folds else tuple(range(len(splits.folds)))


def make_missing_plans(
    fingerprint: Fingerprint, workspace: Workspace, entries: Sequence[Entry]
) -> tuple[list[Plan], list[str]]:
    """Return the plans of a table in its order, and the names of those that were made; the others stay as they are.

    Raises:
        PlanError: a plan is missing and no recipe is called so, does not suit the data, or a plan of that name is
            another one than the table says. DocumentError: a field to set is unknown or does not fit.
    """
    plans: dict[str, Plan] = {}
    made: list[str] = []
    names = [entry.name for entry in entries]
    for entry in sort_entries(entries, find_needs(entries, workspace, fingerprint.dataset)):
        path = workspace.plan(fingerprint.dataset, entry.name)
        request = _with_assignments(entry, workspace, fingerprint.dataset, names)
        if path.is_file():
            plan = read_plan(path)
            check_results(plan, workspace)
            _check_agrees(plan, request)
        else:
            plan = _make_one(entry, request, fingerprint, workspace)
            made.append(entry.name)
        plans[entry.name] = plan
    return [plans[name] for name in names], [name for name in names if name in made]


def _make_one(entry: Entry, request: PlanRequest | None, fingerprint: Fingerprint, workspace: Workspace) -> Plan:
    if request is None:
        known = [*plan_names(workspace.plans(fingerprint.dataset)), *recipe_names()]
        raise PlanError(
            f"-a {entry.name}: no plan and no architecture of that name{nearest(entry.name, known)}; plans of "
            f"{fingerprint.dataset} and architectures: {', '.join(dict.fromkeys(known))}"
        )
    try:
        plans, _ = make_plans(fingerprint, workspace, request)
    except PlanError as error:
        raise PlanError(f"plan {entry.name} of the table: {error}") from None
    return plans[-1]  # before it stands a first stage that was missing too


def _with_assignments(entry: Entry, workspace: Workspace, dataset: str, names: Sequence[str]) -> PlanRequest | None:
    """Return the entry's request; a seed is counted from that of its base, which is made by then.

    A repetition of a plan that builds on another one builds on the repetition of that, if the table has it.
    """
    request = entry.request
    if request is None or not entry.seed:
        return request
    base = read_plan(workspace.plan(dataset, request.base or ""))
    assignments = [f"training.seed={base.training.seed + entry.seed}"]
    for key, source in (("previous_stage", base.previous_stage), (INITIAL_WEIGHTS, base.training.initial_weights)):
        twin = seeded_source(source, entry.seed, names)
        if twin != source:
            assignments.append(f"{key}={twin}")
    return PlanRequest(base=request.base, name=request.name, assignments=tuple(assignments))


def _check_agrees(plan: Plan, request: PlanRequest | None) -> None:
    """Refuse a plan that is not what the table would set: its runs would stand in the report under a false name."""
    if request is None or not request.assignments:
        return
    # What is set again as it is changes nothing, but for the factor, by which the spacing is coarse already.
    same = f"preprocessing.downsample={plan.preprocessing.downsample:g}"
    assignments = [text for text in request.assignments if text.replace(" ", "").removesuffix(".0") != same]
    wanted = make_variant(plan, plan.name, assignments) if assignments else plan
    if training_digest(wanted) == training_digest(plan):
        return
    field, found, asked = differences(plan, wanted)[0]
    raise PlanError(
        f"plan {plan.name}: there is one already, with {field} {found}, and the table says {asked}; name the row "
        f"otherwise (or --name), or delete that plan"
    )
