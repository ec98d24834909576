"""Every sort of problem is found, told of once, and ordered worst first; warnings stop nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from autoseg.data.dataset import find_dataset
from autoseg.data.problems import KINDS, Problem
from autoseg.data.workspace import Workspace
from autoseg.fingerprint.extract import Examination, examine


def look_at(folder: Path) -> Examination:
    return examine(find_dataset(str(folder), Workspace(folder), strict=False), num_workers=2)


def only(found: Examination, kind: str) -> Problem:
    (problem,) = (one for one in found.problems.problems if one.kind == kind)
    return problem


def test_a_sound_dataset_has_no_problem(make_raw: Callable[..., Path]) -> None:
    found = look_at(make_raw())
    assert found.problems.problems == () and found.fingerprint is not None and found.fingerprint.num_training == 6


def alter(**changes: Any) -> Callable[[int, dict[str, Any]], None]:
    """Change case 2 only."""

    def change(number: int, case: dict[str, Any]) -> None:
        if number == 2:
            case.update({key: value(case) if callable(value) else value for key, value in changes.items()})

    return change


def with_nan(case: dict[str, Any]) -> np.ndarray:
    case["image"][0, 0, 0] = np.nan
    return case["image"]


MOVED = np.eye(4)
MOVED[0, 3] = 5.0


@pytest.mark.parametrize(
    "changes, kind, file, found",
    [
        ({"image": with_nan}, "voxel values", "imagesTr/c2_0000.nii.gz", "1 of 504 voxels are NaN"),
        (
            {"image": np.zeros((9, 8, 7, 2), np.float32)},
            "channels",
            "imagesTr/c2_0000.nii.gz",
            "4-D image of 2 volumes",
        ),
        ({"image": np.zeros((9, 8, 7), np.complex64)}, "dimensions", "imagesTr/c2_0000.nii.gz", "complex"),
        ({"label": np.zeros((9, 8, 6), np.uint8)}, "shape", "labelsTr/c2.nii.gz", "shape (6, 8, 9) against (7, 8, 9)"),
        ({"label_affine": np.diag([1.0, 1, 1.2, 1])}, "grid", "labelsTr/c2.nii.gz", "spacing (1.2, 1, 1)"),
        ({"label_affine": MOVED}, "grid", "labelsTr/c2.nii.gz", "origin"),
        (
            {"label": np.full((9, 8, 7), 7, np.uint8)},
            "label values",
            "labelsTr/c2.nii.gz",
            "label values 7 are not declared",
        ),
        ({"label": np.full((9, 8, 7), 0.4, np.float32)}, "label values", "labelsTr/c2.nii.gz", "soft mask"),
    ],
)
def test_errors_are_found(make_raw: Callable[..., Path], changes: dict, kind: str, file: str, found: str) -> None:
    result = look_at(make_raw(change=alter(**changes)))
    assert result.fingerprint is None and result.problems.errors == 1
    problem = only(result, kind)
    assert (problem.severity, problem.case, problem.file) == ("error", "c2", file) and found in problem.found
    assert problem.remedy and problem.line == f"{file}: {problem.found}; {problem.remedy}"


def test_image_and_label_of_a_case_are_both_told_of(make_raw: Callable[..., Path]) -> None:
    folder = make_raw(change=alter(image=with_nan, label=np.full((9, 8, 7), 7, np.uint8)))
    (folder / "imagesTr" / "c4_0000.nii.gz").write_bytes(b"rubbish")
    (folder / "labelsTr" / "c5.nii.gz").unlink()
    (folder / "splits_final.json").write_text('[{"train": ["c0"], "val": ["x"]}]')
    problems = look_at(folder).problems.problems
    assert [(p.kind, p.case) for p in problems if p.severity == "error"] == [
        ("splits", None), ("missing file", "c5"), ("unreadable file", "c4"), ("voxel values", "c2"),
        ("label values", "c2"),
    ]  # fmt: skip


def test_warnings_are_found_and_stop_nothing(make_raw: Callable[..., Path]) -> None:
    same: dict[str, np.ndarray] = {}

    def change(number: int, case: dict[str, Any]) -> None:
        if number == 0:
            same["image"] = case["image"]
        if number == 1:  # the same image, stored along other axes
            case["image"], case["label"] = (
                np.flip(same["image"].transpose(1, 0, 2), 0),
                case["label"].transpose(1, 0, 2)[::-1],
            )
            case["affine"] = np.array([[0, 1, 0, 0], [-1.0, 0, 0, 7], [0, 0, 1, 0], [0, 0, 0, 1]])
        if number == 2:
            case["label"][:] = 0
        if number == 3:
            case["affine"] = np.diag([0.001, 0.001, 0.001, 1])
        if number == 4:
            case["image"][:] = 3
        if number == 5:  # the label alone is stored along other axes
            case["label"] = case["label"][::-1]
            case["label_affine"] = np.diag([-1.0, 1, 1, 1])
            case["label_affine"][0, 3] = 8
        if number > 1:
            case["label"][case["label"] == 2] = 1

    found = look_at(make_raw(6, change))
    assert found.problems.errors == 0 and found.fingerprint is not None and found.fingerprint.num_training == 6
    assert {p.kind for p in found.problems.problems} == {
        "duplicate image", "spacing outlier", "empty label", "rare label", "constant channel", "other axes",
        "mixed orientations",
    }  # fmt: skip
    assert only(found, "duplicate image").case == "c0" and "c1" in only(found, "duplicate image").found
    assert only(found, "spacing outlier").case == "c3" and "1e+03 times" in only(found, "spacing outlier").found
    assert only(found, "empty label").case == "c2"
    assert "'lesion' occurs in only 2 of 6" in only(found, "rare label").found
    assert only(found, "constant channel").file == "imagesTr/c4_0000.nii.gz"
    assert only(found, "other axes").file == "labelsTr/c5.nii.gz"
    ranks = [list(KINDS).index(p.kind) for p in found.problems.problems]
    assert ranks == sorted(ranks)


def test_a_label_of_all_cases_is_rare_where_there_are_few(make_raw: Callable[..., Path]) -> None:
    found = [one.found for one in look_at(make_raw(4)).problems.problems if one.kind == "rare label"]
    assert found == ["label 'organ' occurs in 4 cases", "label 'lesion' occurs in 4 cases"]


def test_the_same_image_within_a_group_is_no_leak(make_raw: Callable[..., Path]) -> None:
    def change(number: int, case: dict[str, Any]) -> None:
        if number == 1:
            case["image"] = np.random.default_rng(0).normal(100, 20, case["label"].shape).astype(np.float32)

    assert only(look_at(make_raw(6, change)), "duplicate image").found == "has the same image as c1"
    assert look_at(make_raw(6, change, groups={"c0": "p", "c1": "p"})).problems.warnings == 0


def test_labels_that_nobody_declared_are_found(make_raw: Callable[..., Path]) -> None:
    folder = make_raw()
    (folder / "dataset.json").unlink()
    (folder / "imagesTr").rename(folder / "images"), (folder / "labelsTr").rename(folder / "labels")
    fingerprint = look_at(folder).fingerprint
    assert fingerprint is not None and fingerprint.labels == {"background": 0, "label_1": 1, "label_2": 2}
    assert fingerprint.cases[0].label_voxels == {"background": 504 - 48, "label_1": 44, "label_2": 4}
    label = folder / "labels" / "c3.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.full((9, 8, 7), 5000, np.int16), np.eye(4)), label)
    assert "is it" not in only(look_at(folder), "label values").found
    assert "5000" in only(look_at(folder), "label values").found


def test_each_file_is_read_once(make_raw: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from autoseg.data import nifti

    read: list[Path] = []
    original = nifti.read_numbers
    monkeypatch.setattr(
        nifti, "read_numbers", lambda path, **options: (read.append(path), original(path, **options))[1]
    )
    folder = make_raw(4)
    look_at(folder)
    assert sorted(read) == sorted([*(folder / "imagesTr").iterdir(), *(folder / "labelsTr").iterdir()])


def test_many_labels_are_counted_alike(make_raw: Callable[..., Path], rng: np.random.Generator) -> None:
    values = rng.integers(0, 30, (9, 8, 7)).astype(np.uint8)
    names = {"background": 0, **{f"l{n}": n for n in range(1, 29)}, "ignore": 29}
    fingerprint = look_at(make_raw(3, lambda _, case: case.update(label=values), labels=names)).fingerprint
    assert fingerprint is not None
    assert fingerprint.cases[0].label_voxels == {name: int((values == value).sum()) for name, value in names.items()}
