"""Cross-validation folds: nnU-Net's, unless cases share a group or a rare label would be missing from folds that could
have it.

A group never stands on both sides of a fold. Folds are stratified by the labels that occur in the cases only where the
plain ones would leave a label out of the validation of more folds than its number of groups makes necessary.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from autoseg.data.cases import Dataset
from autoseg.data.problems import Problem, dataset_error, make_problem, relative_name
from autoseg.documents import Document, parse_document
from autoseg.errors import DatasetError, DocumentError
from autoseg.plurals import count

SCHEMA: Literal["autoseg.splits.1"] = "autoseg.splits.1"
OWN_SPLITS = "splits_final.json"
GROUP_PREFIX = re.compile(r"(.*\d)_[^_]+")
MAX_MEAN_GROUP = 10
"""Prefixes shared by more cases than this on average number a year or a hospital (site1_042), not a patient."""


class Fold(Document):
    """Names of the cases on each side, sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


class Splits(Document):
    """The folds of a dataset."""

    schema_: Literal["autoseg.splits.1"] = Field(alias="schema")
    folds: tuple[Fold, ...]


class _OwnFold(Document):
    """One fold as nnU-Net writes it."""

    train: tuple[str, ...]
    val: tuple[str, ...]


class _OwnSplits(Document):
    folds: tuple[_OwnFold, ...] = Field(min_length=1)


def make_splits(
    dataset: Dataset, *, presence: Mapping[str, Collection[str]] | None = None, num_folds: int = 5, seed: int = 12345
) -> Splits:
    """Return the folds of the dataset's own ``splits_final.json``, else shuffled ones.

    Without groups and rare labels these are nnU-Net's: ``KFold(5, shuffle=True, random_state=12345)`` of scikit-learn
    over the sorted names. Groups are those of dataset.json (``groups``: case to group), else cases of names like
    ``patient003_frame01``. With fewer cases or groups than ``num_folds`` there are as many folds as these.

    Args:
        dataset: whose cases are split.
        presence: case to the foreground labels that occur in it, to stratify by where that is needed.
        num_folds: how many folds.
        seed: of the shuffling.

    Raises:
        DatasetError: fewer than two cases or groups, or a splits_final.json that does not fit the dataset.
    """
    if problems := split_errors(dataset):
        raise dataset_error(dataset.folder, problems)
    if dataset.own_splits:
        own = _read_own(dataset.own_splits)
        folds = tuple(Fold(train=tuple(sorted(f.train)), validation=tuple(sorted(f.val))) for f in own)
        return Splits(schema=SCHEMA, folds=folds)
    groups = group_cases(dataset)
    names = sorted(groups)
    parts = [[names[i] for i in part] for part in _split_indices(len(names), min(num_folds, len(names)), seed)]
    carriers = _carriers(groups, presence or {})
    if any(_num_folds_with(found, parts) < min(len(found), len(parts)) for found in carriers.values()):
        stratified = _stratify(names, carriers, [len(part) for part in parts], seed)
        if _coverage(carriers, stratified) > _coverage(carriers, parts):
            parts = stratified
    return Splits(schema=SCHEMA, folds=tuple(_fold(part, groups) for part in parts))


def split_errors(dataset: Dataset) -> list[Problem]:
    """Return what keeps the dataset from being split."""
    return [problem for problem in split_problems(dataset) if problem.severity == "error"]


def split_problems(dataset: Dataset) -> list[Problem]:
    """Return what keeps the dataset from being split, and what is doubtful in its own folds."""
    if dataset.own_splits:
        name = relative_name(dataset.own_splits, dataset.folder)
        try:
            own = _read_own(dataset.own_splits)
        except DatasetError as error:
            return [make_problem("splits", str(error), "correct it, or remove the file", file=name)]
        return _own_problems(own, dataset, name)
    groups = group_cases(dataset)
    if len(groups) >= 2 or not dataset.cases:
        return []
    number = len(dataset.cases)
    found = f"{number} labelled cases in {len(groups)} group" if number > 1 else "1 labelled case"
    return [make_problem("splits", found, "training and validation need at least 2 that share no patient")]


def get_fold(splits: Splits, fold: int) -> Fold:
    """Return fold number ``fold``.

    Raises:
        DatasetError: there is no such fold.
    """
    if not 0 <= fold < len(splits.folds):
        raise DatasetError(f"no fold {fold}; this dataset has the folds 0 to {len(splits.folds) - 1}")
    return splits.folds[fold]


def group_cases(dataset: Dataset) -> dict[str, list[str]]:
    """Return the names of the cases of each group; a case that shares no group is one of its own, of its own name."""
    names = [case.name for case in dataset.cases]
    declared = dataset.groups or _guess_groups(names)
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(declared.get(name, name), []).append(name)
    return groups


