"""Preprocessing a dataset: which cases are to be made, several at a time, and what becomes of those that cannot be."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from autoseg.data.dataset import Case, Dataset
from autoseg.data.parallel import map_cases
from autoseg.documents import write_document
from autoseg.errors import VolumeError
from autoseg.plan.plan import Plan
from autoseg.preprocess.case import preprocess_case
from autoseg.preprocess.store import CONTENT_NAME, CaseStore, check_names, preprocessing_content, remove_stale

OnCase = Callable[[Case], None]
OnError = Callable[[Case, str], None]


def preprocess_dataset(
    dataset: Dataset,
    plan: Plan,
    folder: Path,
    *,
    num_workers: int,
    cases: Sequence[Case] | None = None,
    device: torch.device | None = None,
    force: bool = False,
    on_case: OnCase | None = None,
    on_error: OnError | None = None,
) -> list[str]:
    """Preprocess labelled cases of a dataset into ``folder``, skipping those that are finished and unchanged.

    Workers are threads of this process; nothing passes through shared memory. A case that cannot be read, or for which
    there is not enough memory, does not keep the others from being made. Several processes may do this at the same
    time, also with the same cases: each file is put in its place whole, and all would write the same.

    Args:
        dataset: the raw cases.
        plan: of it, ``preprocessing`` and the label scheme are used.
        folder: made if it is not there.
        num_workers: number of threads; each holds one case in memory.
        cases: of the dataset, those to be made; None: all.
        device: that images are resampled on; None: the CPU.
        force: make finished cases again too.
        on_case: called in the calling thread with each case that is done, also with those skipped and failed.
        on_error: told each case that failed, and why.

    Returns:
        sorted names of the cases that failed.

    Raises:
        DatasetError: names of cases collide in the folder. PlanError: the plan does not suit the images.
    """
    check_names(dataset)
    store = CaseStore(folder, plan.dataset.label_scheme)
    remove_stale(folder)
    content = folder / f"{CONTENT_NAME}.json"
    if not content.is_file():
        write_document(content, preprocessing_content(plan))
    failures: dict[str, str] = {}

    def preprocess(case: Case) -> None:
        if force or not store.is_current(case):
            reason = _make(case, plan, store, device)
            if reason:
                failures[case.name] = reason

    def tell(case: Case) -> None:
        if on_error and case.name in failures:
            on_error(case, failures[case.name])
        if on_case:
            on_case(case)

    map_cases(preprocess, dataset.cases if cases is None else cases, num_workers=num_workers, on_done=tell)
    return sorted(failures)


def _make(case: Case, plan: Plan, store: CaseStore, device: torch.device | None) -> str | None:
    """Preprocess and save a case; return why that failed, or None."""
    try:
        store.save(preprocess_case(case, plan, device=device))
    except VolumeError as error:
        reason = str(error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        what = " ".join(str(error).split()) or "no more to be had"
        reason = f"out of memory ({what}); run the same command again with fewer workers, e.g. -j 1"
    else:
        return None
    store.discard(case.name)  # what stood there was made from files that have changed, or was to be made again
    gc.collect()  # the arrays of the failed case, before another one needs the room
    return reason
