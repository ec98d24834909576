"""What runs on a node of a cluster: one run, or one command, begun again as often as the cluster ends it."""

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from autoseg.errors import TrainingError, WorkspaceError
from autoseg.launch.attempt import Attempt, Task, Tries
from autoseg.launch.campaign import Campaign
from autoseg.launch.ready import make_missing_plans, measure_once
from autoseg.launch.status import count_epochs, read_status

SAVING_SECONDS = 100.0
"""How long a training may take to save once the cluster has warned its job; slurm.WARNING_SECONDS is a little more."""

PREEMPTION_SECONDS = 300.0
"""How long a job whose training was told to stop waits to be ended too."""

HELD_SECONDS = 30.0
"""How long a job waits for another process that trains its fold."""

MAX_FRUITLESS = 2
"""Time limits in a row that a run may reach without a new epoch before it is given up."""


class RunJob:
    """One run as a job: what submitit pickles, calls on the node, and asks for what to call after a requeue."""

    def __init__(self, task: Task, retries: int, fruitless: int = 0) -> None:
        """Make the job of a task; ``fruitless`` counts the time limits since its last new epoch."""
        self.task, self.retries, self.fruitless = task, retries, fruitless
        self._attempt: Attempt | None = None
        self._epochs = 0

    def __call__(self) -> str:
        """Run until the run is finished.

        Raises:
            TrainingError: it was refused, or died too often; Slurm then calls the job failed.
        """
        self._epochs, tries = count_epochs(self.task.run_folder), Tries(self.retries)
        while not read_status(self.task.workspace, self.task.dataset, self.task.key).finished:
            self._attempt = Attempt(self.task, "auto")
            outcome, told = self._attempt.wait()
            if outcome == "finished":
                break
            if self._attempt.interrupted:  # the cluster signals all processes of a job that it is about to end
                time.sleep(PREEMPTION_SECONDS)
            elif outcome == "held":
                time.sleep(HELD_SECONDS)
            elif outcome == "refused" or not tries.allow(self.task.run_folder):
                raise TrainingError(f"{self.task.key}: {told}")
        return str(self.task.key)

    def checkpoint(self) -> Any:
        """Stop the training, and return what the requeued job shall call; None ends it for good."""
        from submitit.helpers import DelayedSubmission

        if self._attempt is not None:
            self._attempt.stop()
            self._attempt.end(SAVING_SECONDS)
            self._attempt.poll()
        fruitless = 0 if count_epochs(self.task.run_folder) > self._epochs else self.fruitless + 1
        if fruitless > MAX_FRUITLESS:
            return None
        return DelayedSubmission(RunJob(self.task, self.retries, fruitless))


class CommandJob:
    """A command of autoseg as a job; it may begin again at any time."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Make the job of ``python ARGUMENTS``."""
        self.arguments = list(arguments)

    def __call__(self) -> None:
        """Run the command.

        Raises:
            WorkspaceError: it failed; what it said stands in the job's log.
        """
        status = subprocess.run([sys.executable, *self.arguments], check=False).returncode
        if status:
            raise WorkspaceError(f"{' '.join(self.arguments)}: exit status {status}")

    def checkpoint(self) -> Any:
        """Return the same job."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class TableJob:
    """Measuring what is not measured yet, and making a table's missing plans, as a job."""

    def __init__(self, campaign: Campaign, num_workers: int) -> None:
        """Make the job of a campaign."""
        self.campaign, self.num_workers = campaign, num_workers

    def __call__(self) -> None:
        """Measure and plan.

        Raises:
            AutosegError: the dataset has errors, or a plan cannot be made.
        """
        campaign = self.campaign
        fingerprint, _ = measure_once(campaign.dataset, campaign.workspace, num_workers=self.num_workers)
        make_missing_plans(fingerprint, campaign.workspace, campaign.entries)

    def checkpoint(self) -> Any:
        """Return the same job."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
