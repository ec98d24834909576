"""How fast a plan trains: that the figures belong together, and that a measurement leaves nothing behind."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from autoseg.data.splits import Fold
from autoseg.documents import parse_document, to_text
from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.plan.variant import measure_plan
from autoseg.preprocess.store import CaseStore
from autoseg.train import benchmark
from autoseg.train.benchmark import Speed, measure_attainable_rate, measure_speed, open_blocks
from autoseg.train.laps import PARTS
from autoseg.train.machine import Machine

CPU = torch.device("cpu")
MakePlan = Callable[..., Plan]


@pytest.fixture(autouse=True)
def _only_the_fewest_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SECONDS", 0.0)
    monkeypatch.setitem(benchmark.MATRIX, "cpu", 64)


def _measure(plan: Plan, store: CaseStore, fold: Fold, **options: Any) -> Speed:
    on_round = options.pop("on_round", lambda number: None)
    return measure_speed(plan, store, fold, Machine(CPU, 1, **options), on_round=on_round)


def test_the_parts_make_up_the_iteration(make_plan: MakePlan, store: CaseStore, fold: Fold) -> None:
    rounds: list[int] = []
    speed = _measure(make_plan(), store, fold, on_round=rounds.append)
    assert rounds == [1, 2] and speed.iterations == 2 * benchmark.BLOCK["cpu"]
    assert tuple(speed.parts) == PARTS
    assert all(seconds >= 0 for seconds in speed.parts.values())
    assert speed.parts["forward"] > 0 and speed.parts["augmentation"] > 0
    # the last value of each block is read outside of the laps, so that they are less than the whole
    assert 0 < sum(speed.parts.values()) <= 1.01 * speed.iteration_seconds
    assert speed.peak_memory_gb is None and speed.meanwhile == {}


def test_operations_and_patches_include_accumulated_batches(make_plan: MakePlan, store: CaseStore, fold: Fold) -> None:
    plan = make_plan(gradient_accumulation=3)
    speed = _measure(plan, store, fold)
    assert speed.patches == 3 * plan.training.batch_size
    assert speed.operations == 3 * measure_plan(plan, plan.training.batch_size).flops > 0
    rate = speed.operations / speed.iteration_seconds
    assert speed.share_of_peak == pytest.approx(rate / speed.attainable_rate)
    assert speed.overhead == pytest.approx((speed.iteration_seconds - speed.bare_seconds) / speed.bare_seconds)


def test_the_workers_may_augment(make_plan: MakePlan, store: CaseStore, fold: Fold) -> None:
    speed = _measure(make_plan(), store, fold, augment_device="cpu")
    assert speed.augmented_on == "cpu"


def test_it_can_be_written_and_read(make_plan: MakePlan, store: CaseStore, fold: Fold) -> None:
    speed = _measure(make_plan(), store, fold)
    assert parse_document(to_text(speed), Speed, where="speed") == speed


def test_the_loop_goes_on_through_new_batches(make_plan: MakePlan, store: CaseStore, fold: Fold) -> None:
    with open_blocks(make_plan(), store, fold, Machine(CPU, 1), length=2, count=1) as blocks:
        before = [weights.clone() for weights in blocks.state.network.parameters()]
        blocks.run_loop()
        after = list(blocks.state.network.parameters())
        assert not all(torch.equal(one, other) for one, other in zip(before, after))
        marks = sum(len(one) for one in blocks.laps._marks.values())
        blocks.run_bare()
        assert sum(len(one) for one in blocks.laps._marks.values()) == marks  # the bare step tells no lap


def test_the_attainable_rate_is_of_the_precision() -> None:
    assert measure_attainable_rate(CPU, "fp32") > 0
    assert measure_attainable_rate(CPU, "bf16") > 0


def test_too_little_memory_is_told_in_one_line(
    make_plan: MakePlan, store: CaseStore, fold: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(benchmark, "train_step", fail)
    with pytest.raises(TrainingError, match="out of memory"):
        _measure(make_plan(), store, fold)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("place", ["device", "cpu"])
def test_on_a_gpu_other_streams_are_told_apart(make_plan: MakePlan, store: CaseStore, fold: Fold, place: Any) -> None:
    machine = Machine(torch.device("cuda"), 2, augment_device=place, compiled="off")
    speed = measure_speed(make_plan(), store, fold, machine)
    assert speed.meanwhile["transfer"] > 0
    assert speed.parts["forward"] > 0 and speed.parts["backward"] > 0
    assert speed.peak_memory_gb and speed.peak_memory_gb > 0
