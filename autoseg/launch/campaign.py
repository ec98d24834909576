"""A whole table on one dataset: what it comes to, what of it is still to do, and which commands begin and end it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.data.dataset import Dataset
from autoseg.data.workspace import Workspace
from autoseg.errors import PlanError
from autoseg.launch.attempt import Task
from autoseg.launch.order import find_needs, sort_runs
from autoseg.launch.status import RunKey, RunStatus, read_status
from autoseg.launch.table import Changes, Entry, Table, baseline_of, choose_rows, expand, find_table, make_table


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A table on a dataset.

    Attributes:
        entries: its plans. changes: what the command line made of the rows.
        table: the document.
        dataset: what it runs on.
        workspace: where.
    """

    table: Table
    changes: Changes
    entries: tuple[Entry, ...]
    dataset: Dataset
    workspace: Workspace

    @property
    def plans(self) -> list[str]:
        """The names of its plans."""
        return [entry.name for entry in self.entries]

    def keys(self, folds: Sequence[int]) -> list[RunKey]:
        """Return its runs: fold by fold, so that the plans can be compared as early as may be."""
        return [RunKey(plan, fold) for fold in folds for plan in self.plans]

    def statuses(self, keys: Sequence[RunKey]) -> list[RunStatus]:
        """Return the state of each run."""
        return [read_status(self.workspace, self.dataset.name, key) for key in keys]

    def unfinished(self, keys: Sequence[RunKey]) -> list[RunKey]:
        """Return the runs that are still to do."""
        return [status.key for status in self.statuses(keys) if not status.finished]

    def order(self, keys: Sequence[RunKey]) -> dict[RunKey, tuple[RunKey, ...]]:
        """Return the runs in an order in which they can be trained, each with those that must be finished before."""
        return sort_runs(keys, find_needs(self.entries, self.workspace, self.dataset.name))

    def task(
        self, key: RunKey, needs: tuple[RunKey, ...] = (), *, num_workers: int, num_gpus: int, logger: str | None
    ) -> Task:
        """Return what a run's command must be told."""
        return Task(
            workspace=self.workspace, dataset=self.dataset.name, folder=self.dataset.folder.resolve(), key=key,
            num_workers=num_workers, num_gpus=num_gpus, logger=logger, needs=needs,
        )  # fmt: skip

    def compare_arguments(self, plans: Sequence[str], logger: str | None = None) -> list[str]:
        """Return the arguments of the ``autoseg_compare`` that ends the table, for those plans that have runs."""
        baseline = baseline_of(self.table, self.changes)
        given = {"-a": plans, "--by": self.table.by, "--baseline": [baseline if baseline in plans else plans[0]]}
        words = [word for option, values in given.items() for value in values for word in (option, value)]
        told = ["--logger", logger] if logger else []
        return ["-d", self.dataset.name, *words, "-w", str(self.workspace.root), *told]

    @property
    def jobs_folder(self) -> Path:
        """Where a cluster's jobs keep their own files."""
        return self.workspace.jobs(self.dataset.name)


def open_campaign(
    dataset: Dataset,
    workspace: Workspace,
    *,
    table: str | None,
    plans: Sequence[str],
    seeds: int | None,
    changes: Changes,
) -> Campaign:
    """Return the table that the command line means.

    Raises:
        DocumentError: no such table, or it has mistakes. PlanError: it has no such row, or contradicts itself.
    """
    chosen = choose_rows(find_table(table), plans) if table else make_table(plans)
    if seeds is not None:
        chosen = chosen.model_copy(update={"seeds": seeds})
    entries = expand(chosen, changes)
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"plan {twice[0]} stands in the table twice, once as another one's seed; rename its row")
    return Campaign(table=chosen, changes=changes, entries=tuple(entries), dataset=dataset, workspace=workspace)
