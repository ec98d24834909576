"""Scores of cases and folders, and the document they are written as."""

import json
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.cases import Case
from autoseg.data.labels import Labels, Region
from autoseg.data.volumes import Geometry, write_segmentation
from autoseg.documents import read_document, write_document
from autoseg.errors import DatasetError, VolumeError
from autoseg.evaluate import metrics
from autoseg.evaluate.evaluate import (
    DEFINITIONS,
    Metrics,
    Scoring,
    evaluate_case,
    evaluate_folder,
    evaluate_label_folders,
    summarize,
)

SPACING = (2.0, 1.0, 0.5)
SCORING = Scoring(1.0)
LABELS = Labels.from_names({"background": 0, "liver": 1, "tumour": 2})
SHAPE = (8, 10, 12)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def grid(spacing=SPACING, **changes) -> Geometry:
    return Geometry(**{"shape": SHAPE, "spacing": spacing, "origin": (0.0, 0.0, 0.0), "direction": IDENTITY, **changes})


def pair(rng: np.random.Generator, values=(0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    reference = np.repeat(np.repeat(rng.choice(values, (4, 5, 6)), 2, 0), 2, 1).repeat(2, 2).astype(np.int16)
    return reference, np.roll(reference, 1, 2)


def write(
    folder: Path, name: str, array: np.ndarray, geometry: Geometry | None = None, ending: str = ".nii.gz"
) -> Path:
    path = folder / f"{name}{ending}"
    write_segmentation(path, array, geometry or grid())
    return path


@pytest.fixture
def folders(tmp_path: Path, rng: np.random.Generator) -> tuple[list[Case], Path]:
    """Three reference cases and their predictions; the last has no tumour in either."""
    cases = []
    for number in range(3):
        reference, prediction = pair(rng, (0, 1, 2) if number < 2 else (0, 1))
        cases.append(Case(f"case_{number}", (), write(tmp_path / "reference", f"case_{number}", reference)))
        write(tmp_path / "prediction", f"case_{number}", prediction)
    return cases, tmp_path / "prediction"


def test_a_case_gets_the_metrics_of_each_mask(rng: np.random.Generator) -> None:
    reference, prediction = pair(rng)
    scores = evaluate_case(reference, prediction, LABELS, SPACING, SCORING)
    assert list(scores) == ["liver", "tumour"]
    for region, value in (("liver", 1), ("tumour", 2)):
        masks = reference == value, prediction == value
        overlap = metrics.count_overlap(*masks)
        assert scores[region] == {
            "dice": metrics.dice(*masks),
            "iou": overlap.iou,
            "sensitivity": overlap.sensitivity,
            "precision": overlap.precision,
            "surface_dice": metrics.surface_dice(*masks, SPACING, 1.0),
            "hausdorff_95": metrics.hausdorff_95(*masks, SPACING),
            "average_surface_distance": metrics.average_surface_distance(*masks, SPACING),
            "volume_difference_ml": pytest.approx(np.subtract(*(metrics.volume_ml(m, SPACING) for m in masks[::-1]))),
            "reference_volume_ml": metrics.volume_ml(masks[0], SPACING),
            "predicted_volume_ml": metrics.volume_ml(masks[1], SPACING),
        }
        assert list(scores[region]) == list(DEFINITIONS)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_around_the_masks_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = Labels(
        labels={"background": 0, "a": 2, "b": 5, "c": 9, "ignore": 200},
        regions={"all": Region(labels=(2, 5, 9), value=2), "b": Region(labels=(5,), value=5),
                 "c": Region(labels=(9,), value=9)},
    )  # fmt: skip
    reference, prediction = np.zeros((2, 9, 14, 20), dtype=np.uint8)
    corner = [(0, 3), (3, 7), (6, 9)][seed % 3], [(0, 4), (5, 9), (10, 14)][seed % 3]
    part = slice(*corner[0]), slice(*corner[1]), slice(8, 15)
    for values in (reference, prediction):
        values[part] = rng.choice([0, 2, 2, 5, 200 if values is reference else 0], values[part].shape)
    prediction[8, 13, 19] = 9  # a single voxel in the corner, which the reference lacks
    scores = evaluate_case(reference, prediction, labels, SPACING, Scoring(1.0, ("all", "c")))
    counted = reference != 200
    for region, values in (("all", (2, 5, 9)), ("b", (5,)), ("c", (9,))):
        masks = np.isin(reference, values), np.isin(prediction, values) & counted
        expected = metrics.surface_distances(*masks, SPACING)
        assert scores[region]["dice"] == metrics.dice(*masks)
        assert scores[region]["hausdorff_95"] == expected.hausdorff(95)
        assert scores[region]["surface_dice"] == pytest.approx(expected.dice(1.0), rel=1e-12)
        assert scores[region]["average_surface_distance"] == pytest.approx(expected.average(), rel=1e-12)
    assert scores["c"]["hausdorff_95"] == pytest.approx(np.linalg.norm(np.array([9, 14, 20]) * SPACING))
    assert scores["c"]["predicted_lesions"] == 1


def test_a_region_is_the_union_of_its_labels(rng: np.random.Generator) -> None:
    labels = Labels(
        labels={"background": 0, "edema": 1, "necrosis": 2, "enhancing": 4},
        regions={"whole": Region(labels=(1, 2, 4), value=1), "core": Region(labels=(2, 4), value=2)},
    )
    reference, prediction = pair(rng, (0, 1, 2, 4))
    scores = evaluate_case(reference, prediction, labels, SPACING, SCORING)
    assert scores["whole"]["dice"] == metrics.dice(reference > 0, prediction > 0)
    assert scores["core"]["dice"] == metrics.dice(reference > 1, prediction > 1)


def test_ignored_voxels_count_on_neither_side(rng: np.random.Generator) -> None:
    labels = Labels.from_names({"background": 0, "liver": 1, "tumour": 2, "ignore": 9})
    reference, prediction = pair(rng)
    reference[:, :5] = 9
    outside = prediction.copy()
    outside[:, :5] = 0
    expected = evaluate_case(np.where(reference == 9, 0, reference), outside, LABELS, SPACING, SCORING)
    assert evaluate_case(reference, prediction, labels, SPACING, SCORING) == expected


def test_undeclared_labels_are_refused_by_name_of_the_file(rng: np.random.Generator) -> None:
    reference, prediction = pair(rng, (0, 1, 5))
    with pytest.raises(VolumeError, match="a.nii.gz: label values 5 are not declared"):
        evaluate_case(reference, prediction, LABELS, SPACING, SCORING, where=("a.nii.gz", "b.nii.gz"))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_folder_is_scored_case_by_case(folders, tmp_path: Path, num_workers: int) -> None:
    cases, predictions = folders
    seen: list[str] = []
    result = evaluate_folder(cases, predictions, LABELS, tolerance_mm=1.0, num_workers=num_workers, on_case=seen.append)
    assert list(result.cases) == ["case_0", "case_1", "case_2"] == sorted(seen)
    values = [case["tumour"]["dice"] for case in result.cases.values()]
    assert values[2] is None and result.undefined == {"liver": 0, "tumour": 1}
    assert result.mean["tumour"]["dice"] == pytest.approx((values[0] + values[1]) / 2)
    assert result.mean["foreground"]["dice"] == pytest.approx(
        (result.mean["liver"]["dice"] + result.mean["tumour"]["dice"]) / 2
    )
    write_document(tmp_path / "metrics.json", result)
    assert read_document(tmp_path / "metrics.json", Metrics) == result
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["schema"] == "autoseg.metrics.1" and document["about"]["surface_tolerance_mm"] == 1.0
    assert document["cases"]["case_2"]["tumour"]["hausdorff_95"] is None
    assert "NaN" not in (tmp_path / "metrics.json").read_text()


def test_folders_without_a_dataset_score_every_value_found(folders) -> None:
    cases, predictions = folders
    by_value = evaluate_label_folders(cases[0].label.parent, predictions, tolerance_mm=1.0)
    named = evaluate_label_folders(cases[0].label.parent, predictions, LABELS, tolerance_mm=1.0)
    assert named == evaluate_folder(cases, predictions, LABELS, tolerance_mm=1.0)
    renamed = {"label_1": "liver", "label_2": "tumour"}
    assert {c: {renamed[r]: v for r, v in scores.items()} for c, scores in by_value.cases.items()} == named.cases
    assert by_value.cases["case_2"]["label_2"]["dice"] is None


def test_endings_may_differ_and_axes_may_be_stored_the_other_way_round(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    reference, prediction = pair(rng)
    write(tmp_path / "r", "one", reference)
    write(tmp_path / "straight", "one", prediction, ending=".nrrd")
    reversed_x = grid(origin=((SHAPE[2] - 1) * SPACING[2], 0.0, 0.0), direction=(-1.0, *IDENTITY[1:]))
    write(tmp_path / "reversed", "one", prediction[:, :, ::-1], reversed_x)
    straight, turned = (
        evaluate_label_folders(tmp_path / "r", tmp_path / f, tolerance_mm=1.0) for f in ("straight", "reversed")
    )
    assert straight == turned
    assert straight.cases["one"]["label_1"] == evaluate_case(reference, prediction, LABELS, SPACING, SCORING)["liver"]


def test_another_grid_is_refused(folders) -> None:
    cases, predictions = folders
    write(predictions, "case_1", np.zeros(SHAPE, np.uint8), grid((2.0, 1.0, 0.6)))
    with pytest.raises(VolumeError, match=r"case_1.nii.gz: lies on another grid.*spacing"):
        evaluate_folder(cases, predictions, LABELS, tolerance_mm=1.0)


def test_all_missing_segmentations_are_named(folders, tmp_path: Path) -> None:
    cases, predictions = folders
    for name in ("case_0", "case_2"):
        (predictions / f"{name}.nii.gz").unlink()
    with pytest.raises(DatasetError, match="no segmentation of 2 of 3 cases: case_0, case_2"):
        evaluate_folder(cases, predictions, LABELS, tolerance_mm=1.0)
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        evaluate_folder(cases, tmp_path / "nowhere", LABELS, tolerance_mm=1.0)
    with pytest.raises(DatasetError, match="cases x have no reference label"):
        evaluate_folder([Case("x", (), None)], predictions, LABELS, tolerance_mm=1.0)


def test_cases_that_are_not_segmented_are_left_out_if_asked(folders, tmp_path: Path) -> None:
    cases, predictions = folders
    references = cases[0].label.parent
    whole = evaluate_label_folders(references, predictions, LABELS, tolerance_mm=1.0)
    (predictions / "case_1.nii.gz").unlink()
    part = evaluate_label_folders(references, predictions, LABELS, tolerance_mm=1.0, only_segmented=True)
    assert part.cases == {name: whole.cases[name] for name in ("case_0", "case_2")}
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="no segmentation of 3 of 3"):
        evaluate_label_folders(references, tmp_path / "none", LABELS, tolerance_mm=1.0, only_segmented=True)


def test_an_empty_folder_and_two_files_of_one_case_are_refused(folders, tmp_path: Path) -> None:
    cases, predictions = folders
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty: no label files found"):
        evaluate_label_folders(tmp_path / "empty", predictions, tolerance_mm=1.0)
    write(predictions, "case_1", np.zeros(SHAPE, np.uint8), ending=".nrrd")
    with pytest.raises(DatasetError, match="case_1.nii.gz and case_1.nrrd are the same case"):
        evaluate_folder(cases, predictions, LABELS, tolerance_mm=1.0)


def test_label_files_of_background_only_are_scored_as_undefined(tmp_path: Path) -> None:
    for folder in ("r", "p"):
        write(tmp_path / folder, "one", np.zeros(SHAPE, np.uint8))
    result = evaluate_label_folders(tmp_path / "r", tmp_path / "p", tolerance_mm=1.0)
    assert result.cases == {"one": {}} and set(result.mean["foreground"].values()) == {None}


def test_a_region_named_foreground_keeps_its_own_mean() -> None:
    values = dict.fromkeys(DEFINITIONS, 0.5)
    result = summarize({"one": {"foreground": values, "other": dict.fromkeys(DEFINITIONS, 1.0)}}, SCORING)
    assert result.mean["foreground"] == values


def test_lesions_are_scored_for_the_regions_that_are_named(folders) -> None:
    cases, predictions = folders
    result = evaluate_folder(cases, predictions, LABELS, tolerance_mm=1.0, lesions=["tumour"])
    assert "lesion_f1_10" not in result.cases["case_0"]["liver"]
    assert {"lesion_f1_10", "lesion_f1_50", "reference_lesions"} <= set(result.cases["case_0"]["tumour"])
    assert result.cases["case_2"]["tumour"]["lesion_f1_10"] is None
    assert result.mean["foreground"]["lesion_f1_10"] == result.mean["tumour"]["lesion_f1_10"]
    assert result.about.lesions == ("tumour",) and "lesion_f1_50" in result.about.definitions
    by_value = evaluate_label_folders(cases[0].label.parent, predictions, tolerance_mm=1.0, lesions=["label_2"])
    assert by_value.mean["label_2"] == result.mean["tumour"]


def test_a_lesion_that_is_no_region_is_refused(folders) -> None:
    cases, predictions = folders
    with pytest.raises(DatasetError, match="--lesions tumor: no such region .did you mean 'tumour'.*liver, tumour"):
        evaluate_folder(cases, predictions, LABELS, tolerance_mm=1.0, lesions=["tumor"])
    with pytest.raises(DatasetError, match="--lesions tumour: no such region.*label_1, label_2"):
        evaluate_label_folders(cases[0].label.parent, predictions, tolerance_mm=1.0, lesions=["tumour"])
