"""autoseg_plan: check and measure a dataset, plan every architecture, preprocess the cases."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from autoseg.cli._command import (
    SOME_FAILED,
    DeviceOption,
    OptionalDatasetOption,
    WorkersOption,
    WorkspaceOption,
    console,
    num_workers,
    run,
)
from autoseg.cli._completion import complete_plan, complete_recipe
from autoseg.cli._plans import difference_table, plans_table, read_memory, story_text
from autoseg.cli._progress import progress_bar

if TYPE_CHECKING:
    from autoseg.data.dataset import Dataset
    from autoseg.data.problems import Problems
    from autoseg.data.workspace import Workspace
    from autoseg.fingerprint.fingerprint import Fingerprint
    from autoseg.launch.prepare import PlanRequest
    from autoseg.plan.plan import Plan


def plan(
    dataset: OptionalDatasetOption = None,
    architecture: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "-a",
            "--architecture",
            help="What to plan: an architecture, NAME_2d, _lowres or _cascade, or all; repeat. Default: four in 3-D.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    memory: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--memory", help="Memory of the training device in GB, or auto: this machine's GPU. Default: 8."),
    ] = None,
    base: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", help="Existing plan to make a variant of.", autocompletion=complete_plan),
    ] = None,
    assignments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="KEY=VALUE of the plan, e.g. training.epochs=20; repeat. Needs --name."),
    ] = None,
    name: Annotated[Optional[str], typer.Option("--name", help="Name of the new plan.")] = None,  # noqa: UP045
    downsample: Annotated[
        float, typer.Option("--downsample", min=1, help="Coarsen the target spacing by this factor.")
    ] = 1.0,
    no_preprocess: Annotated[bool, typer.Option("--no-preprocess", help="Stop after writing the plans.")] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Draw cases before and after preprocessing, and augmented patches.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Measure and preprocess again what is finished.")] = False,
    explain: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--explain",
            help="Only tell how an existing plan (its name, or a path) came about.",
            autocompletion=complete_plan,
        ),
    ] = None,
    diff: Annotated[
        Optional[tuple[str, str]],  # noqa: UP045
        typer.Option(
            "--diff",
            help="Only show what differs between two existing plans (names, or paths).",
            autocompletion=complete_plan,
        ),
    ] = None,
    part: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--part", help="K/N: only measure every N-th case from the K-th on; then run without it."),
    ] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Check and measure a dataset, plan the architectures, and preprocess the cases.

    Example: autoseg_plan -d Hippocampus -a unet -a unetr
    """
    if explain or diff:
        _show(explain, diff, dataset, workspace)
        return
    if dataset is None:
        raise typer.BadParameter("Missing option '-d' / '--dataset'.")
    from autoseg.data.dataset import find_dataset, find_folder
    from autoseg.data.workspace import open_workspace
    from autoseg.fingerprint.nnunet import holds_fingerprint_only
    from autoseg.launch.fold import choose_device
    from autoseg.launch.prepare import PlanRequest, check_request

    request = PlanRequest(
        architectures=tuple(architecture or ()), base=base, assignments=tuple(assignments or ()), name=name,
        memory_gb=read_memory(memory), downsample=downsample,
    )  # fmt: skip
    check_request(request)
    place = open_workspace(workspace)
    folder = find_folder(dataset, place)
    if holds_fingerprint_only(folder):
        _plan_from_fingerprint(folder, place, request)
        return
    found = find_dataset(dataset, place, strict=False)
    console().print(f"{found.name}: {len(found.cases)} cases, {len(found.channels)} channel(s), in {found.folder}")
    if part:
        _measure_part(found, place, part, force=force, workers=num_workers(workers))
        return
    chosen = None if no_preprocess else choose_device(device)
    plans, failed = _prepare(found, place, request, device=chosen, force=force, workers=num_workers(workers))
    if preview:
        _write_previews(found, plans, place, num_workers(workers))
    if failed:
        raise typer.Exit(SOME_FAILED)


def _write_previews(dataset: "Dataset", plans: "Sequence[Plan]", place: "Workspace", workers: int) -> None:
    from autoseg.launch.prepare import distinct_preprocessing, preview, preview_preprocessing

    for one in distinct_preprocessing(plans).values():
        console().print(f"wrote {preview_preprocessing(dataset, one, place)}", soft_wrap=True)
    for one in plans:
        console().print(f"wrote {preview(one, place, num_workers=workers)}", soft_wrap=True)


def _show(explain: str | None, diff: tuple[str, str] | None, dataset: str | None, workspace: Path | None) -> None:
    """Tell the story of a plan, or the difference of two; nothing is written."""
    from autoseg.data.workspace import open_workspace
    from autoseg.launch.lookup import find_plan

    place, out = open_workspace(workspace), console()
    if explain:
        out.print(story_text(find_plan(explain, place, dataset)), markup=False)
    if diff:
        first, second = (find_plan(name, place, dataset) for name in diff)
        out.print(difference_table(first, second))


def _measure_part(dataset: "Dataset", place: "Workspace", part: str, *, force: bool, workers: int) -> None:
    from autoseg.launch.measuring import measure_part, parse_part

    number, count = parse_part(part, len(dataset.cases))
    total = len(dataset.cases[number - 1 :: count])
    with progress_bar(f"measuring part {part}", total) as advance:
        problems = measure_part(dataset, place, number, count, num_workers=workers, on_case=advance, force=force)
    out, errors = console(), sum(problem.severity == "error" for problem in problems)
    out.print(f"measured {total} cases: {errors} errors and {len(problems) - errors} warnings in single cases")
    out.print(f"wrote {place.measured(dataset.name)}", soft_wrap=True)
    out.print(f"next: autoseg_plan -d {dataset.name} when all {count} parts are there, to merge them and plan")


