"""autoseg_plan: check and measure a dataset, plan every architecture, preprocess the cases."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from autoseg.cli._cases import Made, measure_one_part, preprocess_cases, preprocess_made, tell_next
from autoseg.cli._cluster import (
    CpusOption,
    Launcher,
    LauncherOption,
    ParallelismOption,
    PartitionOption,
    TimeOption,
    refuse_with,
    slurm_options,
    tell_preparation,
)
from autoseg.cli._command import (
    SOME_FAILED,
    DeviceOption,
    OptionalDatasetOption,
    WorkersOption,
    WorkspaceOption,
    answer,
    console,
    num_workers,
    run,
)
from autoseg.cli._completion import complete_plan, complete_recipe
from autoseg.cli._plans import advise_length, epochs_here, plans_table, read_memory, tell_difference, tell_story
from autoseg.cli._progress import progress_bar
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.cli._answers import PlanAnswer
    from autoseg.data.dataset import Dataset
    from autoseg.data.problems import Problems
    from autoseg.data.workspace import Workspace
    from autoseg.fingerprint.fingerprint import Fingerprint
    from autoseg.launch.prepare import PlanRequest
    from autoseg.launch.slurm import SlurmOptions
    from autoseg.plan.plan import Plan

ExplainOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--explain",
        help="Only tell how an existing plan (its name, or a path) came about.",
        autocompletion=complete_plan,
    ),
]
DiffOption = Annotated[
    Optional[tuple[str, str]],  # noqa: UP045
    typer.Option(
        "--diff",
        help="Only show what differs between two existing plans (names, or paths).",
        autocompletion=complete_plan,
    ),
]
ExtendOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--extend",
        help="Trained plan to train further: as --from, starting from its weights. Default name: PLAN_extended.",
        autocompletion=complete_plan,
    ),
]
DownsampleOption = Annotated[
    float, typer.Option("--downsample", min=1, help="Coarsen the target spacing by this factor.")
]
PartOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--part", help="K/N: only measure every N-th case from the K-th on; then run without it."),
]
ArchitectureOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "-a",
        "--architecture",
        help="What to plan: an architecture, NAME_2d, _lowres or _cascade, or all; repeat. Default: four in 3-D.",
        autocompletion=complete_recipe,
    ),
]
MemoryOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--memory", help="Memory of the training device in GB, or auto: this machine's GPU. Default: 8."),
]
BaseOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--from", help="Existing plan to make a variant of.", autocompletion=complete_plan),
]
AssignmentsOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="KEY=VALUE of the plan, e.g. training.epochs=20; repeat. Needs --name."),
]
PreviewOption = Annotated[
    bool, typer.Option("--preview", help="Draw cases before and after preprocessing, and augmented patches.")
]
OnlyPreprocessOption = Annotated[
    bool, typer.Option("--only-preprocess", help="Only preprocess, for plans made before; with --part a part.")
]


def plan(
    dataset: OptionalDatasetOption = None,
    architecture: ArchitectureOption = None,
    memory: MemoryOption = None,
    base: BaseOption = None,
    extended: ExtendOption = None,
    assignments: AssignmentsOption = None,
    name: Annotated[Optional[str], typer.Option("--name", help="Name of the new plan.")] = None,  # noqa: UP045
    downsample: DownsampleOption = 1.0,
    no_preprocess: Annotated[bool, typer.Option("--no-preprocess", help="Stop after writing the plans.")] = False,
    preview: PreviewOption = False,
    force: Annotated[bool, typer.Option("--force", help="Measure and preprocess again what is finished.")] = False,
    explain: ExplainOption = None,
    diff: DiffOption = None,
    part: PartOption = None,
    only_preprocess: OnlyPreprocessOption = False,
    launcher: LauncherOption = Launcher.local,
    parts: Annotated[int, typer.Option("--parts", min=1, help="Slurm: jobs of each array, a case each or more.")] = 8,
    partition: PartitionOption = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="Slurm: GPUs of each job, to resample on.")] = 0,
    cpus: CpusOption = 4,
    time: TimeOption = "1-00",
    array_parallelism: ParallelismOption = 256,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Check and measure a dataset, plan the architectures, and preprocess the cases.

    Example: autoseg_plan -d Hippocampus -a unet -a unetr
    """
    if explain and diff:
        raise typer.BadParameter("'--explain' and '--diff' exclude each other; type one after the other.")
    if explain:
        return tell_story(explain, dataset, workspace)
    if diff:
        return tell_difference(diff, dataset, workspace)
    if dataset is None:
        raise typer.BadParameter("Missing option '-d' / '--dataset'.")
    from autoseg.data.dataset import find_dataset, find_folder
    from autoseg.data.workspace import open_workspace
    from autoseg.fingerprint.nnunet import holds_fingerprint_only
    from autoseg.launch.fold import choose_device
    from autoseg.launch.prepare import PlanRequest, check_request, extend

    request = PlanRequest(
        architectures=tuple(architecture or ()), base=base, assignments=tuple(assignments or ()), name=name,
        memory_gb=read_memory(memory), downsample=downsample,
    )  # fmt: skip
    request = extend(request, extended) if extended else request
    if not only_preprocess:
        check_request(request)
    place = open_workspace(workspace)
    folder = find_folder(dataset, place)
    if holds_fingerprint_only(folder):
        _plan_from_fingerprint(folder, place, request)
        return
    found = find_dataset(dataset, place, strict=False)
    console().print(_describe(found), markup=False)
    given = {"--part": part, "--only-preprocess": only_preprocess, "--no-preprocess": no_preprocess}
    num = num_workers(workers)
    if launcher == Launcher.slurm:
        refuse_with("--launcher slurm", {**given, "--preview": preview})
        _submit(found, place, request, parts, slurm_options(partition, gpus, cpus, time, array_parallelism), force)
        return
    if part and not only_preprocess:
        measure_one_part(found, place, part, force=force, workers=num)
        return
    chosen = None if no_preprocess else choose_device(device)
    if only_preprocess:
        refuse_with("--only-preprocess", {"--no-preprocess": no_preprocess})
        made = preprocess_made(found, place, request, part, device=chosen, force=force, workers=num)
    else:
        made = _prepare(found, place, request, device=chosen, force=force, workers=num)
    if preview:
        _write_previews(found, made.plans, place, num_workers(workers))
    answer(lambda: _answer(made, found.folder, len(found.cases), place))
    if made.failed:
        raise typer.Exit(SOME_FAILED)


