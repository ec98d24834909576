"""The loader: the right voxels in the right order, on any number of threads, and never a hang."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg.augment._pipeline import Pipeline
from autoseg.data.labels import OUTSIDE_CLASS
from autoseg.errors import TrainingError, WorkspaceError
from autoseg.preprocess.store import CaseStore
from autoseg.train.loader import BATCHES_AHEAD, Batch, BatchRequest, CaseCache, Sampling, open_pool, stream_batches
from autoseg.train.patches import box_around, draw_case, draw_patch, is_forced, make_generator


def _sampling(store: CaseStore, pipeline: Pipeline | None = None, **changes: Any) -> Sampling:
    values: dict[str, Any] = {
        "cases": tuple(store.names()),
        "purpose": "training",
        "num_channels": 1,
        "patch_size": (16, 12, 16),
        "batch_size": 3,
        "foreground_oversampling": 0.33,
        "seed": 3,
        "pipeline": pipeline,
    }
    return Sampling(**(values | changes))


def _requests(count: int, first: int = 0) -> list[BatchRequest]:
    return [BatchRequest(epoch, i) for epoch in range(2) for i in range(count)][first:]


def _read(sampling: Sampling, cache: CaseCache, requests: Iterable[BatchRequest], num_workers: int) -> list[Batch]:
    with open_pool(num_workers) as pool:
        return list(stream_batches(requests, sampling, cache, pool))


def _padded_box(array: np.ndarray, box: tuple[slice, ...], outside: int = 0) -> np.ndarray:
    """A slow oracle: read a box by indexing every voxel, ``outside`` beyond the array."""
    grid = np.stack(np.meshgrid(*(np.arange(part.start, part.stop) for part in box), indexing="ij"))
    inside = np.all([(g >= 0) & (g < n) for g, n in zip(grid, array.shape[-3:])], axis=0)
    safe = np.where(inside, grid, 0)
    return np.where(inside, array[..., safe[0], safe[1], safe[2]], outside)


@pytest.fixture
def spatial_pipeline() -> Pipeline:
    from autoseg.augment import load_augmentation

    config = load_augmentation("spatial").Config().model_dump(mode="json")
    return Pipeline([("spatial", config | {name: 1.0 for name in config if name.startswith("probability")})])


def _assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.classes, other.classes)


@pytest.mark.parametrize("limit_bytes", [0, 200_000, 2e9], ids=["no cache", "some fit", "all fit"])
@pytest.mark.parametrize("size", [(16, 12, 16), (40, 16, 33)], ids=["inside", "padded"])
def test_batches_hold_the_boxes_of_their_patches(store: CaseStore, limit_bytes: float, size: tuple[int, ...]) -> None:
    sampling, cache = _sampling(store, patch_size=size), CaseCache(store, limit_bytes)
    requests = _requests(4)
    for request, batch in zip(requests, _read(sampling, cache, requests, 2)):
        assert batch.images.shape == (3, 1, *size) and batch.images.dtype == torch.float32
        assert batch.classes.shape == (3, *size) and batch.classes.dtype == torch.int16
        for sample in range(3):
            rng = make_generator(3, "training", request.epoch, request.iteration, sample)
            case = draw_case(sampling.cases, rng)
            patch = draw_patch(case, cache.geography(case), size, rng, forced=is_forced(sample, 3, 0.33))
            box = box_around(patch, size, size)
            assert np.array_equal(batch.images[sample], _padded_box(store.image(case)[...], box))
            assert np.array_equal(batch.classes[sample], _padded_box(store.classes(case)[...], box))
    assert cache.used_bytes <= limit_bytes


def test_batches_are_the_same_on_any_number_of_threads(store: CaseStore, spatial_pipeline: Pipeline) -> None:
    sampling = _sampling(store, spatial_pipeline)
    expected = _read(sampling, CaseCache(store), _requests(5), 1)
    _assert_equal(_read(sampling, CaseCache(store, 0), _requests(5), 4), expected)


def test_batches_are_the_same_after_resuming(store: CaseStore, spatial_pipeline: Pipeline) -> None:
    sampling = _sampling(store, spatial_pipeline)
    expected = _read(sampling, CaseCache(store), _requests(4), 2)
    _assert_equal(_read(sampling, CaseCache(store), _requests(4, first=3), 2), expected[3:])


def test_another_seed_gives_other_batches(store: CaseStore) -> None:
    first, second = (_read(_sampling(store, seed=seed), CaseCache(store), _requests(1), 1)[0] for seed in (1, 2))
    assert not torch.equal(first.images, second.images)


def test_an_augmented_batch_has_the_margin_that_it_needs(store: CaseStore, spatial_pipeline: Pipeline) -> None:
    sampling = _sampling(store, spatial_pipeline)
    batch = _read(sampling, CaseCache(store), _requests(1), 2)[0]
    assert batch.parameters is not None
    source = tuple(spatial_pipeline.source_shape(batch.parameters, sampling.patch_size))
    assert batch.images.shape == (3, 1, *source) and source > sampling.patch_size
    images, classes = spatial_pipeline.apply(batch.images, batch.classes, batch.parameters, sampling.patch_size)
    assert images.shape == (3, 1, *sampling.patch_size) and classes.shape == (3, *sampling.patch_size)


def test_each_sample_is_read_in_the_box_that_it_needs(store: CaseStore) -> None:
    """What is not transformed is read as the patch, whatever others need; the rim is as outside an image."""
    spatial = {"probability_rotation": 0.5, "probability_scaling": 0.0, "probability_elastic": 0.0}
    pipeline = Pipeline([("spatial", spatial)])
    sampling, cache = _sampling(store, pipeline), CaseCache(store)
    for request, batch in zip(_requests(6), _read(sampling, cache, _requests(6), 2)):
        assert batch.parameters is not None
        sizes = pipeline.source_sizes(batch.parameters, (3, 1, *sampling.patch_size))
        source = tuple(batch.classes.shape[1:])
        assert source == tuple(max(axis) for axis in zip(*sizes))
        for sample, size in enumerate(sizes):
            rng = make_generator(3, "training", request.epoch, request.iteration, sample)
            case = draw_case(sampling.cases, rng)
            forced = is_forced(sample, 3, 0.33)
            patch = draw_patch(case, cache.geography(case), sampling.patch_size, rng, forced=forced)
            box = box_around(patch, sampling.patch_size, size)
            middle = tuple(slice((w - n) // 2, (w - n) // 2 + n) for w, n in zip(source, size))
            image = np.zeros((1, *source), np.float32)
            image[(slice(None), *middle)] = _padded_box(store.image(case)[...], box)
            classes = np.full(source, OUTSIDE_CLASS, np.int16)
            classes[middle] = _padded_box(store.classes(case)[...], box, OUTSIDE_CLASS)
            assert np.array_equal(batch.images[sample], image)
            assert np.array_equal(batch.classes[sample], classes)


@pytest.mark.parametrize("augmented", [False, True])
def test_shares_of_a_batch_are_the_whole_batch(store: CaseStore, spatial_pipeline: Pipeline, augmented: bool) -> None:
    def read(samples: range | None) -> Batch:
        sampling = _sampling(store, spatial_pipeline, samples=samples, augmented=augmented)
        return _read(sampling, CaseCache(store), _requests(2), 1)[1]

    def finish(batch: Batch) -> tuple[torch.Tensor, ...]:
        if batch.parameters is None:
            return batch.images, batch.classes
        return spatial_pipeline.apply(batch.images, batch.classes, batch.parameters, (16, 12, 16))

    whole, first, second = (finish(read(samples)) for samples in (None, range(1), range(1, 3)))
    for all_of_it, *parts in zip(whole, first, second):
        torch.testing.assert_close(torch.cat(parts), all_of_it, rtol=1e-5, atol=1e-5)


def test_forced_samples_show_foreground(store: CaseStore) -> None:
    sampling = _sampling(store, patch_size=(4, 4, 4), foreground_oversampling=1.0)
    assert all(
        (batch.classes > 0).flatten(1).any(1).all() for batch in _read(sampling, CaseCache(store), _requests(5), 2)
    )


def test_a_damaged_case_is_named(store: CaseStore, tmp_path: Path) -> None:
    for path in store.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "case_2.b2nd").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match=r"case_2.*autoseg_plan"):
        _read(_sampling(store), CaseCache(CaseStore(tmp_path)), _requests(20), 3)


class _Failing:
    """A store whose images cannot be read, each for a reason of the library's."""

    def __init__(self, store: CaseStore, error: Exception) -> None:
        self.folder, self.properties, self.classes, self.foreground = (
            store.folder, store.properties, store.classes, store.foreground
        )  # fmt: skip
        self.error = error

    def image(self, name: str) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("blosc"), WorkspaceError("gone"), MemoryError()], ids=repr)
