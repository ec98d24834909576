"""The options of commands that submit to Slurm, and what they print of a preparation there."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from autoseg.cli._command import console

if TYPE_CHECKING:
    from autoseg.data.dataset import Dataset
    from autoseg.data.workspace import Workspace
    from autoseg.launch.slurm import SlurmOptions


class Launcher(str, Enum):  # noqa: UP042 (StrEnum is Python 3.11's)
    """Where the work is done."""

    local, slurm = "local", "slurm"


LauncherOption = Annotated[Launcher, typer.Option("--launcher", help="Work on this machine, or submit to Slurm.")]
PartitionOption = Annotated[
    Optional[str],  # noqa: UP045 (typer reads the annotation at run time on Python 3.10 too)
    typer.Option("--partition", help="Slurm: partition."),
]
CpuPartitionOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--cpu-partition", help="Slurm: partition of jobs without a GPU. Default: the same."),
]
CpusOption = Annotated[int, typer.Option("--cpus", min=1, help="Slurm: CPU cores of each job.")]
TimeOption = Annotated[
    str, typer.Option("--time", help="Slurm: time limit (60, 12:00:00, 2-00); what needs more goes on in a new job.")
]
ParallelismOption = Annotated[int, typer.Option("--array-parallelism", min=1, help="Slurm: jobs at the same time.")]


def slurm_options(
    partition: str | None, gpus: int, cpus: int, time: str, array_parallelism: int, cpu_partition: str | None = None
) -> "SlurmOptions":
    """Return what each job asks for, or refuse where nothing can be submitted."""
    from autoseg.launch.slurm import SlurmOptions, check_slurm, parse_minutes

    check_slurm()
    return SlurmOptions(
        partition=partition, num_gpus=gpus, num_cpus=cpus, minutes=parse_minutes(time),
        array_parallelism=array_parallelism, cpu_partition=cpu_partition,
    )  # fmt: skip


def refuse_with(option: str, others: Mapping[str, object]) -> None:
    """Refuse options that were given together with one that they contradict."""
    if given := [name for name, value in others.items() if value]:
        raise typer.BadParameter(f"{given[0]} and {option} exclude each other; leave one out")


def tell_preparation(jobs: Sequence[str], dataset: "Dataset", place: "Workspace") -> None:
    """Print the jobs of a preparation, and where their logs are."""
    stages = ("measuring", "planning", "preprocessing")[-len(jobs) :]
    told = ", then ".join(f"{stage} as job {job}" for stage, job in zip(stages, jobs))
    logs = f"logs in {place.jobs(dataset.name)}"
    console().print(f"{dataset.name}: submitted {told}; {logs}", markup=False, soft_wrap=True)
