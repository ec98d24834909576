"""Finding a dataset by name, number or path, and the images of a folder for prediction."""

from collections.abc import Callable
from pathlib import Path

import pytest

from autoseg.data.dataset import find_dataset, find_images
from autoseg.data.workspace import Workspace
from autoseg.errors import DatasetError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", ["Test", "7", "007", "Dataset007_Test"])
def test_a_dataset_is_found_by_name_number_or_both(
    make_dataset: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    folder = make_dataset(["a", "b"])
    found = find_dataset(name, Workspace(tmp_path))
    assert found.folder == folder and found.name == "Test" and [case.name for case in found.cases] == ["a", "b"]


def test_a_path_and_nnunets_own_folder_work_too(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_dataset(["a", "b"])
    empty = tmp_path / "empty"
    empty.mkdir()
    assert find_dataset(str(folder), Workspace(empty)).folder == folder
    assert find_dataset("Test", Workspace(empty, folder.parent)).folder == folder


def test_nnunets_own_folds_are_found_beside_the_images_or_where_it_keeps_them(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_dataset(["a", "b"])
    kept = touch(tmp_path / "preprocessed", f"{folder.name}/splits_final.json") / folder.name / "splits_final.json"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    nnunet = Workspace(elsewhere, folder.parent, tmp_path / "preprocessed")
    assert find_dataset("Test", nnunet).own_splits == find_dataset(str(folder), nnunet).own_splits == kept
    assert find_dataset("Test", Workspace(elsewhere, folder.parent)).own_splits is None
    foreign = Workspace(elsewhere, elsewhere, tmp_path / "preprocessed")
    assert find_dataset(str(folder), foreign).own_splits is None
    touch(folder, "splits_final.json")
    assert find_dataset("Test", nnunet).own_splits == folder / "splits_final.json"


def test_an_ambiguous_name_is_refused(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    make_dataset(["a"]), make_dataset(["a"], folder="Dataset008_Test")
    with pytest.raises(DatasetError, match="ambiguous.*Dataset007_Test, Dataset008_Test"):
        find_dataset("Test", Workspace(tmp_path))


def test_an_unknown_name_lists_what_is_there(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    make_dataset(["a"])
    with pytest.raises(DatasetError, match="no dataset 'Tset'.*datasets there: Test .did you mean 'Test'"):
        find_dataset("Tset", Workspace(tmp_path))
    with pytest.raises(DatasetError, match="there are no datasets there"):
        find_dataset("Test", Workspace(tmp_path / "elsewhere"))
    with pytest.raises(DatasetError, match="no such folder"):
        find_dataset(str(tmp_path / "a" / "b"), Workspace(tmp_path))


def test_images_of_several_channels_are_put_together(tmp_path: Path) -> None:
    touch(tmp_path, "b_0001.nii.gz", "b_0000.nii.gz", "a_0000.nrrd", "a_0001.mha", "readme.txt", ".hidden_0000.nii.gz")
    cases = find_images(tmp_path, ("T1", "T2"))
    assert [(case.name, [path.name for path in case.images], case.label) for case in cases] == [
        ("a", ["a_0000.nrrd", "a_0001.mha"], None),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"], None),
    ]


def test_a_single_channel_needs_no_number(tmp_path: Path) -> None:
    touch(tmp_path, "scan_0042.nii.gz", "other_0000.nii.gz", "Müller 1.nii")
    assert [case.name for case in find_images(tmp_path, ("CT",))] == ["Müller 1", "other", "scan_0042"]


@pytest.mark.parametrize(
    "names, found",
    [
        ((), "no images"),
        (("a_0000.nii",), "a: channel files .'_0001'. are missing"),
        (("a_0000.nii", "a_0001.nii", "a_0002.nii"), "a: channel files .'_0002'. are one too many"),
        (("a_0000.nii", "a_0001.nii", "a_0001.nrrd"), "same channel of the same case"),
    ],
)
def test_incomplete_images_are_refused(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    with pytest.raises(DatasetError, match=rf"{found}.*T1, T2"):
        find_images(touch(tmp_path, *names), ("T1", "T2"))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        find_images(tmp_path / "gone", ("CT",))


def test_a_file_of_all_channels_has_no_number(tmp_path: Path) -> None:
    touch(tmp_path, "BRATS_001.nii.gz", "b_0000.nii", "b_0001.nii", "scan_2019.nii")
    found = {case.name: [path.name for path in case.images] for case in find_images(tmp_path, ("T1", "T2"))}
    assert found == {
        "BRATS_001": ["BRATS_001.nii.gz"] * 2,
        "b": ["b_0000.nii", "b_0001.nii"],
        "scan_2019": ["scan_2019.nii"] * 2,
    }


def test_a_single_file_is_one_case(tmp_path: Path) -> None:
    touch(tmp_path, "scan_0000.nii.gz", "notes.txt")
    (case,) = find_images(tmp_path / "scan_0000.nii.gz", ("CT",))
    assert (case.name, case.images) == ("scan", (tmp_path / "scan_0000.nii.gz",))
    with pytest.raises(DatasetError, match="no known ending"):
        find_images(tmp_path / "notes.txt", ("CT",))


@pytest.mark.parametrize(
    "labels, lesions, expected",
    [
        ({"liver": 1, "liver_Tumor": 2, "Lesions": 3, "tumorous": 4}, None, ("liver_Tumor", "Lesions", "tumorous")),
        ({"liver": 1, "metastases": 2, "lung nodule": 3}, None, ("metastases", "lung nodule")),
        ({"organ": 1}, None, ()),
        ({"liver": 1, "tumour": 2}, [], ()),
        ({"plaque": 1, "tumour": 2}, ["plaque"], ("plaque",)),
    ],
)
def test_lesions_are_what_is_listed_or_named_so(
    make_dataset: Callable[..., Path], tmp_path: Path, labels: dict, lesions: list | None, expected: tuple
) -> None:
    listed = {} if lesions is None else {"lesions": lesions}
    make_dataset(["a"], labels={"background": 0, **labels}, **listed)
    assert find_dataset("Test", Workspace(tmp_path)).lesions == expected


def test_lesions_that_are_no_region_are_refused(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    make_dataset(["a"], lesions=["organs"])
    with pytest.raises(DatasetError, match=r"dataset.json: lesions names 'organs'.*regions: organ .did you mean"):
        find_dataset("Test", Workspace(tmp_path))
