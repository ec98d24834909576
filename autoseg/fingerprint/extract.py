"""Checking and measuring a dataset in one read of each file."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from autoseg.data.cases import Case, Dataset, dataset_error
from autoseg.data.crop import nonzero_box
from autoseg.data.labels import IGNORE_NAME, IGNORED_CLASS, Labels
from autoseg.data.parallel import map_cases
from autoseg.data.volumes import Geometry, align, canonical_geometry, orientation_code, read_image, read_label
from autoseg.errors import VolumeError
from autoseg.fingerprint.fingerprint import SCHEMA, CaseFingerprint, ChannelIntensities, Fingerprint

SEED = 1234  # nnU-Net's
MAX_VALUES = 10_000_000
"""Foreground values a channel kept over all cases for the percentiles: every one where there are no more. nnU-Net draws
1e8; with these the rank of the 0.5 % percentile is off by 2e-5."""

QUANTILES = (0.005, 0.5, 0.995)


@dataclass(frozen=True)
class _Foreground:
    """One channel's foreground in one case: exact moments, and values for the percentiles."""

    mean: float
    variance: float
    min: float
    max: float
    values: NDArray[np.float32]


@dataclass(frozen=True)
class _Measured:
    """One case: what is wrong with it, or its fingerprint and its foreground a channel (none where it has none)."""

    problems: tuple[str, ...] = ()
    fingerprint: CaseFingerprint | None = None
    foreground: tuple[_Foreground, ...] = ()


def extract_fingerprint(
    dataset: Dataset, *, num_workers: int, on_case: Callable[[Case], None] | None = None
) -> Fingerprint:
    """Check and measure every case.

    Checked: files can be read and are 3-D, finite and scalar; channels and label lie on one grid (axes may be stored in
    another order or direction); every label value is declared; there is foreground.

    Args:
        dataset: what to measure.
        num_workers: number of threads; each holds one case in memory.
        on_case: called with each finished case.

    Raises:
        DatasetError: all problems of the whole dataset in one message.
    """
    measure = partial(_measure_case, labels=dataset.labels, max_values=max(1, MAX_VALUES // len(dataset.cases)))
    measured = map_cases(measure, dataset.cases, num_workers=num_workers, on_done=on_case)
    problems = [problem for one in measured for problem in one.problems]
    if not problems and not any(one.foreground for one in measured):
        problems.append(f"no case has a voxel of {', '.join(dataset.labels.regions)}; there is nothing to learn")
    if problems:
        raise dataset_error(dataset.folder, problems)
    cases = tuple(one.fingerprint for one in measured if one.fingerprint)
    relative = [math.prod(case.shape_after_crop) / math.prod(case.shape) for case in cases]
    channels = zip(*(one.foreground for one in measured if one.foreground))
    return Fingerprint(
        schema=SCHEMA,
        dataset=dataset.name,
        channels=dataset.channels,
        labels=dataset.labels.labels,
        regions=dataset.labels.regions,
        num_training=len(cases),
        cases=cases,
        intensities=tuple(_summarise(parts) for parts in channels),
        median_relative_size_after_cropping=float(np.median(relative)),
    )


def _measure_case(case: Case, *, labels: Labels, max_values: int) -> _Measured:
    try:
        image = read_image(case.images)
        classes = _read_classes(case, image.geometry, labels)
    except VolumeError as error:
        return _Measured((str(error),))
    box = nonzero_box(image.array)
    cropped, classes_inside = image.array[:, *box], classes[box]
    geometry = canonical_geometry(image.geometry)
    cropped_geometry = image.geometry.model_copy(update={"shape": cropped.shape[1:]})
    fingerprint = CaseFingerprint(
        name=case.name,
        spacing=geometry.spacing,
        shape=geometry.shape,
        shape_after_crop=canonical_geometry(cropped_geometry).shape,
        orientation=orientation_code(image.geometry),
        label_voxels=_count_labels(classes, labels),
    )
    mask = classes_inside > 0
    seed = [SEED, zlib.crc32(case.name.encode())]  # of the name, so that a case's values do not depend on the others
    found = [_measure_channel(channel[mask], max_values, np.random.default_rng(seed)) for channel in cropped]
    return _Measured((), fingerprint, tuple(found) if mask.any() else ())


def _read_classes(case: Case, geometry: Geometry, labels: Labels) -> NDArray[np.int16]:
    if case.label is None:
        raise VolumeError(f"{case.name}: it has no label; only labelled cases can be measured")
    label = align(read_label(case.label), geometry, case.label, case.images[0])
    return labels.encode(label.array[0], str(case.label))


def _count_labels(classes: NDArray[np.int16], labels: Labels) -> dict[str, int]:
    """Return the number of voxels of each declared label."""
    counts = np.bincount(classes.ravel() - IGNORED_CLASS, minlength=labels.num_classes + 1)
    index = {value: number - IGNORED_CLASS for number, value in enumerate(labels.class_values)}
    return {name: int(counts[0 if name == IGNORE_NAME else index[value]]) for name, value in labels.labels.items()}


def _measure_channel(values: NDArray[np.float32], max_values: int, rng: np.random.Generator) -> _Foreground:
    if not values.size:
        return _Foreground(0, 0, 0, 0, values)
    kept = values if values.size <= max_values else rng.choice(values, max_values)
    mean, variance = values.mean(dtype=np.float64), values.var(dtype=np.float64)
    return _Foreground(float(mean), float(variance), float(values.min()), float(values.max()), kept)


def _summarise(parts: Sequence[_Foreground]) -> ChannelIntensities:
    """Return one channel's statistics over all cases with foreground, which weigh the same."""
    mean = float(np.mean([part.mean for part in parts]))
    variance = float(np.mean([part.variance + (part.mean - mean) ** 2 for part in parts]))
    values = np.concatenate([part.values for part in parts])
    weights = np.concatenate([np.full(part.values.size, 1 / part.values.size) for part in parts])
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
