"""Cross-validation folds, the same as nnU-Net's unless cases share a group: then a group never stands on both sides."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from autoseg.data.cases import Dataset, dataset_error
from autoseg.documents import Document, parse_document
from autoseg.errors import DatasetError, DocumentError

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


def make_splits(dataset: Dataset, *, num_folds: int = 5, seed: int = 12345) -> Splits:
    """Return the folds of ``splits_final.json`` in the dataset's folder, else shuffled ones.

    Without groups these are nnU-Net's: ``KFold(5, shuffle=True, random_state=12345)`` of scikit-learn over the sorted names.
    Groups are those of dataset.json (``groups``: case to group), else cases of names like ``patient003_frame01``. With fewer cases
    or groups than ``num_folds`` there are as many folds as these.

    Raises:
        DatasetError: fewer than two cases or groups, or a splits_final.json that does not fit the dataset.
    """
    own = dataset.folder / OWN_SPLITS
    if own.is_file():
        return _read_own(own, dataset)
    groups = group_cases(dataset)
    if len(groups) < 2:
        found = f"{len(dataset.cases)} labelled cases in {len(groups)} group" if len(dataset.cases) > 1 else "1 labelled case"
        raise DatasetError(f"{dataset.folder}: {found}; training and validation need at least 2 that share no patient")
    names = sorted(groups)
    parts = _split_indices(len(names), min(num_folds, len(names)), seed)
    return Splits(schema=SCHEMA, folds=tuple(_fold([names[i] for i in part], groups) for part in parts))


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


def _fold(validation_groups: Sequence[str], groups: dict[str, list[str]]) -> Fold:
    validation = sorted(name for group in validation_groups for name in groups[group])
    train = sorted(name for group, names in groups.items() if group not in validation_groups for name in names)
    return Fold(train=tuple(train), validation=tuple(validation))


def _read_own(path: Path, dataset: Dataset) -> Splits:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        own = parse_document(json.dumps({"folds": content}), _OwnSplits, where=str(path)).folds
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); expected a list of {{train, val}}") from None
    except DocumentError as error:
        raise DatasetError(f"{error}; expected a list of {{train, val}}") from None
    if problems := _own_problems(own, {case.name for case in dataset.cases}):
        raise dataset_error(path, problems)
    return Splits(
        schema=SCHEMA, folds=tuple(Fold(train=tuple(sorted(f.train)), validation=tuple(sorted(f.val))) for f in own)
    )


def _own_problems(own: Sequence[_OwnFold], known: set[str]) -> list[str]:
    problems = []
    for index, fold in enumerate(own):
        if unknown := sorted({*fold.train, *fold.val} - known):
            problems.append(f"fold {index} names unknown cases {unknown[:3]} ({len(unknown)} in all)")
        if both := sorted(set(fold.train) & set(fold.val)):
            problems.append(f"fold {index} has cases in train and in val: {both[:3]} ({len(both)} in all)")
        if not fold.train or not fold.val:
            problems.append(f"fold {index}: train has {len(fold.train)} and val {len(fold.val)} cases; each needs at least one")
    return problems
