"""Measuring a dataset: checks and fingerprint, in one go or in parts, and its folds."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from autoseg.data.dataset import Case, Dataset
from autoseg.data.problems import Problem, Problems, dataset_error
from autoseg.data.splits import Splits, group_cases, make_splits, split_errors
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document, write_document
from autoseg.errors import DatasetError, WorkspaceError
from autoseg.fingerprint.extract import examine, measure_cases
from autoseg.fingerprint.fingerprint import Fingerprint, present_labels
from autoseg.fingerprint.nnunet import read_nnunet_fingerprint, write_nnunet_fingerprint
from autoseg.plurals import count

OnCase = Callable[[Case], None]

Part = tuple[int, int]
"""K and N of a part, K from 1 on: every N-th case from the K-th on."""


def measure(
    dataset: Dataset,
    workspace: Workspace,
    *,
    num_workers: int,
    on_case: OnCase | None = None,
    on_problems: Callable[[Problems], None] | None = None,
    force: bool = False,
) -> tuple[Fingerprint, Splits]:
    """Check and measure all cases, and write problems.json, splits.json and the fingerprint, also in nnU-Net's form.

    Cases that were measured before and whose files are unchanged are not read again.

    Args:
        dataset: what to measure.
        workspace: where the documents are written.
        num_workers: number of threads; each holds one case in memory.
        on_case: told each finished case.
        on_problems: told all that is wrong or doubtful, before errors are raised.
        force: whether all are measured anew.

    Raises:
        DatasetError: there are errors; only problems.json is written.
        WorkspaceError: the folds would change under results that there are already; nothing is written.
    """
    if not split_errors(dataset):
        choose_splits(dataset, workspace)  # refuses at once what would be refused in the end
    keep = workspace.measured(dataset.name)
    found = examine(dataset, num_workers=num_workers, on_case=on_case, keep=keep, force=force)
    report = workspace.problems(dataset.name)
    write_document(report, found.problems)
    if on_problems:
        on_problems(found.problems)
    if found.fingerprint is None:
        raise dataset_error(dataset.folder, found.problems.problems, report)
    splits = choose_splits(dataset, workspace, presence=present_labels(found.fingerprint))
    write_document(workspace.fingerprint(dataset.name), found.fingerprint)
    write_nnunet_fingerprint(found.fingerprint, workspace.nnunet_fingerprint(dataset.name))
    write_document(workspace.splits(dataset.name), splits)
    return found.fingerprint, splits


def measure_part(
    dataset: Dataset,
    workspace: Workspace,
    part: Part,
    *,
    num_workers: int,
    on_case: OnCase | None = None,
    force: bool = False,
) -> list[Problem]:
    """Measure the cases of a part, and keep what was found for ``measure``.

    Parts can run anywhere at any time, several on the same case too: what one keeps is what ``measure`` would find.

    Returns:
        what is wrong or doubtful with these cases, as far as it shows in each by itself.
    """
    cases = cases_of_part(dataset, part)
    keep = workspace.measured(dataset.name)
    found = measure_cases(dataset, cases, num_workers=num_workers, on_case=on_case, keep=keep, force=force)
    return [problem for case in found for problem in case.problems]


def cases_of_part(dataset: Dataset, part: Part) -> Sequence[Case]:
    """Return the cases of a part."""
    return dataset.cases[part[0] - 1 :: part[1]]


def parse_part(text: str, num_cases: int) -> Part:
    """Return the part that ``K/N`` means.

    Raises:
        DatasetError: it is not of this form, or there is no such part.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count <= num_cases:
        allowed = f"K/N with 1 <= K <= N, and N at most the number of cases, {num_cases}"
        raise DatasetError(
            f"--part {text}: no part of the dataset; allowed is {allowed}, e.g. --part 1/{min(4, num_cases)}"
        )
    return number, count


def choose_splits(
    dataset: Dataset, workspace: Workspace, *, presence: Mapping[str, Collection[str]] | None = None
) -> Splits:
    """Return the folds that splits.json has already if they still suit the dataset, else those of ``make_splits``.

    They suit it if they name all its cases and no other, and part no group; the dataset's own splits_final.json goes
    before them. So folds edited by hand stay, and a case never changes sides under a trained network.

    Raises:
        DatasetError: the dataset cannot be split.
        WorkspaceError: there are results, and their folds do not suit the dataset any more.
    """
    made, path = make_splits(dataset, presence=presence), workspace.splits(dataset.name)
    if not path.is_file():
        return made
    before = read_document(path, Splits)
    if before.folds == made.folds or not dataset.own_splits and _suits(before, dataset):
        return before
    if trained := sorted(results_folder(workspace, dataset.name).glob("*/fold_*/checkpoints/last.pt")):
        done = count(len(trained), "fold is", "folds are")
        raise WorkspaceError(
            f"{path}: the folds would change ({_change(before, dataset)}), but {done} trained on those before, e.g. "
            f"{trained[0].parents[1]}; plan in another workspace (-w), or move "
            f"{results_folder(workspace, dataset.name)} and {path.name} elsewhere"
        )
    return made


def describe_folds(splits: Splits, dataset: Dataset) -> str:
    """Return how many folds there are, and where they come from."""
    told = count(len(splits.folds), "fold")
    if dataset.own_splits:
        return f"{told}, those of {dataset.own_splits}"
    groups = group_cases(dataset)
    shared = next((group for group, names in groups.items() if len(names) > 1), None)
    of_groups = f", of {len(groups)} groups of cases that stay together, like {shared}"
    return told + of_groups if shared else told


def _change(before: Splits, dataset: Dataset) -> str:
    old, new = _named_cases(before), {case.name for case in dataset.cases}
    if old == new and dataset.own_splits:
        return f"to those of {dataset.own_splits}"
    return f"{count(len(new - old), 'case is', 'cases are')} new, {len(old - new)} gone"


def results_folder(workspace: Workspace, dataset: str) -> Path:
    """Return the folder of the runs of all plans of a dataset."""
    return workspace.fold(dataset, "plan", 0).parents[1]


def _named_cases(splits: Splits) -> set[str]:
    return {name for fold in splits.folds for name in (*fold.train, *fold.validation)}


def _suits(splits: Splits, dataset: Dataset) -> bool:
    if _named_cases(splits) != {case.name for case in dataset.cases}:
        return False
    groups = [set(names) for names in group_cases(dataset).values()]
    sides = [(set(fold.train), set(fold.validation)) for fold in splits.folds]
    return not any(group & train and group & validation for train, validation in sides for group in groups)


def take_fingerprint(folder: Path, workspace: Workspace) -> Fingerprint:
    """Make the fingerprint of a folder that holds nnU-Net's two files and no images, and write fingerprint.json.

    Raises:
        DatasetError: a file has mistakes; nothing is written.
    """
    fingerprint = read_nnunet_fingerprint(folder)
    write_document(workspace.fingerprint(fingerprint.dataset), fingerprint)
    return fingerprint
