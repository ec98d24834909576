"""Preparing a large dataset on a Slurm cluster: an array measures it, a job plans, an array preprocesses.

Each waits until all of the one before have succeeded, and is cancelled where one has not. What a job has finished
stays, so that the same preparation, submitted again, does only what is left.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from autoseg.data.dataset import Dataset
from autoseg.data.workspace import Workspace
from autoseg.documents import Document, read_document, write_document
from autoseg.errors import DocumentError
from autoseg.launch.jobs import CommandJob
from autoseg.launch.prepare import PlanRequest
from autoseg.launch.ready import read_measured
from autoseg.launch.slurm import MAX_ARRAY, SlurmOptions, read_queue, submit_jobs

RECORD = "preparation.json"
COMMAND = ("-m", "autoseg.cli.plan")


class PreparationRecord(Document):
    """The jobs that prepare a dataset, as squeue names them, in their order."""

    schema_: Literal["autoseg.preparation.1"] = Field(default="autoseg.preparation.1", alias="schema")
    jobs: tuple[str, ...]


def submit_preparation(
    dataset: Dataset,
    workspace: Workspace,
    num_parts: int,
    planning: Any,
    options: SlurmOptions,
    *,
    plan_words: Sequence[str],
    force: bool = False,
) -> list[str]:
    """Submit what prepares a dataset, note the jobs in the workspace, and return their ids in their order.

    Measuring is left out where the dataset is measured already.

    Args:
        dataset: raw cases.
        workspace: on a file system that all nodes see.
        num_parts: jobs of each array; no more than cases, or than an array can have.
        planning: the job that measures what is left and plans.
        options: what each job asks for.
        plan_words: options of ``autoseg_plan`` that say which plans the cases are preprocessed for.
        force: make again what is finished.

    Raises:
        WorkspaceError: Slurm refuses the jobs.
    """
    folder, words = workspace.jobs(dataset.name), [*base_words(dataset, workspace, options), *["--force"] * force]

    def submit(jobs: Sequence[Any], name: str, after: Sequence[str]) -> list[str]:
        return [submit_jobs(jobs, options, folder, after=after, name=name)[0].split("_")[0]]

    count = min(num_parts, len(dataset.cases), MAX_ARRAY)
    parts = [f"--part={number}/{count}" for number in range(1, count + 1)]
    measured: list[str] = []
    if force or read_measured(dataset, workspace) is None:
        measured = submit([CommandJob([*words, part]) for part in parts], "autoseg_measure", ())
    planned = submit([planning], "autoseg_plan", measured)
    making = [CommandJob([*words, *plan_words, "--only-preprocess", part]) for part in parts]
    jobs = [*measured, *planned, *submit(making, "autoseg_preprocess", planned)]
    write_document(folder / RECORD, PreparationRecord(jobs=tuple(jobs)))
    return jobs


def find_preparation(dataset: Dataset, workspace: Workspace) -> list[str]:
    """Return the jobs in the queue that prepare a dataset, in their order."""
    try:
        noted = read_document(workspace.jobs(dataset.name) / RECORD, PreparationRecord).jobs
    except DocumentError:
        return []
    queued = {job.split("_")[0] for job in read_queue()}
    return [job for job in noted if job in queued]


def base_words(dataset: Dataset, workspace: Workspace, options: SlurmOptions) -> list[str]:
    """Return how every job calls ``autoseg_plan``, as Python's arguments."""
    place = ["-d", str(dataset.folder.resolve()), "-w", str(workspace.root)]
    return [*COMMAND, *place, "-j", str(options.num_cpus)]


def request_words(request: PlanRequest) -> list[str]:
    """Return the options of ``autoseg_plan`` that ask for this."""
    words = [word for name in request.architectures for word in ("-a", name)]
    words += [word for text in request.assignments for word in ("--set", text)]
    single = {"--from": request.base, "--name": request.name, "--memory": request.memory_gb}
    words += [word for option, value in single.items() if value is not None for word in (option, str(value))]
    return [*words, *(["--downsample", str(request.downsample)] if request.downsample != 1 else [])]
