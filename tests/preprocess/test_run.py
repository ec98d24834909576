"""Preprocessing a dataset: what is made again, what fails, and how many workers the memory allows."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import autoseg.preprocess.memory as memory_module
import autoseg.preprocess.run as run_module
from autoseg.data.dataset import Case, Dataset
from autoseg.data.labels import Labels
from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import CaseFingerprint
from autoseg.plan.plan import Plan
from autoseg.preprocess.memory import available_bytes, choose_crew, predict_peak_bytes
from autoseg.preprocess.run import preprocess_dataset
from autoseg.preprocess.store import CaseStore

LABELS = Labels.from_names({"background": 0, "liver": 1})
NAMES = ("first", "second", "third")


@pytest.fixture
def dataset(
    write_case: Callable[..., Case], build_dataset: Callable[..., Dataset], rng: np.random.Generator
) -> Dataset:
    image = rng.normal(5, 1, (1, 6, 8, 8)).astype(np.float32)
    label = rng.integers(0, 2, (6, 8, 8)).astype(np.uint8)
    return build_dataset([write_case(name, image, label) for name in NAMES], LABELS)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("4 GiB"), "numpy's"])
def test_a_case_without_memory_is_told_and_the_others_are_made(
    dataset: Dataset, build_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: object,
    num_workers: int,
) -> None:  # fmt: skip
    original, told, done = run_module.preprocess_case, [], []

    def preprocess(case: Case, plan: Plan, **options: object) -> object:
        if case.name == "second":
            if not isinstance(error, Exception):
                np.empty(1 << 60, dtype=np.uint8)  # what numpy itself raises
            raise error
        return original(case, plan, **options)

    monkeypatch.setattr(run_module, "preprocess_case", preprocess)
    failed = preprocess_dataset(
        dataset, build_plan(LABELS), tmp_path / "store", num_workers=num_workers,
        on_case=lambda case: done.append(case.name), on_error=lambda case, reason: told.append((case.name, reason)),
    )  # fmt: skip
    assert failed == ["second"] and CaseStore(tmp_path / "store").names() == ["first", "third"]
    assert sorted(done) == sorted(NAMES) and [name for name, _ in told] == ["second"]
    assert "out of memory" in told[0][1] and "-j 1" in told[0][1] and "\n" not in told[0][1]


def test_an_unreadable_case_is_told_and_is_no_longer_finished(
    dataset: Dataset, build_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    folder, told = tmp_path / "store", []
    assert preprocess_dataset(dataset, build_plan(LABELS), folder, num_workers=2) == []
    dataset.cases[0].images[0].write_bytes(b"nothing")
    failed = preprocess_dataset(
        dataset, build_plan(LABELS), folder, num_workers=2, on_error=lambda case, reason: told.append(reason)
    )
    assert failed == ["first"] and "first" in told[0]
    assert CaseStore(folder).names() == ["second", "third"]


def test_a_plan_that_suits_no_case_ends_it(dataset: Dataset, build_plan: Callable[..., Plan], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="normalises 2"):
        preprocess_dataset(dataset, build_plan(LABELS, channels=2), tmp_path / "store", num_workers=2)


def test_force_makes_finished_cases_again(dataset: Dataset, build_plan: Callable[..., Plan], tmp_path: Path) -> None:
    folder = tmp_path / "store"
    preprocess_dataset(dataset, build_plan(LABELS), folder, num_workers=1)
    image = folder / "first.b2nd"
    content = image.read_bytes()
    image.write_bytes(b"damaged")  # neither size nor time of the raw files tells
    os.utime(image, ns=(1, 1))
    preprocess_dataset(dataset, build_plan(LABELS), folder, num_workers=1)
    assert image.read_bytes() == b"damaged"
    preprocess_dataset(dataset, build_plan(LABELS), folder, num_workers=1, force=True)
    assert image.read_bytes() == content


def _measured(shape: tuple[int, int, int]) -> CaseFingerprint:
    return CaseFingerprint.model_construct(
        name="case", spacing=(1.0, 1.0, 1.0), shape=shape, shape_after_crop=shape, orientation="LPS", label_voxels={}
    )


def test_as_many_workers_as_fit_the_memory(build_plan: Callable[..., Plan]) -> None:
    plan, cases = build_plan(LABELS, spacing=(0.5, 1.0, 1.0)), [_measured((10, 20, 30)), _measured((20, 20, 30))]
    peak = predict_peak_bytes(cases[1], plan)
    assert peak >= 4 * (12_000 + 24_000)  # the image before and after, at the least
    counts = [choose_crew(cases * 4, plan, wanted=4, free_bytes=int(n * peak / 0.8) + 10).num_workers for n in range(7)]
    assert counts == [1, 1, 2, 3, 4, 4, 4]
    assert choose_crew(cases, plan, wanted=4, free_bytes=10**12).num_workers == 2
    assert choose_crew(cases, plan, wanted=1).peak_bytes == peak


def test_the_limit_of_a_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "CGROUP", tmp_path)
    free = available_bytes()
    assert free is None or free > 10**6
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert available_bytes() == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes() != 3000
