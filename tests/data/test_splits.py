"""Folds against scikit-learn's own KFold; groups stay together; splits_final.json is honoured or refused."""

import json
from pathlib import Path

import pytest
from sklearn.model_selection import KFold

from autoseg.data.cases import Case, Dataset
from autoseg.data.labels import Labels
from autoseg.data.splits import Splits, get_fold, group_cases, make_splits, split_problems
from autoseg.errors import DatasetError

LABELS = Labels.from_names({"background": 0, "organ": 1})


def dataset(folder: Path, names: list[str], groups: dict[str, str] | None = None) -> Dataset:
    cases = tuple(Case(name, (folder / f"{name}.nii",), folder / f"{name}_seg.nii") for name in sorted(names))
    return Dataset(
        name="Test",
        folder=folder,
        channels=("CT",),
        labels=LABELS,
        cases=cases,
        file_ending=".nii",
        groups=groups or {},
        own_splits=folder / "splits_final.json" if (folder / "splits_final.json").is_file() else None,
    )


def check_partition(splits: Splits, names: list[str]) -> None:
    """Every case is validated once, and trained on in all other folds."""
    assert sorted(name for fold in splits.folds for name in fold.validation) == sorted(names)
    for fold in splits.folds:
        assert sorted(fold.train + fold.validation) == sorted(names)
        assert list(fold.train) == sorted(fold.train) and list(fold.validation) == sorted(fold.validation)


@pytest.mark.parametrize("count", [5, 6, 17, 43, 131])
def test_without_groups_the_folds_are_those_of_scikit_learn_and_so_nnunets(tmp_path: Path, count: int) -> None:
    names = [f"case{chr(97 + n % 26)}{n}x" for n in range(count)]
    splits = make_splits(dataset(tmp_path, names))
    ordered = sorted(names)
    expected = list(KFold(n_splits=5, shuffle=True, random_state=12345).split(ordered))
    assert len(splits.folds) == 5
    for fold, (train, validation) in zip(splits.folds, expected):
        assert list(fold.train) == [ordered[i] for i in train]
        assert list(fold.validation) == [ordered[i] for i in validation]
    check_partition(splits, names)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_fewer_than_five_cases_give_as_many_folds(tmp_path: Path, count: int) -> None:
    names = [f"c{n}" for n in range(count)]
    splits = make_splits(dataset(tmp_path, names))
    assert [len(fold.validation) for fold in splits.folds] == [1] * count
    check_partition(splits, names)


def test_frames_of_a_patient_share_a_fold(tmp_path: Path) -> None:
    names = [f"patient{n:03d}_frame{frame:02d}" for n in range(12) for frame in (1, 9 + n)]
    splits = make_splits(dataset(tmp_path, names))
    check_partition(splits, names)
    for fold in splits.folds:
        patients = {name.split("_")[0] for name in fold.validation}
        assert not patients & {name.split("_")[0] for name in fold.train}


def test_real_frames_of_a_patient_share_a_fold(real_data: Path, tmp_path: Path) -> None:
    from autoseg.data.dataset import find_dataset
    from autoseg.data.workspace import Workspace

    found = find_dataset(str(real_data / "Dataset027_ACDC"), Workspace(tmp_path))
    splits = make_splits(found)
    assert len(splits.folds) == 5 and len(group_cases(found)) == 24
    for fold in splits.folds:
        assert not {name[:10] for name in fold.validation} & {name[:10] for name in fold.train}


@pytest.mark.parametrize(
    "names",
    [
        [f"hippocampus_{n:03d}" for n in range(20)],
        [f"site1_{n:03d}" for n in range(30)],
        [f"BRATS_{n}" for n in range(9)],
    ],
)
def test_names_that_only_look_grouped_are_not(tmp_path: Path, names: list[str]) -> None:
    assert len(group_cases(dataset(tmp_path, names))) == len(names)


def test_declared_groups_win_over_names(tmp_path: Path) -> None:
    names = [f"p{n}_{frame}" for n in range(6) for frame in "ab"]
    groups = {name: "left" if name.endswith("a") else name for name in names}
    found = group_cases(dataset(tmp_path, names, groups))
    assert found["left"] == [name for name in names if name.endswith("a")] and len(found) == 7


def test_one_patient_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="2 labelled cases in 1 group.*at least 2"):
        make_splits(dataset(tmp_path, ["p1_a", "p1_b"]))
    with pytest.raises(DatasetError, match="1 labelled case"):
        make_splits(dataset(tmp_path, ["only"]))


def test_another_seed_shuffles_otherwise(tmp_path: Path) -> None:
    data = dataset(tmp_path, [f"case{chr(97 + n)}" for n in range(20)])
    assert make_splits(data) == make_splits(data) != make_splits(data, seed=1)


