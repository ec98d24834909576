"""Checking and measuring a dataset in one read of each file."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.data.cases import Case, Dataset
from autoseg.data.geometry import canonical_geometry, orientation_code
from autoseg.data.labels import IGNORE_NAME, Labels
from autoseg.data.parallel import map_cases
from autoseg.data.problems import Problems, collect, dataset_error, make_problem
from autoseg.data.splits import split_problems
from autoseg.fingerprint.checks import check_dataset
from autoseg.fingerprint.fingerprint import SCHEMA, CaseFingerprint, ChannelIntensities, Components, Fingerprint
from autoseg.fingerprint.kept import describe_inputs, read_measured, write_measured
from autoseg.fingerprint.measure import Foreground, MeasuredCase, measure_case

MAX_VALUES = 10_000_000
"""Foreground values a channel kept over all cases for the percentiles where they are no whole numbers: every one where
there are no more. nnU-Net draws 1e8; with these the rank of the 0.5 % percentile is off by 2e-5."""

QUANTILES = (0.005, 0.5, 0.995)


@dataclass(frozen=True)
class Examination:
    """What is wrong or doubtful with a dataset, and its fingerprint unless there are errors."""

    problems: Problems
    fingerprint: Fingerprint | None


def extract_fingerprint(
    dataset: Dataset, *, num_workers: int, on_case: Callable[[Case], None] | None = None
) -> Fingerprint:
    """Examine a dataset and return its fingerprint.

    Raises:
        DatasetError: all errors of the whole dataset in one message.
    """
    found = examine(dataset, num_workers=num_workers, on_case=on_case)
    if found.fingerprint is None:
        raise dataset_error(dataset.folder, found.problems.problems)
    return found.fingerprint


def examine(
    dataset: Dataset,
    *,
    num_workers: int,
    on_case: Callable[[Case], None] | None = None,
    keep: Path | None = None,
    force: bool = False,
) -> Examination:
    """Check and measure every case, reading each file once.

    Checked: files can be read, are whole, real-valued and finite and have the declared number of channels; channels and
    label lie on one grid (axes may be stored in another order or direction); every label value is declared; there is
    foreground. And doubts: see ``autoseg.data.problems.KINDS``.

    Args:
        dataset: what to measure.
        num_workers: number of threads; each holds one case in memory.
        on_case: called with each finished case.
        keep: folder of finished measurements; a case that is there and whose files are the same is not read again.
        force: whether every case is measured anew all the same.
    """
    cases = measure_cases(dataset, dataset.cases, num_workers=num_workers, on_case=on_case, keep=keep, force=force)
    whole = [case for case in cases if case.geometry is not None]
    problems = [*dataset.problems, *(problem for case in cases for problem in case.problems), *split_problems(dataset)]
    labels = dataset.labels or _found_labels(whole)
    if labels is not None:
        problems += check_dataset(dataset, whole, labels)
    elif whole:
        problems.append(make_problem("dataset", "no case has any label", "check the labels: there is nothing to learn"))
    report = collect(dataset.name, problems)
    if labels is None or report.errors:
        return Examination(report, None)
    return Examination(report, _assemble(dataset, whole, labels))


def measure_cases(
    dataset: Dataset,
    cases: Sequence[Case],
    *,
    num_workers: int,
    on_case: Callable[[Case], None] | None = None,
    keep: Path | None = None,
    force: bool = False,
) -> list[MeasuredCase]:
    """Check and measure some cases of a dataset; see ``examine``.

    What is found in a case does not depend on which others are measured with it.
    """
    max_values = max(1, MAX_VALUES // max(1, len(dataset.cases)))

    def measure(case: Case) -> MeasuredCase:
        key = describe_inputs(case, dataset, max_values) if keep else None
        kept = read_measured(keep, key) if keep and key and not force else None
        if kept is None:
            kept = measure_case(case, folder=dataset.folder, labels=dataset.labels, max_values=max_values)
            if keep and key and kept.geometry is not None:
                write_measured(keep, key, kept)
        return kept

    return map_cases(measure, cases, num_workers=num_workers, on_done=on_case)


def _found_labels(cases: Sequence[MeasuredCase]) -> Labels | None:
    """Return a label for each value that occurs, or None where all is background."""
    values = sorted({value for case in cases for value in case.voxels} - {0})
    return Labels.from_names({"background": 0, **{f"label_{value}": value for value in values}}) if values else None


def _assemble(dataset: Dataset, cases: Sequence[MeasuredCase], labels: Labels) -> Fingerprint:
    entries = tuple(_describe(case, labels) for case in cases)
    relative = [math.prod(entry.shape_after_crop) / math.prod(entry.shape) for entry in entries]
    channels = zip(*(case.foreground for case in cases if case.foreground))
    return Fingerprint(
        schema=SCHEMA,
        dataset=dataset.name,
        channels=dataset.channels,
        labels=labels.labels,
        regions=labels.regions,
        num_training=len(entries),
        cases=entries,
        intensities=tuple(_summarise(parts) for parts in channels),
        median_relative_size_after_cropping=float(np.median(relative)),
        components=_pool_components(cases, labels),
    )


def _pool_components(cases: Sequence[MeasuredCase], labels: Labels) -> dict[str, Components]:
    """Return the components of each foreground label over all cases."""
    none = np.zeros(0, dtype=np.float32)
    return {
        name: summarise_components(np.concatenate([case.components.get(value, none) for case in cases]))
        for name, value in labels.labels.items()
        if name not in ("background", IGNORE_NAME)
    }


def summarise_components(volumes: NDArray[np.float32]) -> Components:
    """Return the number and the quartiles of ``volumes`` in mm^3."""
    names = ("min_mm3", "quartile_1_mm3", "median_mm3", "quartile_3_mm3", "max_mm3")
    quartiles = np.quantile(volumes.astype(np.float64), np.linspace(0, 1, 5)).tolist() if volumes.size else [None] * 5
    return Components(count=volumes.size, **dict(zip(names, quartiles)))


def _describe(case: MeasuredCase, labels: Labels) -> CaseFingerprint:
    if case.geometry is None:
        raise ValueError(f"{case.name} was not measured")
    geometry = canonical_geometry(case.geometry)
    (z, y, x), (dz, dy, dx) = geometry.shape, geometry.spacing
    return CaseFingerprint(
        name=case.name,
        spacing=geometry.spacing,
        shape=geometry.shape,
        shape_after_crop=case.shape_after_crop,
        orientation=orientation_code(case.geometry),
        label_voxels={name: case.voxels.get(value, 0) for name, value in labels.labels.items()},
        field_of_view_mm=(z * dz, y * dy, x * dx),
        components=_pool_components([case], labels),
    )


def _summarise(parts: Sequence[Foreground]) -> ChannelIntensities:
    """Return one channel's statistics over all cases with foreground, which weigh the same."""
    mean = float(np.mean([part.mean for part in parts]))
    variance = float(np.mean([part.variance + (part.mean - mean) ** 2 for part in parts]))
    values = np.concatenate([part.values for part in parts])
    weights = np.concatenate([part.counts / part.counts.sum() for part in parts])
    low, median, high = _weighted_quantiles(values, weights, QUANTILES)
    return ChannelIntensities(
        mean=mean,
        median=median,
        std=math.sqrt(variance),
        min=min(part.min for part in parts),
        max=max(part.max for part in parts),
        percentile_00_5=low,
        percentile_99_5=high,
    )


def _weighted_quantiles(
    values: NDArray[np.float32], weights: NDArray[np.float64], quantiles: Sequence[float]
) -> list[float]:
    """Return, for each quantile, the smallest value that has at least this part of the weight up to it."""
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    indices = np.searchsorted(share, np.asarray(quantiles) * share[-1])
    return [float(value) for value in values[order[np.minimum(indices, len(order) - 1)]]]
