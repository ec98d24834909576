"""Measuring how fast a plan trains, before any fold of it is trained: ``autoseg_train --benchmark``."""

from typing import Any

from autoseg.data.dataset import Dataset
from autoseg.data.splits import Splits, get_fold
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document
from autoseg.launch.fold import open_cases, read_plan_of
from autoseg.preprocess.store import CaseStore
from autoseg.train.benchmark import OnRound, Speed, measure_speed
from autoseg.train.machine import Machine


def benchmark(
    workspace: Workspace,
    dataset: Dataset,
    plan_name: str,
    fold: int,
    machine: Machine,
    *,
    on_round: OnRound = lambda number: None,
) -> Speed:
    """Train a few blocks of iterations of a plan on a fold's cases, and return how long they took; write nothing.

    Raises:
        PlanError: there is no such plan.
        WorkspaceError: planning or preprocessing is unfinished, or the dataset has changed since.
        DatasetError: there is no such fold.
        TrainingError: memory ran out, or a case could not be read.
    """
    plan = read_plan_of(workspace, dataset, plan_name)
    chosen = get_fold(read_document(workspace.splits(dataset.name), Splits), fold)
    store = open_cases(workspace, dataset, plan, chosen)
    if plan.previous_stage is not None:
        store = _ReferenceAsFound(store.folder)
    return measure_speed(plan, store, chosen, machine, on_round=on_round)


class _ReferenceAsFound(CaseStore):
    """Takes the reference for what a previous stage found: it costs as much to read, and none need be trained."""

    def found(self, name: str) -> Any:
        return self.classes(name)
