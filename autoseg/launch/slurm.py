"""Runs as job arrays on a Slurm cluster, by submitit (extra ``slurm``)."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from autoseg.data.workspace import Workspace
from autoseg.documents import Document, read_document, write_document
from autoseg.errors import DocumentError, WorkspaceError
from autoseg.launch.attempt import Task
from autoseg.launch.jobs import CommandJob, RunJob
from autoseg.launch.status import RunKey

JOB = Path("logs") / "slurm.json"
"""In a run's folder: the job that it was given to last."""

MAX_ARRAY = 1000
"""Jobs in one array. Slurm's own default limit is 1001 (MaxArraySize)."""

WARNING_SECONDS = 120
"""How long before its time limit a job is told; a training finishes its iteration and saves in less."""

NO_LIMIT = 1_000_000
"""submitit counts the time limits that a job has reached; here the epochs decide instead."""

_TIME = re.compile(r"\d+(?::\d+){0,2}|\d+-\d+(?::\d+){0,2}")


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What each job asks for.

    Attributes:
        partition: None: the cluster's default.
        num_gpus: on one node. num_cpus: on the same.
        minutes: time limit; a run that needs more goes on in the next one.
        array_parallelism: jobs of an array that run at the same time.
        more: further options of sbatch, name to value.
        cpu_partition: of jobs without a GPU; None: the same.
    """

    partition: str | None
    num_gpus: int
    num_cpus: int
    minutes: int
    array_parallelism: int
    more: Mapping[str, str] = field(default_factory=dict)
    cpu_partition: str | None = None

    def without_gpu(self) -> "SlurmOptions":
        """Return the options of a job that trains nothing."""
        return replace(self, num_gpus=0, partition=self.cpu_partition or self.partition)


class JobRecord(Document):
    """The job of a run, as squeue names it."""

    schema_: Literal["autoseg.slurm.1"] = Field(alias="schema")
    job: str


@dataclass(frozen=True)
class JobState:
    """A job that Slurm still knows: its state (``RUNNING``, ``PENDING``, ...), its node or why it waits, its time."""

    state: str
    place: str
    time: str


def submit_runs(
    tasks: Sequence[Task],
    options: SlurmOptions,
    folder: Path,
    *,
    retries: int,
    after: Sequence[str] = (),
    queued: Mapping[RunKey, str] = MappingProxyType({}),
) -> list[str]:
    """Submit the tasks as job arrays, note each one's job in its folder, and return the arrays' ids.

    Runs that need others are arrays of their own, which start when those are over, however they ended: where one has
    failed, the training that needs it says so and ends, and the others go on.

    Args:
        tasks: of one dataset, each after those that it needs.
        options: what each asks for.
        folder: for the jobs' own files; all nodes must see it.
        retries: how often in a row a training that dies is tried again within its job.
        after: jobs that must have succeeded before.
        queued: the jobs of runs that were submitted before.

    Raises:
        WorkspaceError: submitit or Slurm is not there, or refuses the jobs.
    """
    arrays, jobs_of = [], dict(queued)
    for wave in _waves(tasks, queued):
        for start in range(0, len(wave), MAX_ARRAY):
            part = wave[start : start + MAX_ARRAY]
            over = dict.fromkeys(jobs_of[key] for task in part for key in task.needs if key in jobs_of)
            runs = [RunJob(task, retries) for task in part]
            jobs = submit_jobs(runs, options, folder, after=after, over=list(over))
            for task, job in zip(part, jobs):
                write_document(task.run_folder / JOB, JobRecord(schema="autoseg.slurm.1", job=job))
                jobs_of[task.key] = job
            arrays.append(jobs[0].split("_")[0])
    return arrays


def _waves(tasks: Sequence[Task], queued: Iterable[RunKey]) -> list[list[Task]]:
    """Return the tasks in groups that need only runs of groups before; what needs ``queued`` is not in the first."""
    places = dict.fromkeys(queued, 0)
    for task in tasks:
        places[task.key] = max((places[key] + 1 for key in task.needs if key in places), default=0)
    numbers = sorted({places[task.key] for task in tasks})
    return [[task for task in tasks if places[task.key] == number] for number in numbers]


def submit_comparison(arguments: Sequence[str], options: SlurmOptions, folder: Path, *, after: Sequence[str]) -> str:
    """Submit ``autoseg_compare`` as a job without a GPU that starts when the jobs ``after`` are over; return its id."""
    job = CommandJob(["-m", "autoseg.cli.compare", *arguments])
    return submit_jobs([job], options.without_gpu(), folder, over=after, name="autoseg_compare")[0]


def submit_jobs(
    jobs: Sequence[Any],
    options: SlurmOptions,
    folder: Path,
    *,
    after: Sequence[str] = (),
    over: Sequence[str] = (),
    name: str = "autoseg",
) -> list[str]:
    """Submit callables as one array; return the id of each.

    Args:
        jobs: what the nodes call.
        options: what each asks for.
        folder: for the jobs' own files.
        after: jobs that must have succeeded before; where one has not, the jobs are cancelled.
        over: jobs that must be over before, however they ended.
        name: that squeue shows.

    Raises:
        WorkspaceError: see ``submit_runs``.
    """
    executor = _make_executor(options, folder, after, over, name)
    try:
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
        return [str(job.job_id) for job in submitted]
    except Exception as error:  # submitit raises its own, of which the last line is sbatch's word
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise WorkspaceError(
            f"Slurm refuses the jobs: {said[-1]}; see --partition, --gpus, --cpus and --time"
        ) from error


def read_job(run_folder: Path) -> str | None:
    """Return the job that a run was last given to."""
    try:
        return read_document(run_folder / JOB, JobRecord).job
    except DocumentError:
        return None


def read_queue() -> dict[str, JobState]:
    """Return this user's jobs in Slurm's queue; empty where there is no Slurm.

    Raises:
        WorkspaceError: Slurm does not answer.
    """
    if shutil.which("squeue") is None:
        return {}
    asked = subprocess.run(
        ["squeue", "--me", "--noheader", "--array", "--format=%i|%T|%R|%M"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise WorkspaceError(f"squeue: {asked.stderr.strip() or asked.returncode}; is Slurm running?")
    rows = (line.split("|") for line in asked.stdout.splitlines())
    return {row[0]: JobState(row[1], row[2].strip("()"), row[3]) for row in rows if len(row) == 4}


def find_jobs(workspace: Workspace, dataset: str, keys: Sequence[RunKey]) -> dict[RunKey, tuple[str, JobState]]:
    """Return the runs that are in the queue, each with its job."""
    given = {key: read_job(workspace.fold(dataset, key.plan, key.fold)) for key in keys}
    jobs = {key: job for key, job in given.items() if job is not None}
    queue = read_queue() if jobs else {}
    return {key: (job, queue[job]) for key, job in jobs.items() if job in queue}


def parse_minutes(text: str) -> int:
    """Return the minutes of a time limit in Slurm's forms: ``90``, ``90:00``, ``12:00:00``, ``2-12``, ``2-12:30``.

    Raises:
        WorkspaceError: it is none of them, or zero.
    """
    numbers = [int(word) for word in re.findall(r"\d+", text)] if _TIME.fullmatch(text) else [0]
    if "-" in text:
        days, hours, minutes, seconds = [*numbers, 0, 0, 0][:4]
    else:
        days = 0
        hours, minutes, seconds = numbers if len(numbers) == 3 else [0, *numbers, 0][:3]
    total = (days * 24 + hours) * 60 + minutes + bool(seconds)
    if not total:
        raise WorkspaceError(
            f"--time {text}: expected minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS, e.g. 2-00 or 12:00:00"
        )
    return total


def check_slurm() -> None:
    """Refuse to go on where nothing can be submitted.

    Raises:
        WorkspaceError: submitit or Slurm is not there.
    """
    if importlib.util.find_spec("submitit") is None:
        raise WorkspaceError("--launcher slurm: submitit is not installed; run pip install 'autoseg[slurm]'")
    if shutil.which("sbatch") is None:
        raise WorkspaceError("--launcher slurm: there is no sbatch here; run this on a login node of the cluster")


def _make_executor(options: SlurmOptions, folder: Path, after: Sequence[str], over: Sequence[str], name: str) -> Any:
    import submitit

    executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=NO_LIMIT)
    additional: dict[str, Any] = {"requeue": True, **options.more}
    kinds = {"afterok": after, "afterany": over}
    if dependency := ",".join(":".join([kind, *jobs]) for kind, jobs in kinds.items() if jobs):
        additional |= {"dependency": dependency, "kill_on_invalid_dep": "yes"}
    executor.update_parameters(
        name=name,
        timeout_min=options.minutes,
        cpus_per_task=options.num_cpus,
        slurm_array_parallelism=options.array_parallelism,
        slurm_signal_delay_s=WARNING_SECONDS,
        slurm_srun_args=[f"--cpus-per-task={options.num_cpus}"],  # srun does not take it from sbatch since 22.05
        slurm_additional_parameters=additional,
        **({"slurm_partition": options.partition} if options.partition else {}),
        **({"gpus_per_node": options.num_gpus} if options.num_gpus else {}),
    )
    return executor