def test_own_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    own = [{"train": ["c", "a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(own))
    splits = make_splits(dataset(tmp_path, ["a", "b", "c"]))
    assert [(fold.train, fold.validation) for fold in splits.folds] == [(("a", "c"), ("b",)), (("b",), ("a",))]


@pytest.mark.parametrize(
    "content, found",
    [
        ("not json", "cannot be read"),
        ("[]", "folds"),
        ('{"train": []}', "list of"),
        ('[{"train": ["a"], "test": ["b"]}]', "val"),
        ('[{"train": ["a"], "val": ["x"]}]', "unknown cases .'x'"),
        ('[{"train": ["a", "b"], "val": ["b"]}]', "in train and in val: .'b'"),
        ('[{"train": ["a"], "val": []}]', "val 0 cases"),
    ],
)
def test_own_splits_that_do_not_fit_are_refused(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "splits_final.json").write_text(content)
    with pytest.raises(DatasetError, match=found):
        make_splits(dataset(tmp_path, ["a", "b", "c"]))


def test_own_folds_that_part_a_patient_are_warned_of(tmp_path: Path) -> None:
    names = ["p1_a", "p1_b", "p2_a", "p2_b"]
    together, parted = [[["p1_a", "p1_b"], ["p2_a", "p2_b"]], [["p1_a", "p2_a"], ["p1_b", "p2_b"]]]
    for sides, expected in ((together, []), (parted, ["warning"])):
        (tmp_path / "splits_final.json").write_text(json.dumps([{"train": sides[0], "val": sides[1]}]))
        found = split_problems(dataset(tmp_path, names))
        assert [problem.severity for problem in found] == expected
    assert "fold 0 has cases of p1 in train and in val (2 such groups in all)" in found[0].line
    assert make_splits(dataset(tmp_path, names)).folds[0].train == ("p1_a", "p2_a")


def test_a_fold_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    splits = make_splits(dataset(tmp_path, [f"c{n}" for n in range(5)]))
    assert get_fold(splits, 4) == splits.folds[4]
    for fold in (5, -1):
        with pytest.raises(DatasetError, match="folds 0 to 4"):
            get_fold(splits, fold)


def spread(splits: Splits, carriers: set[str]) -> int:
    """In how many folds a label can be validated."""
    return sum(bool(carriers & set(fold.validation)) for fold in splits.folds)


def test_common_labels_leave_nnunets_folds_as_they_are(tmp_path: Path) -> None:
    names = [f"case{chr(97 + n % 26)}{n}x" for n in range(40)]
    data = dataset(tmp_path, names)
    presence = {name: {"organ"} for name in names}
    assert make_splits(data, presence=presence) == make_splits(data)
    presence[names[7]] = {"organ", "once"}  # a label of one case can stand in one fold only
    assert make_splits(data, presence=presence) == make_splits(data)


@pytest.mark.parametrize("seed", range(8))
def test_a_rare_label_is_spread_over_the_folds(tmp_path: Path, seed: int) -> None:
    names = [f"case{chr(97 + n % 26)}{n}x" for n in range(23)]
    data = dataset(tmp_path, names)
    plain = make_splits(data)
    rare = set(plain.folds[seed % 5].validation[:3]) | set(plain.folds[(seed + 1) % 5].validation[:1])
    presence = {name: {"organ", "rare"} if name in rare else {"organ"} for name in names}
    splits = make_splits(data, presence=presence)
    assert spread(plain, rare) == 2 and spread(splits, rare) == 4
    check_partition(splits, names)
    assert [len(fold.validation) for fold in splits.folds] == [len(fold.validation) for fold in plain.folds]
    assert splits == make_splits(data, presence=presence)


def test_two_rare_labels_and_groups(tmp_path: Path) -> None:
    names = [f"patient{n:03d}_frame{frame:02d}" for n in range(15) for frame in (1, 2)]
    data = dataset(tmp_path, names)
    plain = make_splits(data)
    patients = sorted({name[:10] for name in plain.folds[0].validation})
    a, b = {f"{patients[0]}_frame01", f"{patients[1]}_frame02"}, {f"{patients[1]}_frame01", f"{patients[2]}_frame01"}
    presence = {name: {label for label, found in (("a", a), ("b", b)) if name in found} for name in names}
    splits = make_splits(data, presence=presence)
    assert (spread(plain, a), spread(plain, b)) == (1, 1) and (spread(splits, a), spread(splits, b)) == (2, 2)
    check_partition(splits, names)
    for fold in splits.folds:
        assert not {name[:10] for name in fold.validation} & {name[:10] for name in fold.train}
