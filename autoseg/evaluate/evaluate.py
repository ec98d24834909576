"""Scores of cases and folders, as the document ``metrics.json``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

import autoseg
from autoseg.data.cases import Case
from autoseg.data.labels import IGNORED_CLASS, Labels
from autoseg.data.pairing import list_volumes
from autoseg.data.parallel import map_cases
from autoseg.data.volumes import align, read_label
from autoseg.documents import Document
from autoseg.errors import DatasetError, nearest
from autoseg.evaluate.boxes import class_boxes, common_box, occupied_box
from autoseg.evaluate.lesions import describe_lesions, metric_name, score_lesions
from autoseg.evaluate.metrics import count_overlap, surface_distances
from autoseg.plurals import count

Values = dict[str, float | None]
"""Metric to value; None where it is undefined."""

FOREGROUND = "foreground"
"""Name of the mean over all regions, in ``mean``. If a region has this name, there is no such mean."""
DEFINITIONS = {
    "dice": "twice the common voxels over the voxels of both masks; 0 if one mask is empty, null if both are",
    "iou": "common voxels over the voxels of the union; 0 if one mask is empty, null if both are",
    "sensitivity": "part of the reference's voxels that was predicted; 0 if one mask is empty, null if both are",
    "precision": "part of the predicted voxels that is in the reference; 0 if one mask is empty, null if both are",
    "surface_dice": "share of both surfaces' area within the tolerance of the other surface (normalised surface Dice, "
    "Nikolov et al. 2018); 0 if one mask is empty, null if both are",
    "hausdorff_95": "95th percentile of the area-weighted distances between the surfaces in mm, the larger direction; "
    "the diagonal of the image if one mask is empty, null if both are",
    "average_surface_distance": "mean of the distances between the surfaces in mm, over the area of both; the diagonal "
    "of the image if one mask is empty, null if both are",
    "volume_difference_ml": "predicted minus reference volume in millilitres; null if both masks are empty",
    "reference_volume_ml": "volume of the reference in millilitres",
    "predicted_volume_ml": "volume of the prediction in millilitres",
}
"""The metrics in the order in which they are written; those of lesions follow."""
SCORES = tuple(name for name in DEFINITIONS if not name.endswith("volume_ml"))
"""The metrics of which a mean over regions says something."""
MAX_NAMED = 10
"""Of the cases that lack a segmentation, so many are named."""

LESION_OVERLAPS = (0.1, 0.5)
"""Thresholds at which lesions are counted as found: the first asks whether it was seen, the second how well."""


@dataclass(frozen=True)
class Scoring:
    """How two label maps are compared.

    Attributes:
        tolerance_mm: of the surface Dice.
        lesions: names of the regions whose connected components are scored one by one as well.
        lesion_overlaps: intersections over union from which a lesion counts as found.
    """

    tolerance_mm: float
    lesions: tuple[str, ...] = ()
    lesion_overlaps: tuple[float, ...] = LESION_OVERLAPS

    @property
    def definitions(self) -> dict[str, str]:
        """Every metric that is computed, with its definition."""
        return DEFINITIONS | (describe_lesions(self.lesion_overlaps) if self.lesions else {})

    @property
    def lesion_scores(self) -> tuple[str, ...]:
        """The lesion metrics of which a mean over regions says something."""
        return tuple(metric_name(overlap) for overlap in self.lesion_overlaps) if self.lesions else ()


class MetricsOrigin(Document):
    """Which implementation gave the numbers: tools differ by more than methods do, so a number needs its source."""

    implementation: str
    version: str
    surface_tolerance_mm: float
    definitions: dict[str, str]
    lesions: tuple[str, ...] = ()


class Metrics(Document):
    """metrics.json.

    Attributes:
        about: how the values were computed.
        cases: case to region to metric to value; None where both masks are empty.
        mean: region to metric to the mean over the cases where it is defined; ``foreground`` is the mean over regions.
        undefined: region to the number of cases where both masks are empty.
    """

    schema_: Literal["autoseg.metrics.1"] = Field(default="autoseg.metrics.1", alias="schema")
    about: MetricsOrigin
    cases: dict[str, dict[str, Values]]
    mean: dict[str, Values]
    undefined: dict[str, int]


@dataclass(frozen=True)
class LabelPair:
    """The two label files of one case."""

    name: str
    reference: Path
    predicted: Path


def evaluate_case(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    labels: Labels,
    spacing: Sequence[float],
    scoring: Scoring,
    *,
    where: tuple[str, str] = ("reference", "prediction"),
) -> dict[str, Values]:
    """Score a segmentation against a reference, region by region.

    A region is the union of its labels. Voxels that the reference ignores count on neither side.

    Args:
        reference: label values (Z, Y, X).
        prediction: label values on the same grid.
        labels: which values are declared, and the regions.
        spacing: mm (z, y, x).
        scoring: tolerance and lesions.
        where: what the two are called in errors.

    Raises:
        VolumeError: a label value is not declared.
    """
    shape, volumes = reference.shape, (reference, prediction)
    box = common_box(map(occupied_box, volumes), shape) or tuple(slice(0, 1) for _ in shape)
    classes, predicted = (labels.encode(values[box], name) for values, name in zip(volumes, where))
    if labels.ignore_value is not None:
        predicted[classes == IGNORED_CLASS] = IGNORED_CLASS
    boxes = class_boxes(classes, predicted)
    scores = {}
    for region, members in zip(labels.regions, labels.membership()):
        used = [one for member in np.flatnonzero(members[: len(boxes)]) for one in boxes[member]]
        part = common_box(used, classes.shape) or tuple(slice(0, 1) for _ in shape)
        masks = _mask(classes[part], members), _mask(predicted[part], members)
        scores[region] = _score(region, *masks, spacing, scoring, image_shape=shape)
    return scores


def evaluate_folder(
    reference_cases: Sequence[Case],
    prediction_folder: Path,
    labels: Labels | None,
    *,
    tolerance_mm: float,
    lesions: Sequence[str] = (),
    num_workers: int = 1,
    on_case: Callable[[str], None] | None = None,
) -> Metrics:
    """Score the segmentations of a folder, CASE with any ending that is read, against the labels of the cases.

    Args:
        reference_cases: with their labels.
        prediction_folder: of the segmentations.
        labels: which values are declared, and the regions; None: each value found is a region ``label_VALUE``.
        tolerance_mm: of the surface Dice.
        lesions: names of the regions whose components are scored one by one as well.
        num_workers: threads.
        on_case: told the name of each finished case.

    Raises:
        DatasetError: cases without label or without segmentation.
        VolumeError: a file cannot be read, holds an undeclared label, or lies on another grid than its reference.
    """
    if unlabelled := [case.name for case in reference_cases if case.label is None]:
        raise DatasetError(f"cases {', '.join(unlabelled)} have no reference label; only labelled cases can be scored")
    references = {case.name: case.label for case in reference_cases if case.label is not None}
    scoring = Scoring(tolerance_mm, tuple(lesions))
    return _evaluate(_pair(references, prediction_folder), labels, scoring, num_workers, on_case)


def evaluate_label_folders(
    reference_folder: Path,
    prediction_folder: Path,
    labels: Labels | None = None,
    *,
    tolerance_mm: float,
    lesions: Sequence[str] = (),
    only_segmented: bool = False,
    num_workers: int = 1,
    on_case: Callable[[str], None] | None = None,
) -> Metrics:
    """Score two folders of label files named alike; without ``labels`` each value v found is a region ``label_v``.

    References without segmentation are left out if ``only_segmented``, else refused.

    Raises:
        DatasetError: a folder is missing or holds no volume, or references without segmentation.
        VolumeError: a file cannot be read, holds an undeclared label, or lies on another grid than its reference.
    """
    references = _volumes_by_name(reference_folder)
    if not references:
        raise DatasetError(f"{reference_folder}: no label files found; expected CASE.nii.gz and the like")
    if only_segmented and (predictions := references.keys() & _volumes_by_name(prediction_folder)):
        references = {name: path for name, path in references.items() if name in predictions}
    scoring = Scoring(tolerance_mm, tuple(lesions))
    return _evaluate(_pair(references, prediction_folder), labels, scoring, num_workers, on_case)


def _evaluate(
    pairs: Sequence[LabelPair],
    labels: Labels | None,
    scoring: Scoring,
    num_workers: int,
    on_case: Callable[[str], None] | None,
) -> Metrics:
    if labels is not None:
        check_lesions(scoring.lesions, labels.regions)

    def report(pair: LabelPair) -> None:
        if on_case:
            on_case(pair.name)

    found = map_cases(lambda pair: _score_pair(pair, labels, scoring), pairs, num_workers=num_workers, on_done=report)
    cases = {pair.name: scores for pair, scores in zip(pairs, found)}
    if labels is None:
        cases = _with_absent_regions(cases, scoring)
        check_lesions(scoring.lesions, next(iter(cases.values()), {}))
    return summarize(cases, scoring)


def check_lesions(lesions: Sequence[str], regions: Iterable[str]) -> None:
    """Refuse lesions that are no regions.

    Raises:
        DatasetError: the message names the regions.
    """
    known = list(regions)
    if wrong := [name for name in lesions if name not in known]:
        there = f"{nearest(wrong[0], known)}; regions: {', '.join(known)}"
        raise DatasetError(f"--lesions {wrong[0]}: no such region{there}")


def summarize(cases: dict[str, dict[str, Values]], scoring: Scoring) -> Metrics:
    """Return the document of these scores, with their means."""
    regions = list(dict.fromkeys(region for scores in cases.values() for region in scores))
    columns = {region: [scores[region] for scores in cases.values() if region in scores] for region in regions}
    mean = {
        region: {metric: _mean(row[metric] for row in rows) for metric in rows[0]} for region, rows in columns.items()
    }
    if FOREGROUND not in mean:
        names = (*SCORES, *scoring.lesion_scores)
        mean[FOREGROUND] = {name: _mean([v[name] for v in mean.values() if name in v]) for name in names}
    return Metrics(
        about=MetricsOrigin(
            implementation="autoseg",
            version=autoseg.__version__,
            surface_tolerance_mm=scoring.tolerance_mm,
            lesions=scoring.lesions,
            definitions=scoring.definitions,
        ),
        cases=cases,
        mean=mean,
        undefined={region: sum(row["dice"] is None for row in rows) for region, rows in columns.items()},
    )


def _score(
    region: str,
    reference: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    spacing: Sequence[float],
    scoring: Scoring,
    *,
    image_shape: Sequence[int],
) -> Values:
    surfaces = surface_distances(reference, predicted, spacing, image_shape=image_shape)
    overlap = count_overlap(reference, predicted)
    voxel_ml = float(np.prod(spacing)) / 1000
    scores: Values = {
        "dice": overlap.dice,
        "iou": overlap.iou,
        "sensitivity": overlap.sensitivity,
        "precision": overlap.precision,
        "surface_dice": None if surfaces is None else surfaces.dice(scoring.tolerance_mm),
        "hausdorff_95": None if surfaces is None else surfaces.hausdorff(95),
        "average_surface_distance": None if surfaces is None else surfaces.average(),
        "volume_difference_ml": None if surfaces is None else (overlap.predicted - overlap.reference) * voxel_ml,
        "reference_volume_ml": overlap.reference * voxel_ml,
        "predicted_volume_ml": overlap.predicted * voxel_ml,
    }
    return scores | (score_lesions(reference, predicted, scoring.lesion_overlaps) if region in scoring.lesions else {})


def _score_pair(pair: LabelPair, labels: Labels | None, scoring: Scoring) -> dict[str, Values]:
    reference, predicted = read_label(pair.reference, labels), read_label(pair.predicted, labels)
    predicted = align(predicted, reference.geometry, pair.predicted, pair.reference)
    values = (reference.array[0], predicted.array[0])
    labels = labels or _labels_found(values)
    if labels is None:
        return {}
    where = (str(pair.reference), str(pair.predicted))
    return evaluate_case(*values, labels, reference.geometry.spacing, scoring, where=where)


def _mask(classes: NDArray[np.int16], members: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where a class is a member of a region."""
    mask = np.zeros(classes.shape, dtype=bool)
    for member in np.flatnonzero(members):
        mask |= classes == member
    return mask