def test_errors_of_threads_reach_the_caller(store: CaseStore, error: Exception) -> None:
    with pytest.raises(TrainingError, match="case case_") as caught:
        _read(_sampling(store), CaseCache(_Failing(store, error)), _requests(5), 2)  # type: ignore[arg-type]
    assert caught.value.__cause__ is error


class _Gated:
    """A store that reads nothing before the gate opens, and counts what is begun."""

    def __init__(self, store: CaseStore) -> None:
        self.folder, self.properties, self.image, self.foreground = (
            store.folder, store.properties, store.image, store.foreground
        )  # fmt: skip
        self.store, self.gate, self.begun = store, threading.Event(), 0

    def classes(self, name: str) -> Any:
        self.begun += 1
        self.gate.wait(10)
        return self.store.classes(name)


@pytest.fixture
def gated(store: CaseStore) -> Iterator[_Gated]:
    gated = _Gated(store)
    yield gated
    gated.gate.set()


def test_reads_a_bounded_number_of_batches_ahead(gated: _Gated, store: CaseStore) -> None:
    asked: list[BatchRequest] = []

    def requests() -> Iterator[BatchRequest]:
        for request in _requests(50):
            asked.append(request)
            yield request

    gated.gate.set()
    with open_pool(2) as pool, closing(stream_batches(requests(), _sampling(store), CaseCache(gated), pool)) as stream:  # type: ignore[arg-type]
        for index in range(4):
            next(stream)
            assert len(asked) == index + 1 + BATCHES_AHEAD


