"""The work of autoseg_plan on the cases: measuring a part of them, preprocessing all or a part."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autoseg.cli._command import answer, console
from autoseg.cli._progress import progress_bar
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.cli._answers import PartAnswer
    from autoseg.data.dataset import Dataset
    from autoseg.data.problems import Problem
    from autoseg.data.workspace import Workspace
    from autoseg.launch.measuring import Part
    from autoseg.launch.prepare import PlanRequest
    from autoseg.plan.plan import Plan


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes:
        plans: that were made, or preprocessed for.
        failed: cases that could not be preprocessed; None where none was to be.
        next: the command to type now; None where others must end first.
        skipped: what was not planned, and why.
        others: documents beside the plans.
    """

    plans: "list[Plan]"
    failed: list[str] | None
    next: str | None
    skipped: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def measure_one_part(dataset: "Dataset", place: "Workspace", text: str, *, force: bool, workers: int) -> None:
    """Measure the cases of a part, given as K/N, and tell what comes next."""
    from autoseg.launch.measuring import cases_of_part, measure_part, parse_part

    part = parse_part(text, len(dataset.cases))
    total = len(cases_of_part(dataset, part))
    with progress_bar(f"measuring part {text}", total) as advance:
        problems = measure_part(dataset, place, part, num_workers=workers, on_case=advance, force=force)
    out, errors = console(), sum(problem.severity == "error" for problem in problems)
    out.print(
        f"measured {count(total, 'case')}: {count(errors, 'error')} and "
        f"{count(len(problems) - errors, 'warning')} in single cases"
    )
    out.print(f"wrote {place.measured(dataset.name)}", soft_wrap=True)
    out.print(f"next: autoseg_plan -d {dataset.name} when all {part[1]} parts are there, to merge them and plan")
    answer(lambda: _part_answer(dataset, text, total, problems, place))


def _part_answer(
    dataset: "Dataset", part: str, num_cases: int, problems: "Sequence[Problem]", place: "Workspace"
) -> "PartAnswer":
    from autoseg.cli._answers import PartAnswer

    errors, folder = sum(problem.severity == "error" for problem in problems), str(place.measured(dataset.name))
    return PartAnswer(
        dataset=dataset.name, part=part, num_cases=num_cases, errors=errors, warnings=len(problems) - errors,
        written=(folder,),
    )  # fmt: skip


def preprocess_made(
    dataset: "Dataset",
    place: "Workspace",
    request: "PlanRequest",
    text: str | None,
    *,
    device: Any,
    force: bool,
    workers: int,
) -> Made:
    """Preprocess the cases, or a part given as K/N, for plans that were made before."""
    from autoseg.errors import WorkspaceError
    from autoseg.launch.measuring import cases_of_part, parse_part
    from autoseg.launch.prepare import count_preprocessed, find_made_plans
    from autoseg.launch.ready import read_measured

    part = parse_part(text, len(dataset.cases)) if text else None
    found = read_measured(dataset, place)
    if found is None:
        raise WorkspaceError(
            f"{place.plans(dataset.name)}: these cases are not measured yet; run the same with --no-preprocess instead "
            "of --only-preprocess"
        )
    plans = find_made_plans(found[0], place, request)
    failed = preprocess_cases(dataset, plans, place, part, device=device, force=force, workers=workers)
    total = len(cases_of_part(dataset, part)) if part else len(dataset.cases)
    there, whole = count_preprocessed(dataset, plans, place), len(dataset.cases)
    of_part = f" of part {text}" if text else ""
    out = console()
    out.print(
        f"preprocessed {total - len(failed)} of {count(total, 'case')}{of_part}; {there} of all {whole} are there"
    )
    return Made(plans, failed, tell_next(dataset.name, plans, ready=True) if there == whole else None)


def preprocess_cases(
    dataset: "Dataset",
    plans: "Sequence[Plan]",
    place: "Workspace",
    part: "Part | None",
    *,
    device: Any,
    force: bool,
    workers: int,
) -> list[str]:
    """Preprocess cases for plans and their first stages, tell which could not be, and return their names."""
    from autoseg.launch.measuring import cases_of_part
    from autoseg.launch.prepare import distinct_preprocessing, preprocess, with_first_stages

    def tell(case: Any, reason: str) -> None:
        sys.stderr.write(f"error: case {case.name}: {' '.join(reason.split())}\n")

    def announce(crew: Any) -> None:
        plural = "s" if crew.num_workers > 1 else ""
        text = f"preprocessing on {device}: {crew.num_workers} worker{plural}, at most {_size(crew.peak_bytes)} each"
        console().print(text, soft_wrap=True)

    needed = with_first_stages(plans, place)
    total = len(cases_of_part(dataset, part)) if part else len(dataset.cases)
    with progress_bar("preprocessing", total * len(distinct_preprocessing(needed))) as advance:
        return preprocess(
            dataset, needed, place, num_workers=workers, part=part, device=device, force=force, on_case=advance,
            on_error=tell, on_crew=announce,
        )  # fmt: skip


def tell_next(dataset: str, plans: "Sequence[Plan]", *, ready: bool, mend: bool = False) -> str:
    """Print and return the command that comes next.

    Args:
        dataset: of the plans.
        plans: that were made.
        ready: all cases are preprocessed.
        mend: some could not be; else, unless ``ready``, none was tried.
    """
    first, source = plans[0].previous_stage, plans[0].training.initial_weights
    train = f"autoseg_train -d {dataset} -a {first or plans[0].name} -f 0"
    later = f"   (and its other folds; then {plans[0].name})" if first and ready else ""
    if source and ready:
        later += f"   (it starts from fold 0 of {source}, trained before)"
    names = " ".join(f"-a {one.name}" for one in plans)
    preprocess = f"autoseg_plan -d {dataset}" if mend else f"autoseg_plan -d {dataset} {names} --only-preprocess"
    following = train if ready else preprocess
    console().print(f"next: {following}{later}", soft_wrap=True)
    return following


def _size(num_bytes: int) -> str:
    """Return an amount of memory for a reader, rounded up."""
    return f"{num_bytes / 1e9 + 0.05:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes // 10**6 + 1} MB"
