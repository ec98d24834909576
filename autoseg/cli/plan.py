"""autoseg_plan: check and measure a dataset, plan every architecture, preprocess the cases."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from autoseg.cli._command import DatasetOption, WorkersOption, WorkspaceOption, console, num_workers, run
from autoseg.cli._progress import progress_bar

if TYPE_CHECKING:
    from autoseg.data.dataset import Dataset
    from autoseg.data.problems import Problems
    from autoseg.data.workspace import Workspace
    from autoseg.fingerprint.fingerprint import Fingerprint
    from autoseg.launch.prepare import PlanRequest
    from autoseg.plan.plan import Plan


def plan(
    dataset: DatasetOption,
    architecture: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("-a", "--architecture", help="Architecture to plan; repeat for several. Default: all four."),
    ] = None,
    memory: Annotated[float, typer.Option("--memory", min=0.1, help="Memory budget of the training device, in GB.")] = 8.0,
    base: Annotated[Optional[str], typer.Option("--from", help="Existing plan to make a variant of.")] = None,  # noqa: UP045
    assignments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="KEY=VALUE of the plan, e.g. training.epochs=20; repeat. Needs --name."),
    ] = None,
    name: Annotated[Optional[str], typer.Option("--name", help="Name of the new plan.")] = None,  # noqa: UP045
    downsample: Annotated[float, typer.Option("--downsample", min=1, help="Coarsen the target spacing by this factor.")] = 1.0,
    no_preprocess: Annotated[bool, typer.Option("--no-preprocess", help="Stop after writing the plans.")] = False,
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Check and measure a dataset, plan the architectures, and preprocess the cases.

    Example: autoseg_plan -d Hippocampus -a unet -a unetr
    """
    from autoseg.data.dataset import find_dataset
    from autoseg.data.workspace import open_workspace
    from autoseg.launch.prepare import DEFAULT_ARCHITECTURES, PlanRequest, check_request
    from autoseg.networks import load_architecture

    request = PlanRequest(
        architectures=tuple(architecture or (("unet",) if assignments else DEFAULT_ARCHITECTURES)),
        base=base, assignments=tuple(assignments or ()), name=name, memory_gb=memory, downsample=downsample,
    )  # fmt: skip
    check_request(request)
    for one in request.architectures:
        load_architecture(one)
    place = open_workspace(workspace)
    found = find_dataset(dataset, place, strict=False)
    console().print(f"{found.name}: {len(found.cases)} cases, {len(found.channels)} channels, in {found.folder}")
    _prepare(found, place, request, preprocess_too=not no_preprocess, workers=num_workers(workers))


def _prepare(dataset: "Dataset", place: "Workspace", request: "PlanRequest", *, preprocess_too: bool, workers: int) -> None:
    from autoseg.launch.prepare import distinct_preprocessing, make_plans, measure, preprocess

    out = console()
    with progress_bar("checking and measuring", len(dataset.cases)) as advance:
        fingerprint, splits = measure(
            dataset, place, num_workers=workers, on_case=advance, on_problems=_print_problems
        )
    _print_fingerprint(fingerprint, len(splits.folds))
    with progress_bar("planning", None):
        plans, refused = make_plans(fingerprint, place, request)
    _print_plans(plans)
    for architecture, reason in refused.items():
        out.print(f"skipped {architecture}: {reason}", markup=False)
    if preprocess_too:
        total = len(dataset.cases) * len(distinct_preprocessing(plans))
        with progress_bar("preprocessing", total) as advance:
            preprocess(dataset, plans, place, num_workers=workers, on_case=advance)
    _print_end(dataset.name, plans, place, preprocess_too)


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

    spacing = np.median([case.spacing for case in fingerprint.cases], axis=0)
    shape = np.median([case.shape for case in fingerprint.cases], axis=0)
    orientations = sorted({case.orientation for case in fingerprint.cases})
    console().print(
        f"checked: no errors; median {_times(shape)} voxels of {_times(spacing)} mm (z, y, x); "
        f"stored as {', '.join(orientations)}; {num_folds} folds",
        markup=False,
    )


def _print_plans(plans: "Sequence[Plan]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("plan")
    for column in ("patch, voxels", "patch, mm", "batch", "stages", "parameters", "memory", "epochs", "optimizer"):
        table.add_column(column, justify="right")
    for one in plans:
        size, training = one.training.patch_size, one.training
        extent = [round(n * s) for n, s in zip(size, one.preprocessing.spacing)]
        table.add_row(
            one.name, _times(size), _times(extent), str(training.batch_size), _num_stages(one),
            f"{one.estimate.parameters / 1e6:.1f} M", f"{one.estimate.memory_gb:.1f} GB",
            f"{training.epochs} x {training.iterations_per_epoch}", f"{training.optimizer.name} {training.optimizer.learning_rate:g}",
        )  # fmt: skip
    console().print(table)


def _num_stages(one: "Plan") -> str:
    strides = one.network.config.get("strides")
    return str(len(strides)) if strides else "-"


def _print_end(dataset: str, plans: "Sequence[Plan]", place: "Workspace", preprocessed: bool) -> None:
    out = console()
    names = ", ".join(f"{one.name}.json" for one in plans)
    out.print(f"wrote {place.plans(dataset)}: fingerprint.json, splits.json, problems.json, {names} (each number has its reason under 'rationale')")
    command = f"autoseg_train -d {dataset} -a {plans[0].name} -f 0" if preprocessed else f"autoseg_plan -d {dataset}"
    out.print(f"next: {command}")


def _times(values: "Sequence[float]") -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_plan`` and return its exit status."""
    return run(plan, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
