"""Measuring how fast a plan trains, before any fold of it is trained: ``autoseg_train --benchmark``."""

from typing import Any

import torch

from autoseg.data.dataset import Dataset
from autoseg.data.splits import Splits, get_fold
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document
from autoseg.launch.fold import open_cases, read_plan_of
from autoseg.preprocess.store import CaseStore
from autoseg.train.ahead import AugmentDevice
from autoseg.train.benchmark import OnRound, Speed, measure_speed
from autoseg.train.compilation import Compile


def benchmark(
    workspace: Workspace, dataset: Dataset, plan_name: str, fold: int, *, device: torch.device, num_workers: int,
    augment_device: AugmentDevice = "auto", compiled: Compile = "auto", on_round: OnRound = lambda number: None,
) -> Speed:  # fmt: skip
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
    return measure_speed(
        plan, store, chosen,
        device=device, num_workers=num_workers, augment_device=augment_device, compiled=compiled, on_round=on_round,
    )  # fmt: skip


class _ReferenceAsFound(CaseStore):
    """Takes the reference for what a previous stage found: it costs as much to read, and none need be trained."""

    def found(self, name: str) -> Any:
        return self.classes(name)
