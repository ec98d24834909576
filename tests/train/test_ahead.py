"""Where batches are augmented, and preparing them ahead."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoseg.augment._pipeline import Pipeline
from autoseg.data.splits import Fold
from autoseg.plan.plan import Plan
from autoseg.preprocess.store import CaseStore
from autoseg.train import ahead
from autoseg.train.ahead import find_place, kept_buffers, previous_place, stay_ahead, time_iterations
from autoseg.train.loader import Batch, BatchRequest, CaseCache, Sampling, open_pool, stream_batches
from autoseg.train.loop import train_fold
from autoseg.train.machine import Machine

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def make_stream(count: int, closed: list[bool] | None = None) -> Generator[Batch, None, None]:
    try:
        for index in range(count):
            yield Batch(torch.full((1, 1, 2, 2, 2), float(index)), torch.zeros((1, 2, 2, 2), dtype=torch.int16), None)
    finally:
        if closed is not None:
            closed.append(True)


def double(batch: Batch) -> Batch:
    return Batch(batch.images * 2, batch.classes, None)


def test_every_batch_is_prepared_in_order() -> None:
    closed: list[bool] = []
    assert [int(b.images[0, 0, 0, 0, 0]) for b in stay_ahead(make_stream(4, closed), double, CPU)] == [0, 2, 4, 6]
    assert closed


def test_closing_closes_the_stream_below() -> None:
    closed: list[bool] = []
    stream = stay_ahead(make_stream(4, closed), double, CPU)
    next(stream)
    stream.close()
    assert closed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_prepared_on_another_stream() -> None:
    seen = []

    def prepare(batch: Batch) -> Batch:
        seen.append(torch.cuda.current_stream())
        return Batch(batch.images.cuda(non_blocking=True) * 2, batch.classes.cuda(non_blocking=True), None)

    sums = [batch.images.sum() for batch in stay_ahead(make_stream(50), prepare, CUDA)]
    assert [int(value) for value in sums] == [16 * index for index in range(50)]
    assert all(stream != torch.cuda.current_stream() for stream in seen)


@pytest.mark.parametrize(("seconds", "place"), [((0.2, 0.1), "cpu"), ((0.1, 0.2), "device")])
def test_auto_takes_the_faster_place_and_says_so(seconds: tuple[float, float], place: str) -> None:
    measured = dict(zip(("device", "cpu"), seconds))
    found, reason = find_place("auto", None, CUDA, lambda one: measured[one])
    assert found == place
    assert reason.startswith(f"augmenting on the {place}: measured") and "200.0 ms" in reason and "100.0 ms" in reason


def test_nothing_is_measured_where_the_place_is_known() -> None:
    def measure(place: str) -> float:
        raise AssertionError("measured")

    assert find_place("cpu", None, CUDA, measure)[0] == "cpu"
    assert find_place("auto", "cpu", CUDA, measure) == ("cpu", "augmenting on the cpu, as before")
    assert find_place("auto", None, CPU, measure)[0] == "device"


def test_iterations_are_timed_after_some_to_warm_up() -> None:
    steps: list[Batch] = []
    assert 0 < time_iterations(make_stream(100), steps.append, CPU) < 1
    assert len(steps) == ahead.WARM_UP + ahead.MEASURED
    assert time_iterations(make_stream(2), steps.append, CPU) == float("inf")


def test_buffers_are_put_back() -> None:
    network = nn.BatchNorm3d(2)
    with kept_buffers(network):
        network(torch.randn(2, 2, 3, 3, 3) + 5)
        assert network.running_mean is not None and network.running_mean.abs().sum() > 0.1
    assert not network.running_mean.any()


@pytest.fixture
def sampling(store: CaseStore) -> Sampling:
    pipeline = Pipeline([("spatial", {"probability_rotation": 0.5}), ("gamma", {}), ("mirror", {})])
    return Sampling(tuple(store.names()), "training", 1, (16, 12, 16), 3, 0.33, 3, pipeline)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_reading_threads_augment_as_the_device_does(store: CaseStore, sampling: Sampling, num_workers: int) -> None:
    from dataclasses import replace

    requests = [BatchRequest(0, iteration) for iteration in range(6)]
    with open_pool(num_workers) as pool:
        read = list(stream_batches(requests, sampling, CaseCache(store), pool))
        finished = list(stream_batches(requests, replace(sampling, augmented=True), CaseCache(store), pool))
    assert sampling.pipeline is not None
    for batch, done in zip(read, finished):
        assert batch.parameters is not None and done.parameters is None
        images, classes = sampling.pipeline.apply(batch.images, batch.classes, batch.parameters, sampling.patch_size)
        assert torch.equal(done.images, images) and torch.equal(done.classes, classes)


def test_a_training_is_the_same_wherever_it_augments(
    store: CaseStore, fold: Fold, make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    losses = []
    for place in ("device", "cpu"):
        folder = tmp_path / place
        events: list[Any] = []
        machine = Machine(CPU, 2, augment_device=place)  # type: ignore[arg-type]
        train_fold(make_plan(epochs=1), store, fold, folder, machine, on_event=events.append)
        assert previous_place(folder) == place
        assert f"augmenting on the {place}, as asked for" in (folder / "logs" / "train.log").read_text()
        losses.append(events[-1].train_loss)
    assert losses[0] == losses[1]


def test_a_record_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert previous_place(tmp_path) is None


def test_measuring_changes_nothing(
    store: CaseStore, fold: Fold, make_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses are those of a training that measured nothing."""

    def losses(name: str) -> Iterator[float]:
        events: list[Any] = []
        train_fold(make_plan(epochs=2), store, fold, tmp_path / name, Machine(CPU, 1), on_event=events.append)
        return [event.train_loss for event in events if hasattr(event, "train_loss")]  # type: ignore[return-value]

    expected = losses("plain")
    measured = []

    def find_measured(wanted: str, before: Any, device: Any, measure: Callable[[str], float]) -> tuple[str, str]:
        measured.extend(measure(place) for place in ("device", "cpu"))
        return "device", "measured"

    monkeypatch.setattr(ahead, "MEASURED", 1)
    monkeypatch.setattr(ahead, "WARM_UP", 1)
    monkeypatch.setattr("autoseg.train.loop.find_place", find_measured)
    assert losses("measured") == expected
    assert len(measured) == 2 and all(0 < value < 10 for value in measured)
