"""run.json: what a training ran on, with which code, when, and what it took."""

import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

import autoseg
from autoseg.documents import Document, read_document, write_document
from autoseg.errors import DocumentError
from autoseg.train.device import Precision, name_cpu, name_device
from autoseg.train.processes import ALONE, Processes

NAME = "run.json"
LIBRARIES = ("numpy", "scipy", "monai", "blosc2")
"""Packages besides torch that the numbers of a training come from."""

GIT_SECONDS = 20


class Git(Document):
    """The checkout that autoseg ran from.

    Attributes:
        commit: what was checked out.
        dirty: whether files of the package were changed, new or missing then.
    """

    commit: str
    dirty: bool


class Session(Document):
    """One stretch of a training, from a start to its end; a training that was stopped and went on has several.

    Attributes:
        started, ended: local time with its zone, ISO 8601; ``ended`` is None while it runs, or if it was killed.
        first_epoch: the first that it was to train, from 1. last_epoch: the last that it finished, None if none.
        host: name of the machine. device: as in ``RunRecord``.
        git: as in ``RunRecord``.
        peak_memory_gb, peak_host_memory_gb: the largest of its epochs, in 10^9 bytes.
    """

    started: str
    ended: str | None = None
    first_epoch: int
    last_epoch: int | None = None
    host: str
    device: str
    git: Git | None
    peak_memory_gb: float | None = None
    peak_host_memory_gb: float | None = None


class RunRecord(Document):
    """What a training runs on; after it went on elsewhere, what it ran on last.

    Attributes:
        device: the device's name.
        precision: what the network was computed in there.
        parameters: number of trained weights.
        threads: threads that torch may use on the CPU.
        workers: threads that read data.
        augmented_on: where batches were augmented: on the device, or on the CPU by the threads that read them.
        versions: of python, autoseg, torch and what else computes.
        git: where autoseg runs from a checkout of its repository, else None.
        cpu, cores: the processor's name, and how many of its cores the process may use.
        processes: that trained together.
        seed: the plan's.
        sessions: when and where it ran, stretch by stretch.
    """

    schema_: Literal["autoseg.run.1"] = Field(default="autoseg.run.1", alias="schema")
    device: str
    precision: Precision
    parameters: int
    threads: int
    workers: int
    augmented_on: Literal["device", "cpu"] = "device"
    versions: dict[str, str]
    git: Git | None = None
    cpu: str | None = None
    cores: int | None = None
    processes: int = 1
    seed: int | None = None
    sessions: tuple[Session, ...] = ()


def make_run_record(
    device: torch.device,
    precision: Precision,
    network: torch.nn.Module,
    num_workers: int,
    *,
    seed: int,
    processes: Processes = ALONE,
) -> RunRecord:
    """Describe the machine and the code."""
    return RunRecord(
        device=name_device(device),
        precision=precision,
        parameters=sum(weights.numel() for weights in network.parameters() if weights.requires_grad),
        threads=torch.get_num_threads(),
        workers=num_workers,
        versions=find_versions(),
        git=find_git(Path(autoseg.__file__).parent),
        cpu=name_cpu(),
        cores=_count_cores(),
        processes=processes.count,
        seed=seed,
    )


def find_versions() -> dict[str, str]:
    """Return the versions of what computes; CUDA and cuDNN where torch has them."""
    found = {"python": platform.python_version(), "autoseg": autoseg.__version__, "torch": torch.__version__}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    if (cudnn := torch.backends.cudnn.version()) is not None:  # type: ignore[no-untyped-call]
        found["cudnn"] = str(cudnn)
    return found


def find_git(package: Path) -> Git | None:
    """Return the commit that a package was checked out at, and whether its folder has changed since.

    None where it is not tracked by git: an installed package may well lie in somebody else's checkout.
    """
    if _ask_git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit, changes = _ask_git(package, "rev-parse", "HEAD"), _ask_git(package, "status", "--porcelain", "--", ".")
    return None if commit is None or changes is None else Git(commit=commit, dirty=bool(changes))


def _ask_git(folder: Path, *arguments: str) -> str | None:
    """Return what git says of a folder; None if it is not there or refuses. Who runs this may be in a git hook."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=GIT_SECONDS,
            env=own | {"GIT_OPTIONAL_LOCKS": "0"}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip()


def _count_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def read_record(run_folder: Path) -> RunRecord | None:
    """Return the record of a run, or None if there is none that can be read."""
    try:
        return read_document(run_folder / NAME, RunRecord)
    except DocumentError:
        return None


@contextmanager
def keep_record(
    run_folder: Path, record: RunRecord, history: Sequence[dict[str, Any]], processes: Processes = ALONE
) -> Iterator[None]:
    """Write the record with a new session at its end, and once more with how that ended at the end of the block.

    ``history`` holds the records of the finished epochs, and grows meanwhile.
    """
    first = len(history)
    session = Session(
        started=_now(), first_epoch=first + 1, host=platform.node(), device=record.device, git=record.git
    )  # fmt: skip
    processes.lead(lambda: _write(run_folder, record, _earlier(run_folder), session))
    try:
        yield
    finally:
        if processes.leads:
            with suppress(OSError):  # a full disk, perhaps what ended the training
                _write(run_folder, record, _earlier(run_folder)[:-1], _end(session, history[first:]))


def _write(run_folder: Path, record: RunRecord, earlier: tuple[Session, ...], session: Session) -> None:
    write_document(run_folder / NAME, record.model_copy(update={"sessions": (*earlier, session)}))


def _earlier(run_folder: Path) -> tuple[Session, ...]:
    record = read_record(run_folder)
    return () if record is None else record.sessions


def _end(session: Session, epochs: Sequence[dict[str, Any]]) -> Session:
    peaks = {key: _largest(epochs, key) for key in ("peak_memory_gb", "peak_host_memory_gb")}
    last = epochs[-1]["epoch"] if epochs else None
    return session.model_copy(update={"ended": _now(), "last_epoch": last, **peaks})


def _largest(epochs: Sequence[dict[str, Any]], key: str) -> float | None:
    return max((record[key] for record in epochs if record.get(key) is not None), default=None)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
