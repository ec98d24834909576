"""The second stage of a cascade: what was found is read, moved and seen with the images, and learnt from."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg.augment import load_augmentation
from autoseg.augment._pipeline import Pipeline
from autoseg.data.splits import Fold
from autoseg.errors import TrainingError
from autoseg.preprocess.store import CaseStore, write_array
from autoseg.train.loader import Batch, BatchRequest, CaseCache, Sampling, open_pool, stream_batches


def _sampling(store: CaseStore, pipeline: Pipeline | None = None, **changes: Any) -> Sampling:
    return Sampling(
        tuple(store.names()), "training", 1, (16, 12, 16), 3, changes.pop("foreground_oversampling", 0.33), 3, pipeline,
        **changes,
    )  # fmt: skip


def _requests(count: int) -> list[BatchRequest]:
    return [BatchRequest(0, iteration) for iteration in range(count)]


def _read(sampling: Sampling, cache: CaseCache, requests: Iterable[BatchRequest], num_workers: int) -> list[Batch]:
    with open_pool(num_workers) as pool:
        return list(stream_batches(requests, sampling, cache, pool))


@pytest.fixture
def spatial_pipeline() -> Pipeline:
    config = load_augmentation("spatial").Config().model_dump(mode="json")
    return Pipeline([("spatial", config | {name: 1.0 for name in config if name.startswith("probability")})])


def _with_found(store: CaseStore, folder: Path, make: Callable[[np.ndarray], np.ndarray]) -> CaseStore:
    """Return the store with what a previous stage found: a function of the reference."""
    for name in store.names():
        write_array(folder / f"{name}.b2nd", make(store.classes(name)[...]).astype(np.int16))
    return CaseStore(store.folder, found_folder=folder)


def test_what_was_found_is_read_from_the_same_box_as_the_reference(store: CaseStore, tmp_path: Path) -> None:
    found = _with_found(store, tmp_path, lambda classes: classes + 10)
    for batch in _read(_sampling(found, sees_previous=True), CaseCache(found), _requests(3), 2):
        assert batch.classes.shape == (3, 2, 16, 12, 16)
        assert torch.equal(batch.classes[:, 1], batch.classes[:, 0] + 10)
    plain = _read(_sampling(store), CaseCache(store), _requests(3), 1)
    assert all(
        torch.equal(one.classes, other.classes[:, 0]) and torch.equal(one.images, other.images)
        for one, other in zip(
            plain, _read(_sampling(found, sees_previous=True), CaseCache(found, limit_bytes=0), _requests(3), 1)
        )
    )


def test_image_and_what_was_found_stay_aligned_in_random_spatial_augmentation(
    store: CaseStore, tmp_path: Path, spatial_pipeline: Pipeline
) -> None:
    """The oracle: linear interpolation of the same mask as an image, at half of which the vote changes sides."""
    inside = _with_found(store, tmp_path / "found", lambda classes: classes == 1)
    masks = CaseStore(tmp_path / "masks", found_folder=inside.found_folder)
    shutil.copytree(store.folder, masks.folder)
    for name in store.names():
        write_array(masks.folder / f"{name}.b2nd", (store.classes(name)[...] == 1)[None].astype(np.float32))
    sampling = _sampling(masks, spatial_pipeline, sees_previous=True, foreground_oversampling=1.0)
    changed = 0
    for batch in _read(sampling, CaseCache(masks), _requests(4), 2):
        assert batch.parameters is not None
        images, classes = spatial_pipeline.apply(batch.images, batch.classes, batch.parameters, sampling.patch_size)
        assert images.shape == (3, 2, *sampling.patch_size) and classes.shape == (3, *sampling.patch_size)
        assert set(images[:, 1].unique().tolist()) == {0.0, 1.0}
        certain = (images[:, 0] - 0.5).abs() > 1e-3
        assert torch.equal(images[:, 1][certain] == 1, images[:, 0][certain] > 0.5)
        assert torch.equal(images[:, 1] == 1, classes == 1)
        changed += int(((images[:, 0] > 0.01) & (images[:, 0] < 0.99)).sum())
    assert changed > 1000  # it was interpolated indeed


def test_intensities_change_and_what_was_found_does_not(store: CaseStore, tmp_path: Path) -> None:
    pipeline = Pipeline([(name, {"probability": 1.0}) for name in ("gaussian_noise", "gamma", "brightness")])
    found = _with_found(store, tmp_path, lambda classes: classes)
    sampling = _sampling(found, pipeline, sees_previous=True, augmented=True)
    (batch,) = _read(sampling, CaseCache(found), _requests(1), 1)
    assert torch.equal(batch.images[:, 1], batch.classes.float())
    (plain,) = _read(_sampling(store), CaseCache(store), _requests(1), 1)
    assert torch.equal(plain.classes, batch.classes) and not torch.equal(plain.images[:, 0], batch.images[:, 0])


def test_a_case_that_no_previous_stage_has_segmented_is_named(store: CaseStore, tmp_path: Path) -> None:
    for other, message in ((store, "no previous stage has segmented"), (_with_nothing(store, tmp_path), "not there")):
        with pytest.raises(TrainingError, match=f"case case_.*{message}.*run autoseg_train"):
            _read(_sampling(other, sees_previous=True), CaseCache(other), _requests(1), 1)


def _with_nothing(store: CaseStore, folder: Path) -> CaseStore:
    return CaseStore(store.folder, found_folder=folder)


def test_a_second_stage_learns_to_copy_a_perfect_first_one(
    store: CaseStore, fold: Fold, make_plan: Any, train: Any, read_metrics: Any, tmp_path: Path
) -> None:
    """Images of noise tell nothing, so that all it knows is what was found."""
    blind = CaseStore(tmp_path / "blind", found_folder=tmp_path / "found")
    shutil.copytree(store.folder, blind.folder)
    rng = np.random.default_rng(0)
    for name in store.names():
        noise = rng.standard_normal((1, *store.classes(name).shape)).astype(np.float32)
        write_array(blind.folder / f"{name}.b2nd", noise)
        write_array(tmp_path / "found" / f"{name}.b2nd", store.classes(name)[...])
    section = {"epochs": 3, "iterations_per_epoch": 30, "validation_iterations": 4, "foreground_oversampling": 1.0}
    alone = make_plan(**section)
    cascade = alone.model_copy(update={"previous_stage": "first"})
    dice = [
        read_metrics(train(plan, store=blind, run_folder=tmp_path / str(plan.previous_stage)))[-1]["validation_dice"]
        for plan in (alone, cascade)
    ]
    assert max(dice[0].values()) < 0.7 and min(dice[1].values()) > 0.97, dice
