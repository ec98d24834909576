"""One start of ``autoseg_train`` for a run, in a process of its own: whatever ends it ends nothing else."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autoseg.data.workspace import Workspace
from autoseg.launch.status import (
    ENDED,
    LOG,
    RunKey,
    count_epochs,
    is_held_elsewhere,
    last_line,
    read_status,
    write_line,
)

Outcome = Literal["finished", "refused", "held", "died"]
"""``refused``: a mistake of the user's. ``held``: another process trains this fold. ``died``: anything else."""

USER_ERROR = 2
INTERRUPTED = 130
POLL_SECONDS = 0.5
PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What ``autoseg_train`` must be told of a run.

    Attributes:
        workspace: where it is.
        dataset: its name.
        folder: its raw images.
        key: plan and fold.
        num_workers: threads that make batches.
        num_gpus: above 1 the training is started by torchrun on so many GPUs of one machine.
        logger: service that the run is reported to, ``--logger`` of autoseg_train; None: none.
        needs: runs of the same command that must be finished before it can be started.
    """

    workspace: Workspace
    dataset: str
    folder: Path
    key: RunKey
    num_workers: int
    num_gpus: int = 1
    logger: str | None = None
    needs: tuple[RunKey, ...] = ()

    @property
    def run_folder(self) -> Path:
        """Where the run's files stand."""
        return self.workspace.fold(self.dataset, self.key.plan, self.key.fold)

    def command(self, device: str) -> list[str]:
        """Return the command that trains and scores the run."""
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.num_gpus}"]
        options = {
            "-d": str(self.folder), "-a": self.key.plan, "-f": str(self.key.fold), "--device": device,
            "-j": str(self.num_workers), "-w": str(self.workspace.root),
        }  # fmt: skip
        return [
            sys.executable,
            *(launcher if self.num_gpus > 1 else []),
            *("-m", "autoseg.cli.train"),
            *(word for pair in options.items() for word in pair),
            *(("--logger", self.logger) if self.logger else ()),
        ]


class Attempt:
    """A training under way; its output goes to the run's log."""

    def __init__(self, task: Task, device: str) -> None:
        """Start the training on ``device``."""
        self.task, self.device = task, device
        self._ending: tuple[Outcome, str] | None = None
        command = task.command(device)
        write_line(task.run_folder, f"started on {device}: {' '.join(command)}")
        self._log = task.run_folder / LOG
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=_make_child_setup(),
            )  # fmt: skip

    def poll(self) -> tuple[Outcome, str] | None:
        """Return how it ended, and that in words; None while it runs."""
        if self._ending is None and (status := self._process.poll()) is not None:
            self._ending = self._judge(status)
        return self._ending

    @property
    def interrupted(self) -> bool:
        """Whether it ended because it was told to stop."""
        return self._process.returncode == INTERRUPTED

    def wait(self) -> tuple[Outcome, str]:
        """Wait for the end and return ``poll``'s answer."""
        while (ending := self.poll()) is None:
            time.sleep(POLL_SECONDS)
        return ending

    def end(self, seconds: float) -> None:
        """Wait for its end, and kill it after so many seconds; its last checkpoint is whole.

        A signal handler may do this while ``wait`` or ``poll`` is under way: none of subprocess's locks is taken.
        """
        limit = time.monotonic() + seconds
        try:
            while not self._is_over() and time.monotonic() < limit:
                time.sleep(POLL_SECONDS / 10)
        finally:
            if not self._is_over():
                _send(self._process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to finish its iteration, save and end; asked twice, it ends at once."""
        if not self._is_over():
            _send(self._process.pid, signal.SIGTERM)

    def _is_over(self) -> bool:
        """Whether the process has ended; it is left to ``poll`` to take its exit status."""
        if sys.platform == "win32":
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # its status was taken before
            return True

    def _judge(self, status: int) -> tuple[Outcome, str]:
        said = last_line(self._log)
        if status == 0 and read_status(self.task.workspace, self.task.dataset, self.task.key).finished:
            outcome: Outcome = "finished"
            told = "finished"
        elif status == USER_ERROR:
            outcome, told = ("held" if is_held_elsewhere(said) else "refused"), said.removeprefix("error: ")
        elif status == INTERRUPTED:
            outcome, told = "died", said
        else:
            outcome, told = "died", f"{_describe_status(status)}: {said}"
        write_line(self.task.run_folder, f"{ENDED}{told}")
        return outcome, told


@dataclass
class Tries:
    """How often a run has died in a row without a new epoch; only so often it is tried again."""

    limit: int
    deaths: int = field(default=0, init=False)
    epochs: int = field(default=0, init=False)

    def allow(self, folder: Path) -> bool:
        """Count a death and return whether to try again."""
        now = count_epochs(folder)
        self.deaths = 1 if now > self.epochs else self.deaths + 1
        self.epochs = now
        return self.deaths <= self.limit


def _describe_status(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _send(process: int, number: signal.Signals) -> None:
    """Send a signal to a training; to be killed, all that it has started is too."""
    with suppress(ProcessLookupError):
        if sys.platform != "win32" and number == signal.SIGKILL:
            os.killpg(process, number)
        else:
            os.kill(process, number)


def _make_child_setup() -> Callable[[], None] | None:
    """Return what the child does to itself before it becomes the training.

    SIGUSR2, by which Slurm warns of a time limit, is for the job, which then stops the training by SIGTERM. And where
    the system can, the training gets SIGTERM when this process ends without having stopped it.
    """
    if sys.platform == "win32":
        return None
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def set_up() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if prctl is not None:
            prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)

    return set_up