def _guess_groups(names: Sequence[str]) -> dict[str, str]:
    """Return case to patient where a name is PREFIX_SUFFIX, the prefix ends in a digit, and several cases share it."""
    prefixes = {name: match.group(1) for name in names if (match := GROUP_PREFIX.fullmatch(name))}
    shared = {n: p for n, p in prefixes.items() if sum(other == p for other in prefixes.values()) > 1}
    return shared if len(shared) <= MAX_MEAN_GROUP * len(set(shared.values())) else {}


def _split_indices(count: int, num_folds: int, seed: int) -> list[list[int]]:
    """Return the validation indices of each fold, as scikit-learn's shuffled KFold does."""
    indices = np.arange(count)
    np.random.RandomState(seed).shuffle(indices)
    return [sorted(part.tolist()) for part in np.array_split(indices, num_folds)]


def _carriers(groups: Mapping[str, Sequence[str]], presence: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """Return label to the groups in which it occurs."""
    carriers: dict[str, set[str]] = {}
    for group, names in groups.items():
        for label in {label for name in names for label in presence.get(name, ())}:
            carriers.setdefault(label, set()).add(group)
    return carriers


def _num_folds_with(carriers: Collection[str], parts: Sequence[Sequence[str]]) -> int:
    return sum(any(group in carriers for group in part) for part in parts)


def _coverage(carriers: Mapping[str, Collection[str]], parts: Sequence[Sequence[str]]) -> int:
    """Return in how many folds labels can be validated, summed over the labels."""
    return sum(_num_folds_with(found, parts) for found in carriers.values())


def _stratify(
    names: Sequence[str], carriers: Mapping[str, Collection[str]], sizes: Sequence[int], seed: int
) -> list[list[str]]:
    """Return parts of the given sizes in which each label is spread as evenly as can be.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011): of the label that fewest unplaced groups have,
    one goes to the part that has fewest of that label, then to the one with most room.
    """
    order = np.array(names, dtype=object)
    np.random.RandomState(seed).shuffle(order)
    left, parts = list(order), [[] for _ in sizes]  # type: tuple[list[str], list[list[str]]]
    while left:
        unplaced = {label: [name for name in left if name in found] for label, found in carriers.items()}
        rare = min((label for label in unplaced if unplaced[label]), key=lambda n: (len(unplaced[n]), n), default=None)
        name, found = (left[0], ()) if rare is None else (unplaced[rare][0], carriers[rare])
        open_parts = [index for index, size in enumerate(sizes) if len(parts[index]) < size]
        best = min(open_parts, key=lambda i: (sum(n in found for n in parts[i]), len(parts[i]) - sizes[i], i))
        parts[best].append(name)
        left.remove(name)
    return [sorted(part) for part in parts]


def _fold(validation_groups: Sequence[str], groups: dict[str, list[str]]) -> Fold:
    validation = sorted(name for group in validation_groups for name in groups[group])
    train = sorted(name for group, names in groups.items() if group not in validation_groups for name in names)
    return Fold(train=tuple(train), validation=tuple(validation))


def _read_own(path: Path) -> tuple[_OwnFold, ...]:
    expected = "expected a list of {train, val}"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return parse_document(json.dumps({"folds": content}), _OwnSplits, where="its entries").folds
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot be read ({error}); {expected}") from None
    except DocumentError as error:
        raise DatasetError(f"{error}; {expected}") from None


def _own_problems(own: Sequence[_OwnFold], dataset: Dataset, name: str) -> list[Problem]:
    known, problems = {case.name for case in dataset.cases}, []
    for index, fold in enumerate(own):
        found = []
        if unknown := sorted({*fold.train, *fold.val} - known):
            found.append(f"fold {index} names unknown cases {unknown[:3]} ({len(unknown)} in all)")
        if both := sorted(set(fold.train) & set(fold.val)):
            found.append(f"fold {index} has cases in train and in val: {both[:3]} ({len(both)} in all)")
        if not fold.train or not fold.val:
            found.append(f"fold {index}: train has {len(fold.train)} and val {count(len(fold.val), 'case')}")
        problems += [make_problem("splits", text, "correct it, or remove the file", file=name) for text in found]
    return problems or _parted_groups(own, group_cases(dataset), name)


def _parted_groups(own: Sequence[_OwnFold], groups: Mapping[str, Sequence[str]], name: str) -> list[Problem]:
    """Return a warning if folds made by hand, or by nnU-Net, which knows no patients, train on what they score."""
    parted = [
        (index, group)
        for index, fold in enumerate(own)
        for group, names in groups.items()
        if set(names) & set(fold.train) and set(names) & set(fold.val)
    ]
    if not parted:
        return []
    index, group = parted[0]
    found = f"fold {index} has cases of {group} in train and in val ({len({g for _, g in parted})} such groups in all)"
    remedy = "scores will be too good if that is one patient; keep such cases on one side, or remove the file"
    return [make_problem("parted patient", found, remedy, file=name)]