def _prepare(
    dataset: "Dataset", place: "Workspace", request: "PlanRequest", *, device: Any, force: bool, workers: int
) -> "tuple[list[Plan], list[str]]":
    """Measure, plan, and preprocess on the device unless it is None; return the plans and the cases that failed."""
    from autoseg.launch.measuring import measure

    out = console()
    with progress_bar("checking and measuring", len(dataset.cases)) as advance:
        fingerprint, splits = measure(
            dataset, place, num_workers=workers, on_case=advance, on_problems=_print_problems, force=force
        )
    _print_fingerprint(fingerprint, len(splits.folds))
    plans = _make_plans(fingerprint, place, request)
    failed = [] if device is None else _preprocess(dataset, plans, place, device=device, force=force, workers=workers)
    _print_written(dataset.name, plans, place, "fingerprint.json, splits.json, problems.json")
    first = plans[0].previous_stage
    train = f"autoseg_train -d {dataset.name} -a {first or plans[0].name} -f 0"
    later = f"   (and its other folds; then {plans[0].name})" if first else ""
    if failed:
        out.print(f"preprocessed: {len(dataset.cases) - len(failed)} of {len(dataset.cases)} cases")
    ready = device is not None and not failed
    out.print(f"next: {train + later if ready else f'autoseg_plan -d {dataset.name}'}", soft_wrap=True)
    return plans, failed


def _preprocess(
    dataset: "Dataset", plans: "list[Plan]", place: "Workspace", *, device: Any, force: bool, workers: int
) -> list[str]:
    """Preprocess the cases, tell which could not be, and return their names."""
    from autoseg.launch.prepare import distinct_preprocessing, preprocess

    def tell(case: Any, reason: str) -> None:
        sys.stderr.write(f"error: case {case.name}: {' '.join(reason.split())}\n")

    def announce(crew: Any) -> None:
        plural = "s" if crew.num_workers > 1 else ""
        text = f"preprocessing on {device}: {crew.num_workers} worker{plural}, at most {_size(crew.peak_bytes)} each"
        console().print(text, soft_wrap=True)

    with progress_bar("preprocessing", len(dataset.cases) * len(distinct_preprocessing(plans))) as advance:
        return preprocess(
            dataset, plans, place, num_workers=workers, device=device, force=force, on_case=advance, on_error=tell,
            on_crew=announce,
        )  # fmt: skip


def _size(num_bytes: int) -> str:
    """Return an amount of memory for a reader, rounded up."""
    return f"{num_bytes / 1e9 + 0.05:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes // 10**6 + 1} MB"


def _plan_from_fingerprint(folder: Path, place: "Workspace", request: "PlanRequest") -> None:
    from autoseg.launch.measuring import take_fingerprint

    fingerprint = take_fingerprint(folder, place)
    out = console()
    out.print(f"{fingerprint.dataset}: nnU-Net's fingerprint of {len(fingerprint.cases)} cases, no images, in {folder}")
    plans = _make_plans(fingerprint, place, request)
    _print_written(fingerprint.dataset, plans, place, "fingerprint.json")
    out.print(f"next: autoseg_plan -d FOLDER where the images are, to preprocess and train {plans[0].name}")


def _make_plans(fingerprint: "Fingerprint", place: "Workspace", request: "PlanRequest") -> "list[Plan]":
    """Make the plans and print them, and why others were skipped."""
    from autoseg.launch.prepare import make_plans
    from autoseg.plan.sides import mirroring_warnings

    with progress_bar("planning", None):
        plans, refused = make_plans(fingerprint, place, request)
    out = console()
    out.print(plans_table(plans, fingerprint))
    for one in plans:
        for warning in mirroring_warnings(one):
            out.print(f"warning: {warning}", markup=False, soft_wrap=True)
    for reason in dict.fromkeys(refused.values()):
        names = ", ".join(name for name, text in refused.items() if text == reason)
        out.print(f"skipped {names}: {reason}", markup=False)
    return plans


def _print_problems(problems: "Problems") -> None:
    """Print what the checks found, worst first: one block a problem, since its three texts are long."""
    if not problems.problems:
        return
    from autoseg.cli._tables import problems_table

    out = console()
    out.print(f"checked: {problems.errors} errors and {problems.warnings} warnings, worst first")
    out.print(problems_table(problems))


def _print_fingerprint(fingerprint: "Fingerprint", num_folds: int) -> None:
    import numpy as np

    spacing = np.median([case.spacing for case in fingerprint.cases], axis=0).tolist()
    shape = np.median([case.shape for case in fingerprint.cases], axis=0).tolist()
    orientations = sorted({case.orientation for case in fingerprint.cases})
    console().print(
        f"checked: no errors; median {_times(shape)} voxels of {_times(spacing)} mm (z, y, x); "
        f"stored as {', '.join(orientations)}; {num_folds} folds",
        markup=False,
    )
    for name, found in fingerprint.components.items():
        cases = sum(case.label_voxels[name] > 0 for case in fingerprint.cases)
        sizes = (
            f", of {found.min_mm3:.3g} to {found.max_mm3:.3g} mm3, median {found.median_mm3:.3g}" if found.count else ""
        )
        console().print(f"  {name}: in {cases} cases, {found.count} components{sizes}", markup=False)


def _print_written(dataset: str, plans: "Sequence[Plan]", place: "Workspace", others: str) -> None:
    names = ", ".join(f"{one.name}.json" for one in plans)
    console().print(f"wrote {place.plans(dataset)}: {others}, {names} (each number has its reason under 'rationale')")


def _times(values: "Sequence[float]") -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_plan`` and return its exit status."""
    return run(plan, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