def _labels_found(arrays: Iterable[NDArray[Any]]) -> Labels | None:
    """Return the values other than 0 as labels, or None if there is no such value."""
    values = sorted({round(value) for array in arrays for value in np.unique(array[array != 0]).tolist()} - {0})
    return Labels.from_names({"background": 0, **{f"label_{v}": v for v in values}}) if values else None


def _with_absent_regions(cases: Mapping[str, dict[str, Values]], scoring: Scoring) -> dict[str, dict[str, Values]]:
    """Give every case every region that any case has, ordered by value; where absent, both masks are empty."""
    found = {region for scores in cases.values() for region in scores}
    regions = sorted(found, key=lambda region: int(region.removeprefix("label_")))
    nothing = np.zeros((1, 1, 1), dtype=bool)
    absent = {r: _score(r, nothing, nothing, (1.0, 1.0, 1.0), scoring, image_shape=nothing.shape) for r in regions}
    return {name: {region: scores.get(region, absent[region]) for region in regions} for name, scores in cases.items()}


def _pair(references: Mapping[str, Path], prediction_folder: Path) -> list[LabelPair]:
    predictions = _volumes_by_name(prediction_folder)
    if missing := [name for name in references if name not in predictions]:
        named = ", ".join(missing[:MAX_NAMED]) + (", ..." if len(missing) > MAX_NAMED else "")
        raise DatasetError(
            f"{prediction_folder}: no segmentation of {len(missing)} of {count(len(references), 'case')}: "
            f"{named}; predict "
            "them, or score the others with --only-segmented"
        )
    return [LabelPair(name, path, predictions[name]) for name, path in references.items()]


def _volumes_by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; name the folder that holds the label files")
    volumes = list_volumes(folder)
    if doubled := [paths for paths in volumes.values() if len(paths) > 1]:
        names = " and ".join(path.name for path in doubled[0])
        raise DatasetError(f"{folder}: {names} are the same case; remove one of them")
    return {name: paths[0] for name, paths in volumes.items()}


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the defined values, or None if there are none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
