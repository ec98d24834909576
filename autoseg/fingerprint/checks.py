"""Checks that need all cases: duplicates, outliers, rare labels, mixed orientations."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from autoseg.data.cases import Dataset
from autoseg.data.geometry import canonical_geometry, orientation_code
from autoseg.data.labels import IGNORE_NAME, Labels
from autoseg.data.pairing import summarise
from autoseg.data.problems import Problem, make_problem
from autoseg.data.splits import group_cases
from autoseg.fingerprint.measure import MeasuredCase

SPACING_FACTOR = 10
"""A spacing this many times the median, or its part, is in another unit."""
MIN_CASES = 5
"""Fewer cases with a label than this leave folds of five without it."""


def check_dataset(dataset: Dataset, cases: Sequence[MeasuredCase], labels: Labels) -> list[Problem]:
    """Return the problems that show only between cases, and the cases without foreground.

    Args:
        dataset: whose cases these are.
        cases: those without errors.
        labels: declared or found.
    """
    problems = [*_duplicates(dataset, cases), *_spacing_outliers(cases), *_empty_labels(cases, labels)]
    problems += _mixed_orientations(cases)
    if len(cases) < len(dataset.cases):  # what the others hold is not known
        return problems
    if cases and not any(case.foreground for case in cases):
        found = f"no case has a voxel of {', '.join(labels.regions) or 'any label'}"
        problems.append(make_problem("dataset", found, "check the labels: there is nothing to learn"))
    return problems + _rare_labels(cases, labels)


def foreground_labels(case: MeasuredCase, labels: Labels) -> frozenset[str]:
    """Return the foreground labels that occur in a case."""
    names = {value: name for name, value in labels.labels.items() if name not in ("background", IGNORE_NAME)}
    return frozenset(names[value] for value, count in case.voxels.items() if count and value in names)


def _duplicates(dataset: Dataset, cases: Sequence[MeasuredCase]) -> list[Problem]:
    """One problem for each set of cases that have the same image and stand in different groups."""
    groups = {name: group for group, names in group_cases(dataset).items() for name in names}
    same: dict[bytes, list[str]] = {}
    for case in cases:
        same.setdefault(case.digest, []).append(case.name)
    remedy = "keep one of them, or give them one group in dataset.json: training would see the validation case"
    return [
        make_problem("duplicate image", f"has the same image as {summarise(others)}", remedy, case=name)
        for name, *others in same.values()
        if len({groups[member] for member in (name, *others)}) > 1
    ]


def _spacing_outliers(cases: Sequence[MeasuredCase]) -> list[Problem]:
    spacings = {case.name: np.array(canonical_geometry(case.geometry).spacing) for case in cases if case.geometry}
    usual = np.median(list(spacings.values()), axis=0) if spacings else np.ones(3)
    problems = []
    for name, spacing in spacings.items():
        ratio = np.maximum(spacing / usual, usual / spacing).max()
        if ratio >= SPACING_FACTOR:
            off = f"{ratio:.3g} times off the median {_millimetres(usual)} (z, y, x)"
            found = f"has the spacing {_millimetres(spacing)}, {off}"
            problems.append(
                make_problem("spacing outlier", found, "check its header: is it in another unit?", case=name)
            )
    return problems


def _rare_labels(cases: Sequence[MeasuredCase], labels: Labels) -> list[Problem]:
    counts: Counter[str] = Counter(name for case in cases for name in foreground_labels(case, labels))
    problems = []
    for name in labels.labels:
        if name not in ("background", IGNORE_NAME) and counts[name] < MIN_CASES:
            of_all = f"only {counts[name]} of {len(cases)}" if counts[name] < len(cases) else f"{len(cases)}"
            found = f"label {name!r} occurs in {of_all} cases"
            problems.append(make_problem("rare label", found, "add cases with it, or expect no sound score for it"))
    return problems


def _empty_labels(cases: Sequence[MeasuredCase], labels: Labels) -> list[Problem]:
    remedy = "check that it is meant; it teaches only what is background"
    return [
        make_problem("empty label", "its label has no foreground", remedy, case=case.name)
        for case in cases
        if not foreground_labels(case, labels)
    ]


def _mixed_orientations(cases: Sequence[MeasuredCase]) -> list[Problem]:
    counts = Counter(orientation_code(case.geometry) for case in cases if case.geometry)
    if len(counts) < 2:
        return []
    found = "cases are stored along different axes: " + ", ".join(
        f"{count} {code}" for code, count in counts.most_common()
    )
    remedy = "nothing to do: all are brought to LPS, and predictions go back to each file's own axes"
    return [make_problem("mixed orientations", found, remedy)]


def _millimetres(spacing: np.ndarray) -> str:
    return " x ".join(f"{value:.3g}" for value in spacing) + " mm"