def _describe(dataset: "Dataset") -> str:
    channels = f"{count(len(dataset.channels), 'channel')} ({', '.join(dataset.channels)})"
    return f"{dataset.name}: {count(len(dataset.cases), 'case')}, {channels}, in {dataset.folder}"


def _submit(
    dataset: "Dataset", place: "Workspace", request: "PlanRequest", parts: int, options: "SlurmOptions", force: bool
) -> None:
    """Submit what this command does to Slurm, unless that is in the queue already."""
    from autoseg.data.problems import dataset_error
    from autoseg.launch.jobs import CommandJob
    from autoseg.launch.spread import base_words, find_preparation, request_words, submit_preparation

    if any(problem.severity == "error" for problem in dataset.problems):
        raise dataset_error(dataset.folder, dataset.problems)
    if queued := find_preparation(dataset, place):
        console().print(f"{dataset.name} is being prepared already, by job {', '.join(queued)}")
        return
    words = request_words(request)
    planning = CommandJob([*base_words(dataset, place, options), *words, "--no-preprocess"])
    jobs = submit_preparation(dataset, place, parts, planning, options, plan_words=words, force=force)
    tell_preparation(jobs, dataset, place)
    console().print(f"next: squeue shows them; autoseg_run -d {dataset.name} --launcher slurm when they are over")


def _write_previews(dataset: "Dataset", plans: "Sequence[Plan]", place: "Workspace", workers: int) -> None:
    from autoseg.launch.prepare import distinct_preprocessing, preview, preview_preprocessing

    for one in distinct_preprocessing(plans).values():
        console().print(f"wrote {preview_preprocessing(dataset, one, place)}", soft_wrap=True)
    for one in plans:
        console().print(f"wrote {preview(one, place, num_workers=workers)}", soft_wrap=True)


def _prepare(
    dataset: "Dataset", place: "Workspace", request: "PlanRequest", *, device: Any, force: bool, workers: int
) -> Made:
    """Measure, plan, and preprocess on the device unless it is None."""
    from autoseg.launch.measuring import describe_folds, measure

    with progress_bar("checking and measuring", len(dataset.cases)) as advance:
        fingerprint, splits = measure(
            dataset, place, num_workers=workers, on_case=advance, on_problems=_print_problems, force=force
        )
    _print_fingerprint(fingerprint, describe_folds(splits, dataset))
    plans, skipped = _make_plans(fingerprint, place, request)
    failed = None
    if device is not None:
        failed = preprocess_cases(dataset, plans, place, None, device=device, force=force, workers=workers)
    others = ("fingerprint.json", "splits.json", "problems.json")
    _print_written(dataset.name, plans, place, others)
    if failed is not None:
        _print_preprocessed(dataset, plans, place, len(failed))
    following = tell_next(dataset.name, plans, ready=failed == [], mend=bool(failed))
    return Made(plans, failed, following, skipped, others)


