"""autoseg_run: a whole table of plans x folds, on this machine or on a Slurm cluster."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from autoseg.cli import _command, compare
from autoseg.cli._cluster import (
    CpuPartitionOption,
    CpusOption,
    Launcher,
    LauncherOption,
    ParallelismOption,
    PartitionOption,
    TimeOption,
    slurm_options,
    tell_preparation,
)
from autoseg.cli._command import (
    DatasetOption,
    LoggerOption,
    WorkersOption,
    WorkspaceOption,
    answer,
    console,
    num_workers,
)
from autoseg.cli._completion import complete_plan_or_recipe, complete_table
from autoseg.cli._plans import read_memory
from autoseg.cli._progress import progress_bar
from autoseg.cli._runs import RunsDisplay, runs_table
from autoseg.cli._tracking import read_service
from autoseg.plurals import count

if TYPE_CHECKING:
    from autoseg.cli._answers import RunAnswer
    from autoseg.launch.attempt import Task
    from autoseg.launch.campaign import Campaign
    from autoseg.launch.slurm import SlurmOptions
    from autoseg.launch.status import RunKey, RunStatus

RUNS_FAILED = 1

PlanOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "-a",
        "--plan",
        help="Plan or architecture, or row of --table; repeat. Default: all, or four.",
        autocompletion=complete_plan_or_recipe,
    ),
]
FoldOption = Annotated[
    Optional[list[int]],  # noqa: UP045
    typer.Option("-f", "--fold", min=0, help="Fold, from 0; repeat. Default: the table's, else all."),
]
TableOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--table",
        help="Table of plans: a file, or models, losses, optimizers, schedules, downsampling.",
        autocompletion=complete_table,
    ),
]
SeedsOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--seeds", min=1, help="Train each plan with so many seeds, as plans of their own. Default: 1."),
]
AssignmentsOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="KEY=VALUE of every plan, e.g. training.epochs=20; repeat. Needs --name."),
]
NameOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--name", help="Ending of the names of plans changed by --set: unet_NAME ..."),
]
MemoryOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--memory", help="Memory in GB, or auto, that missing plans are made for. Default: 8."),
]
StatusOption = Annotated[bool, typer.Option("--status", help="Only show which runs are where, and start nothing.")]
DeviceOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--device", help="Device for one run at a time; repeat. Default: every GPU, else the CPU."),
]
RetriesOption = Annotated[
    int, typer.Option("--retries", min=0, help="Times in a row that a run may die without a new epoch.")
]
PartsOption = Annotated[
    int,
    typer.Option("--parts", min=0, help="Slurm: prepare the dataset in arrays of so many jobs; 0: here, at once."),
]


def run(
    dataset: DatasetOption,
    plan: PlanOption = None,
    fold: FoldOption = None,
    table: TableOption = None,
    seeds: SeedsOption = None,
    assignments: AssignmentsOption = None,
    name: NameOption = None,
    memory: MemoryOption = None,
    status: StatusOption = False,
    launcher: LauncherOption = Launcher.local,
    device: DeviceOption = None,
    retries: RetriesOption = 2,
    logger: LoggerOption = None,
    partition: PartitionOption = None,
    cpu_partition: CpuPartitionOption = None,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="Slurm: GPUs of each run; above 1 by torchrun.")] = 1,
    cpus: CpusOption = 8,
    time: TimeOption = "1-00",
    array_parallelism: ParallelismOption = 256,
    parts: PartsOption = 0,
    workers: WorkersOption = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Train and compare a table of plans x folds; typed again, it does what is left.

    Example: autoseg_run -d Lits --table losses --set training.epochs=50 --name short
    """
    from autoseg.data.dataset import find_dataset
    from autoseg.data.workspace import open_workspace
    from autoseg.launch.campaign import open_campaign
    from autoseg.launch.local import find_devices
    from autoseg.launch.table import Changes

    place = open_workspace(workspace)
    changes = Changes(assignments=tuple(assignments or ()), suffix=name, memory_gb=read_memory(memory))
    campaign = open_campaign(
        find_dataset(dataset, place), place, table=table, plans=plan or (), seeds=seeds, changes=changes
    )
    folds, service = fold or campaign.table.folds, read_service(logger)
    if status:
        _show_status(campaign, folds)
        return
    slurm = None
    if launcher == Launcher.slurm:
        slurm = slurm_options(partition, gpus, cpus, time, array_parallelism, cpu_partition)
    devices = find_devices(device or ()) if slurm is None else []
    jobs = _submit_preparation(campaign, parts, slurm) if slurm is not None and parts else []
    keys = _foresee(campaign, folds) if jobs else _prepare(campaign, folds, num_workers(workers))
    if slurm is not None:
        tasks = _tasks(campaign, keys, workers or cpus, gpus, service)
        if _submit(campaign, keys, tasks, slurm, retries, service, after=jobs[-1:]):
            return
    else:
        tasks = _tasks(campaign, keys, workers or max(1, num_workers(0) // len(devices)), 1, service)
        _run_here(campaign, keys, tasks, devices, retries)
    _finish(campaign, keys, service)


def _prepare(campaign: "Campaign", folds: Sequence[int] | None, workers: int) -> "list[RunKey]":
    """Measure, plan and preprocess what is missing; return the runs."""
    from autoseg.launch.prepare import distinct_preprocessing, preprocess, with_first_stages
    from autoseg.launch.ready import choose_table_folds, make_missing_plans, measure_once

    dataset, place, out = campaign.dataset, campaign.workspace, console()
    with progress_bar("checking and measuring", len(dataset.cases)) as advance:
        fingerprint, splits = measure_once(dataset, place, num_workers=workers, on_case=advance)
    chosen = choose_table_folds(splits, folds)
    with progress_bar("planning", None):
        plans, made = make_missing_plans(fingerprint, place, campaign.entries)
    if made:
        out.print(f"made plans {', '.join(made)} in {place.plans(dataset.name)}", soft_wrap=True)
    keys = campaign.keys(chosen)
    todo = campaign.unfinished(keys)
    out.print(
        f"{dataset.name}: {count(len(plans), 'plan')} x {count(len(chosen), 'fold')}, {len(todo)} of "
        f"{count(len(keys), 'run')} to do"
    )
    needed = with_first_stages([one for one in plans if any(key.plan == one.name for key in todo)], place)
    with progress_bar("preprocessing", len(dataset.cases) * len(distinct_preprocessing(needed))) as advance:
        preprocess(dataset, needed, place, num_workers=workers, on_case=advance)
    return keys


def _submit_preparation(campaign: "Campaign", parts: int, options: "SlurmOptions") -> list[str]:
    """Return the jobs that prepare the dataset: those in the queue, else new ones; none where all is prepared."""
    from autoseg.launch.jobs import TableJob
    from autoseg.launch.ready import is_prepared
    from autoseg.launch.spread import find_preparation, submit_preparation

    dataset, place = campaign.dataset, campaign.workspace
    if queued := find_preparation(dataset, place):
        console().print(f"{dataset.name} is being prepared already, by job {', '.join(queued)}")
        return queued
    if is_prepared(dataset, place, campaign.plans):
        return []
    words = [word for name in campaign.plans for word in ("-a", name)]
    planning = TableJob(campaign, options.num_cpus)
    jobs = submit_preparation(dataset, place, parts, planning, options.without_gpu(), plan_words=words)
    tell_preparation(jobs, dataset, place)
    return jobs


def _foresee(campaign: "Campaign", folds: Sequence[int] | None) -> "list[RunKey]":
    """Return the runs of a dataset that is still to be measured: the number of its folds is known before."""
    from autoseg.launch.measuring import choose_splits
    from autoseg.launch.ready import choose_table_folds

    return campaign.keys(choose_table_folds(choose_splits(campaign.dataset, campaign.workspace), folds))


def _tasks(campaign: "Campaign", keys: "Sequence[RunKey]", workers: int, gpus: int, logger: str | None) -> "list[Task]":
    todo = campaign.order(campaign.unfinished(keys))
    return [campaign.task(*one, num_workers=workers, num_gpus=gpus, logger=logger) for one in todo.items()]


def _run_here(
    campaign: "Campaign", keys: "Sequence[RunKey]", tasks: "Sequence[Task]", devices: list[str], retries: int
) -> None:
    from autoseg.launch.local import run_locally
    from autoseg.launch.status import read_status

    place, name = campaign.workspace, campaign.dataset.name
    display = RunsDisplay(console(), len(keys), len(keys) - len(tasks), lambda key: read_status(place, name, key))
    try:
        with display:
            run_locally(tasks, devices, retries=retries, on_event=display.tell, on_tick=display.show)
    except KeyboardInterrupt:
        done = len(keys) - len(campaign.unfinished(keys))
        told = f"stopped; {done} of {count(len(keys), 'run')} finished, the others are kept as far as they are"
        raise KeyboardInterrupt(f"{told}; the same command goes on from there") from None


def _submit(
    campaign: "Campaign",
    keys: "Sequence[RunKey]",
    tasks: "Sequence[Task]",
    options: "SlurmOptions",
    retries: int,
    logger: str | None,
    after: Sequence[str],
) -> bool:
    """Submit what is neither finished nor in the queue, and the comparison after it; return whether any is to come."""
    from autoseg.launch.slurm import find_jobs, submit_comparison, submit_runs

    out = console()
    queued = find_jobs(campaign.workspace, campaign.dataset.name, keys)
    new = [task for task in tasks if task.key not in queued]
    if not tasks:
        return False
    if new:
        jobs = {key: job for key, (job, _) in queued.items()}
        arrays = submit_runs(new, options, campaign.jobs_folder, retries=retries, after=after, queued=jobs)
        ids = [*arrays, *dict.fromkeys(job.split("_")[0] for job, _ in queued.values())]
        words = campaign.compare_arguments(campaign.plans, logger)
        last = submit_comparison(words, options, campaign.jobs_folder, after=ids)
        out.print(
            f"submitted {count(len(new), 'run')} as job {', '.join(arrays)}, and the comparison after them as "
            f"job {last}"
        )
    if queued:
        out.print(f"{count(len(queued), 'run is', 'runs are')} in the queue already")
    _show_runs(campaign, keys)
    out.print("next: the same command with --status shows what runs where; without it, goes on and collects")
    return True


def _show_status(campaign: "Campaign", folds: Sequence[int] | None) -> None:
    from autoseg.errors import WorkspaceError
    from autoseg.launch.ready import choose_table_folds, read_measured

    found = read_measured(campaign.dataset, campaign.workspace)
    if found is None and folds is None:
        name = campaign.dataset.name
        raise WorkspaceError(f"{campaign.workspace.plans(name)}: {name} is not measured yet, so nothing runs")
    _show_runs(campaign, campaign.keys(choose_table_folds(found[1], folds) if found else folds or ()))


def _show_runs(campaign: "Campaign", keys: "Sequence[RunKey]") -> None:
    from autoseg.launch.slurm import find_jobs

    jobs = find_jobs(campaign.workspace, campaign.dataset.name, keys)
    statuses = campaign.statuses(keys)
    console().print(runs_table(statuses, jobs))
    answer(lambda: _answer(campaign, statuses, jobs))


def _answer(campaign: "Campaign", statuses: "Sequence[RunStatus]", jobs: Mapping[Any, Any]) -> "RunAnswer":
    from autoseg.cli._answers import RunAnswer, run_rows

    finished = sum(status.finished for status in statuses)
    return RunAnswer(dataset=campaign.dataset.name, finished=finished, runs=run_rows(statuses, jobs))


def _finish(campaign: "Campaign", keys: "Sequence[RunKey]", logger: str | None) -> None:
    """Print the table of runs and the comparison; end with status 1 if runs failed."""
    statuses, out = campaign.statuses(keys), console()
    out.print(runs_table(statuses, {}))
    failed = [status for status in statuses if not status.finished]
    plans = list(dict.fromkeys(status.key.plan for status in statuses if status.finished))
    if plans:
        compared = compare.main(campaign.compare_arguments(plans, logger))
        if compared:
            raise typer.Exit(compared)
    answer(lambda: _answer(campaign, statuses, {}))
    if failed:
        first = failed[0]
        log = campaign.workspace.fold(campaign.dataset.name, first.key.plan, first.key.fold) / "logs" / "run.log"
        sys.stderr.write(
            f"{len(failed)} of {count(len(statuses), 'run')} failed, e.g. {first.key}: {first.ended}; see {log}\n"
        )
        raise typer.Exit(RUNS_FAILED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``autoseg_run`` and return its exit status."""
    return _command.run(run, arguments, answers=True)


if __name__ == "__main__":
    raise SystemExit(main())