def test_closing_cancels_what_has_not_begun(gated: _Gated, store: CaseStore) -> None:
    def interrupted() -> Iterator[BatchRequest]:
        yield from _requests(2)[:2]
        raise KeyboardInterrupt

    with open_pool(1) as pool:
        stream = stream_batches(interrupted(), _sampling(store), CaseCache(gated, 0), pool)  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        gated.gate.set()
    assert gated.begun <= 1


def test_closing_a_stream_that_never_ran(store: CaseStore) -> None:
    with open_pool(1) as pool:
        stream_batches(_requests(2), _sampling(store), CaseCache(store), pool).close()


def test_the_cache_reads_a_case_once_and_stays_within_its_limit(store: CaseStore) -> None:
    opened: list[str] = []
    counting = _Counting(store, opened.append)
    one_image = 32**3 * 4
    cache = CaseCache(counting, one_image * 2.2)  # type: ignore[arg-type]
    sampling = _sampling(store, foreground_oversampling=0.0)
    _read(sampling, cache, _requests(20), 4)
    kept = [key for key in cache.kept if key[1] in ("image", "classes")]
    assert 2 <= len(kept) <= 4
    assert sum(cache.kept[key].nbytes for key in kept) == cache.used_bytes <= one_image * 2.2
    opened.clear()
    _read(sampling, cache, _requests(20), 4)
    assert not {name for name, kind in kept if kind == "image"} & set(opened)


class _Counting:
    def __init__(self, store: CaseStore, on_open: Callable[[str], None]) -> None:
        self.folder, self.properties, self.classes, self.foreground = (
            store.folder, store.properties, store.classes, store.foreground
        )  # fmt: skip
        self.store, self.on_open = store, on_open

    def image(self, name: str) -> Any:
        self.on_open(name)
        return self.store.image(name)


def test_zero_workers_still_read(store: CaseStore) -> None:
    assert isinstance(pool := open_pool(0), ThreadPoolExecutor)
    with pool:
        assert len(list(stream_batches(_requests(1), _sampling(store), CaseCache(store), pool))) == 2