def _answer(made: Made, folder: Path, num_cases: int, place: "Workspace") -> "PlanAnswer":
    from autoseg.cli._answers import PlanAnswer, files_of, planned

    dataset = made.plans[0].dataset.name
    return PlanAnswer(
        dataset=dataset, folder=str(folder), num_cases=num_cases,
        plans=tuple(planned(one, place, preprocessed=made.failed is not None) for one in made.plans),
        skipped=made.skipped, failed_cases=tuple(made.failed or ()),
        written=files_of(place.plans(dataset), made.others), next=made.next,
    )  # fmt: skip


def _plan_from_fingerprint(folder: Path, place: "Workspace", request: "PlanRequest") -> None:
    from autoseg.launch.measuring import take_fingerprint

    fingerprint = take_fingerprint(folder, place)
    out = console()
    out.print(
        f"{fingerprint.dataset}: nnU-Net's fingerprint of {count(len(fingerprint.cases), 'case')}, no images, "
        f"in {folder}"
    )
    plans, skipped = _make_plans(fingerprint, place, request)
    _print_written(fingerprint.dataset, plans, place, ("fingerprint.json",))
    following = "autoseg_plan -d FOLDER"
    out.print(f"next: {following}   (where the images are, to preprocess and train {plans[0].name})")
    made = Made(plans, None, following, skipped, ("fingerprint.json",))
    answer(lambda: _answer(made, folder, len(fingerprint.cases), place))


def _make_plans(
    fingerprint: "Fingerprint", place: "Workspace", request: "PlanRequest"
) -> "tuple[list[Plan], dict[str, str]]":
    """Make the plans and print them, and why others were skipped; return both."""
    from autoseg.launch.prepare import make_plans
    from autoseg.plan.sides import mirroring_warnings
    from autoseg.plan.summary import memory_warnings

    with progress_bar("planning", None):
        plans, refused = make_plans(fingerprint, place, request)
    out = console()
    device, seconds = epochs_here(plans)
    out.print(plans_table(plans, fingerprint, device, seconds))
    if advice := advise_length(plans, device, seconds):
        out.print(advice, markup=False, soft_wrap=True)
    for warning in [text for one in plans for text in (*mirroring_warnings(one), *memory_warnings(one))]:
        out.print(f"warning: {warning}", markup=False, soft_wrap=True)
    for reason in dict.fromkeys(refused.values()):
        names = ", ".join(name for name, text in refused.items() if text == reason)
        out.print(f"skipped {names}: {reason}", markup=False)
    return plans, refused


def _print_problems(problems: "Problems") -> None:
    """Print what the checks found, worst first: one block a problem, since its three texts are long."""
    if not problems.problems:
        return
    from autoseg.cli._tables import problems_table

    out = console()
    out.print(f"checked: {count(problems.errors, 'error')} and {count(problems.warnings, 'warning')}, worst first")
    out.print(problems_table(problems))


def _print_fingerprint(fingerprint: "Fingerprint", folds: str) -> None:
    import numpy as np

    spacing = np.median([case.spacing for case in fingerprint.cases], axis=0).tolist()
    shape = np.median([case.shape for case in fingerprint.cases], axis=0).tolist()
    orientations = sorted({case.orientation for case in fingerprint.cases})
    console().print(
        f"checked: no errors; median {_times(shape)} voxels of {_times(spacing)} mm (z, y, x); "
        f"stored as {', '.join(orientations)}; {folds}",
        markup=False,
        soft_wrap=True,
    )
    for name, found in fingerprint.components.items():
        cases = sum(case.label_voxels[name] > 0 for case in fingerprint.cases)
        volumes = [_millilitres(found.min_mm3), _millilitres(found.max_mm3), _millilitres(found.median_mm3)]
        sizes = ", of {} to {} ml, median {} ml".format(*volumes) if found.count else ""
        console().print(f"  {name}: in {count(cases, 'case')}, {count(found.count, 'component')}{sizes}", markup=False)


def _millilitres(mm3: float | None) -> str:
    """Return a volume with three digits, in the unit that readers of volumes think in."""
    value = (mm3 or 0.0) / 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _print_written(dataset: str, plans: "Sequence[Plan]", place: "Workspace", others: Sequence[str]) -> None:
    names = ", ".join([*others, *(f"{one.name}.json" for one in plans)])
    console().print(f"wrote {place.plans(dataset)}: {names} (each number has its reason under 'rationale')")


def _print_preprocessed(dataset: "Dataset", plans: "Sequence[Plan]", place: "Workspace", num_failed: int) -> None:
    from autoseg.launch.prepare import distinct_preprocessing

    done, total = len(dataset.cases) - num_failed, count(len(dataset.cases), "case")
    folders = ", ".join(str(place.preprocessed(dataset.name, digest)) for digest in distinct_preprocessing(plans))
    console().print(f"preprocessed: {done} of {total}, in {folders}", markup=False, soft_wrap=True)


def _times(values: "Sequence[float]") -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_plan`` and return its exit status."""
    return run(plan, arguments, answers=True)


if __name__ == "__main__":
    raise SystemExit(main())
