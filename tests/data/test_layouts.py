"""Layouts: recognised from the folder alone; every mistake of pairing in one message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoseg.data.dataset import find_dataset
from autoseg.data.labels import Region
from autoseg.data.layouts import recognise
from autoseg.data.workspace import Workspace
from autoseg.errors import DatasetError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def describe(folder: Path, **fields: Any) -> Path:
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "file_ending": ".nii.gz",
        **fields,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        find_dataset(str(folder), Workspace(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nnunets_files_are_paired(tmp_path: Path) -> None:
    names = [f"imagesTr/{case}_{n:04d}.nii.gz" for case in ("b", "a 1") for n in (0, 1)]
    describe(
        touch(tmp_path, *names, "labelsTr/b.nii.gz", "labelsTr/a 1.nii.gz"),
        channel_names={"1": "T2", "0": "T1"},
        groups={"b": "p"},
    )
    found = recognise(tmp_path)
    assert found.channels == ("T1", "T2") and found.groups == {"b": "p"} and found.file_ending == ".nii.gz"
    assert [case.name for case in found.cases] == ["a 1", "b"]
    assert [path.name for path in found.cases[1].images] == ["b_0000.nii.gz", "b_0001.nii.gz"]


def test_all_mistakes_of_pairing_are_told_at_once(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "imagesTr/a_0000.nii.gz",
        "imagesTr/b_0001.nii.gz",
        "imagesTr/odd.nii.gz",
        "labelsTr/b.nii.gz",
        "labelsTr/c.nii.gz",
    )
    message = refused(describe(tmp_path))
    for part in ("odd", "a: there is no label", "c: there is a label but no image", "b: channel files"):
        assert part in message


def test_the_dataset_dictionary_names_files_anywhere(tmp_path: Path) -> None:
    touch(tmp_path, "x/one.nii.gz", "y/two.nii.gz")
    describe(tmp_path, dataset={"case": {"images": ["x/one.nii.gz"], "label": "y/two.nii.gz"}})
    case = recognise(tmp_path).cases[0]
    assert case.images == (tmp_path / "x" / "one.nii.gz",) and case.label == tmp_path / "y" / "two.nii.gz"
    describe(tmp_path, dataset={"case": {"images": ["x/one.nii.gz", "x/gone.nii.gz"], "label": "y/two.nii.gz"}})
    assert "case" in refused(tmp_path) and "gone.nii.gz" in refused(tmp_path)


def test_the_decathlons_pairs_and_its_labels_the_other_way_round(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/h_1.nii.gz", "labelsTr/h_1.nii.gz")
    pairs = [{"image": "./imagesTr/h_1.nii.gz", "label": "./labelsTr/h_1.nii.gz"}]
    describe(
        tmp_path, channel_names=None, modality={"0": "MRI"}, labels={"0": "background", "1": "Anterior"}, training=pairs
    )
    found = recognise(tmp_path)
    assert found.channels == ("MRI",) and found.labels.labels == {"background": 0, "Anterior": 1}
    assert [case.name for case in found.cases] == ["h_1"]


def test_lists_of_values_become_regions(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3, "ignore": 4}
    found = recognise(describe(tmp_path, labels=labels, regions_class_order=[1, 2, 3])).labels
    assert found.labels == {"background": 0, "label_1": 1, "label_2": 2, "active": 3, "ignore": 4}
    assert found.regions == {
        "whole": Region(labels=(1, 2, 3), value=1),
        "core": Region(labels=(2, 3), value=2),
        "active": Region(labels=(3,), value=3),
    }
    assert found.overlapping


@pytest.mark.parametrize(
    "fields, found",
    [
        ({"labels": {"background": 0, "a": [1, 2]}}, "regions_class_order is missing"),
        ({"labels": {"background": 0, "a": 1.5}}, "label 'a' is 1.5"),
        ({"labels": {"a": 1}}, "background"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "share a value"),
        ({"channel_names": {"0": "CT", "2": "PET"}}, "keys"),
        ({"channel_names": None}, "channel_names is missing"),
        ({"file_ending": ".jpg"}, "file_ending '.jpg' is not supported"),
        ({"groups": {"nobody": "p"}}, "unknown cases"),
    ],
)
def test_a_description_with_mistakes_is_refused(tmp_path: Path, fields: dict, found: str) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    message = refused(describe(tmp_path, **fields))
    assert found in message and "dataset.json" in message


def test_a_folder_without_any_layout_says_what_is_expected(tmp_path: Path) -> None:
    assert "imagesTr" in refused(touch(tmp_path, "what/ever.txt"))
    (tmp_path / "dataset.json").write_text("{")
    assert "dataset.json" in refused(tmp_path)


def test_real_datasets_are_recognised(real_data: Path) -> None:
    sizes = {
        "Dataset003_LiverMini": (4, 1),
        "Dataset004_Hippocampus": (200, 1),
        "Dataset027_ACDC": (48, 1),
        "Dataset043_BraTS2013": (4, 2),
    }
    for name, (cases, channels) in sizes.items():
        found = recognise(real_data / name)
        assert (len(found.cases), len(found.channels)) == (cases, channels)


def test_nothing_is_written_to_raw_data(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_dataset(["a", "b"])
    before = sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))
    recognise(folder)
    assert sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*")) == before


def pairs_of(folder: Path) -> dict[str, tuple[str, str]]:
    return {case.name: (case.images[0].name, case.label.name) for case in recognise(folder).cases}


@pytest.mark.parametrize(
    "names",
    [
        ("Training_Data/volume-0.nii", "Training_Data/segmentation-0.nii", "Test_Data/test-volume-0.nii"),
        (
            "Training Batch 1/volume-0.nii",
            "Training Batch 1/segmentation-0.nii",
            "Training Batch 2/volume-28.nii",
            "Training Batch 2/segmentation-28.nii",
        ),
        ("a/media/volume_pt1/volume-0.nii", "a/media/segmentations/segmentation-0.nii"),
        ("volume-0.nii.gz", "segmentation-0.nii.gz"),
    ],
)
def test_lits_is_recognised_however_it_is_split(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = recognise(touch(tmp_path, *names))
    assert all(case.images[0].name == case.label.name.replace("segmentation", "volume") for case in found.cases)
    assert len(found.cases) == sum("segmentation" in name for name in names) and not found.problems
    assert found.channels == ("CT",) and found.labels.overlapping
    assert found.labels.regions == {"liver": Region(labels=(1, 2), value=1), "tumour": Region(labels=(2,), value=2)}


def test_an_incomplete_lits_is_refused(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b1/volume-0.nii",
        "b1/segmentation-0.nii",
        "b1/volume-1.nii",
        "b2/segmentation-2.nii",
        "b2/volume-0.nii",
    )
    message = refused(tmp_path)
    for part in (
        "volume-0: volume-0.nii and volume-0.nii are the same channel",
        "volume-1: there is no label",
        "volume-2: there is a label but no image",
    ):
        assert part in message


def test_a_dataset_json_beside_lits_may_say_otherwise(tmp_path: Path) -> None:
    touch(tmp_path, "volume-0.nii", "segmentation-0.nii")
    found = recognise(describe(tmp_path, channel_names={"0": "MR"}, labels={"background": 0, "liver": 1, "lesion": 2}))
    assert (
        found.channels == ("MR",)
        and not found.labels.overlapping
        and [case.name for case in found.cases] == ["volume-0"]
    )


def test_abdomenct_is_recognised_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    touch(tmp_path, "AbdomenCT-1K-ImagePart1/Case_00001_0000.nii.gz", "Mask/Case_00001.nii.gz")
    touch(tmp_path, "AbdomenCT-1K-ImagePart1/Case_00009_0000.nii.gz", "Mask/Case_00700.nii.gz")
    found = recognise(tmp_path)
    assert pairs_of(tmp_path) == {"Case_00001": ("Case_00001_0000.nii.gz", "Case_00001.nii.gz")}
    assert found.labels.labels == {"background": 0, "liver": 1, "kidney": 2, "spleen": 3, "pancreas": 4}
    assert [(problem.severity, problem.found) for problem in found.problems] == [
        ("warning", "1 image without mask: Case_00009"),
        ("warning", "1 mask without image: Case_00700"),
    ]


def test_the_decathlons_4d_images_become_channels(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/BRATS_1.nii.gz", "labelsTr/BRATS_1.nii.gz", "imagesTr/._BRATS_1.nii.gz")
    pairs = [{"image": "./imagesTr/BRATS_1.nii.gz", "label": "./labelsTr/BRATS_1.nii.gz"}]
    modality = {"0": "FLAIR", "1": "T1w"}
    found = recognise(describe(tmp_path, channel_names=None, modality=modality, training=pairs, file_ending=None))
    assert found.cases[0].images == (tmp_path / "imagesTr" / "BRATS_1.nii.gz",) * 2 and found.channels == (
        "FLAIR",
        "T1w",
    )


def test_two_plain_folders_need_no_dataset_json(tmp_path: Path) -> None:
    touch(tmp_path, "images/Fall 1 ä.nrrd", "labels/Fall 1 ä.nii.gz", "images/b.mha", "labels/b.mha")
    found = recognise(tmp_path)
    assert (
        found.labels is None
        and found.channels == ("image",)
        and [case.name for case in found.cases] == ["Fall 1 ä", "b"]
    )
    touch(tmp_path, "images/c_0000.nii", "images/c_0001.nii", "labels/c.nii")
    assert recognise(tmp_path).channels == ("channel 0", "channel 1")


def test_plain_folders_with_names_declared(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "labels/a.png")
    found = recognise(describe(tmp_path, file_ending=None, labels={"background": 0, "cell": 255}))
    assert found.labels.class_values == (0, 255) and found.file_ending == ".png"


def test_a_folder_of_dicom_slices_is_an_image(tmp_path: Path) -> None:
    touch(tmp_path, "labels/a.nii.gz", "labelsTr/b.nii.gz")
    for folder in ("images/a", "imagesTr/b_0000"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "IM1").write_bytes(bytes(128) + b"DICM")
    assert pairs_of(describe(tmp_path)) == {"b": ("b_0000", "b.nii.gz")}
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "imagesTr").rename(tmp_path / "elsewhere")
    assert pairs_of(tmp_path) == {"a": ("a", "a.nii.gz")}


def test_files_of_another_ending_are_mentioned(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b_0000.nrrd")
    problems = recognise(describe(tmp_path)).problems
    assert [(p.severity, p.kind) for p in problems] == [("warning", "left out")] and "b_0000.nrrd" in problems[0].found
