"""Measurements kept on disk: the same fingerprint in one pass, in parts in any order, or after an interruption."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.cases import Case, Dataset
from autoseg.data.dataset import find_dataset
from autoseg.data.workspace import Workspace
from autoseg.documents import to_text
from autoseg.fingerprint import extract
from autoseg.fingerprint.extract import examine, measure_cases


@pytest.fixture
def dataset(make_raw: Callable[..., Path]) -> Dataset:
    """Six cases; in the last the values are no whole numbers by a header's slope, in the first they are."""

    def change(number: int, case: dict) -> None:
        if number == 0:
            case["image"] = np.rint(case["image"])

    return open_dataset(make_raw(6, change))


def open_dataset(folder: Path) -> Dataset:
    return find_dataset(str(folder), Workspace(folder.parent), strict=False)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cases that are read from then on."""
    names: list[str] = []
    measure = extract.measure_case

    def told(case: Case, **options: object) -> object:
        names.append(case.name)
        return measure(case, **options)

    monkeypatch.setattr(extract, "measure_case", told)
    return names


def text_of(dataset: Dataset, keep: Path | None = None, *, force: bool = False) -> str:
    found = examine(dataset, num_workers=1, keep=keep, force=force)
    assert found.fingerprint is not None
    return to_text(found.fingerprint) + to_text(found.problems)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 2, 3, 1)])
def test_parts_in_any_order_are_one_pass(dataset: Dataset, tmp_path: Path, read: list[str], order: tuple[int]) -> None:
    expected = text_of(dataset)
    for part in order:
        measure_cases(dataset, dataset.cases[part - 1 :: 3], num_workers=2, keep=tmp_path / "measured")
    read.clear()
    assert text_of(dataset, tmp_path / "measured") == expected
    assert read == []


def test_what_is_missing_is_measured(dataset: Dataset, tmp_path: Path, read: list[str]) -> None:
    expected = text_of(dataset)
    measure_cases(dataset, dataset.cases[::2], num_workers=1, keep=tmp_path)
    (tmp_path / "c2.npz").write_bytes((tmp_path / "c2.npz").read_bytes()[:100])  # cut short
    (tmp_path / "c4.npz").write_bytes((tmp_path / "c0.npz").read_bytes())  # of another case
    read.clear()
    assert text_of(dataset, tmp_path) == expected
    assert read == ["c1", "c2", "c3", "c4", "c5"]


def test_changed_files_are_measured_anew(dataset: Dataset, tmp_path: Path, read: list[str]) -> None:
    text_of(dataset, tmp_path)
    label = dataset.cases[3].label
    assert label is not None
    os.utime(label, ns=(1, 1))
    read.clear()
    text_of(dataset, tmp_path)
    assert read == ["c3"]
    read.clear()
    text_of(dataset, tmp_path, force=True)
    assert len(read) == 6


def test_other_declared_labels_are_another_measurement(
    dataset: Dataset, make_raw: Callable[..., Path], tmp_path: Path, read: list[str]
) -> None:
    text_of(dataset, tmp_path / "measured")
    other = open_dataset(make_raw(6, labels={"background": 0, "tissue": 1, "lesion": 2}))
    states = [(path, path.stat()) for case in dataset.cases for path in (*case.images, case.label) if path]
    assert states
    read.clear()
    text_of(other, tmp_path / "measured")
    assert len(read) == 6


def test_cases_with_errors_are_not_kept(dataset: Dataset, tmp_path: Path, read: list[str]) -> None:
    dataset.cases[1].images[0].write_bytes(b"nonsense")
    for _ in range(2):
        read.clear()
        assert examine(dataset, num_workers=1, keep=tmp_path).fingerprint is None
    assert read == ["c1"]
    assert not (tmp_path / "c1.npz").exists()
