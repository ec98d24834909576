"""The clock of an iteration's parts, and that the step tells them in their order."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from autoseg.plan.plan import Plan
from autoseg.train import laps
from autoseg.train.interruption import StopFlag
from autoseg.train.laps import PARTS, Laps, Part
from autoseg.train.loader import Batch
from autoseg.train.setup import make_setup
from autoseg.train.state import make_state
from autoseg.train.step import train_step

CPU = torch.device("cpu")
MakePlan = Callable[..., Plan]


def _make_batch() -> Batch:
    return Batch(torch.zeros((2, 1, 16, 16, 16)), torch.zeros((2, 16, 16, 16), dtype=torch.int16), None)


def test_time_belongs_to_the_part_that_the_lap_names(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 11.0, 13.0, 13.5, 17.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    clock = Laps(CPU)
    clock.start()
    for part in ("waiting", "forward", "waiting", "forward"):
        clock(part)  # type: ignore[arg-type]
    main, meanwhile = clock.seconds()
    assert {part: value for part, value in main.items() if value} == {"waiting": 1.5, "forward": 6.0}
    assert meanwhile == {}


def test_starting_again_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 5.0, 20.0, 21.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    clock = Laps(CPU)
    for _ in range(2):
        clock.start()
        clock("loss")
    assert clock.seconds()[0]["loss"] == 1.0


def test_another_stream_is_counted_apart_and_without_its_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = iter([1, 2, 1, 2, 2, 1])
    moments = iter([0.0, 1.0, 2.0, 4.0, 7.0, 9.0])
    monkeypatch.setattr(Laps, "_stream", lambda self: next(streams))
    monkeypatch.setattr(Laps, "_now", lambda self: next(moments))
    clock = Laps(CPU)
    clock.start()
    for part in ("waiting", "waiting", "transfer", "augmentation", "forward"):
        clock(part)  # type: ignore[arg-type]
    main, meanwhile = clock.seconds()
    assert {part: value for part, value in main.items() if value} == {"waiting": 2.0, "forward": 7.0}
    assert meanwhile == {"transfer": 3.0, "augmentation": 3.0}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_tells_every_part_in_order(make_plan: MakePlan, accumulation: int) -> None:
    plan = make_plan(gradient_accumulation=accumulation)
    told: list[Part] = []
    setup = replace(make_setup(plan, CPU, lambda event: None, StopFlag()), lap=told.append)
    train_step(make_state(plan, CPU, scaled=False), setup, [_make_batch()] * accumulation, 0)
    assert told == ["optimizer", *[part for part in PARTS if part != "optimizer"] * accumulation, "optimizer"]


def test_a_training_listens_to_no_lap(make_plan: MakePlan) -> None:
    assert make_setup(make_plan(), CPU, lambda event: None, StopFlag()).lap is laps.no_lap


def test_listening_changes_no_weight(make_plan: MakePlan) -> None:
    plan = make_plan()
    weights = []
    for lap in (laps.no_lap, Laps(CPU)):
        state = make_state(plan, CPU, scaled=False)
        setup = replace(make_setup(plan, CPU, lambda event: None, StopFlag()), lap=lap)
        if isinstance(lap, Laps):
            lap.start()
        train_step(state, setup, [_make_batch()], 0)
        weights.append(torch.cat([part.detach().flatten() for part in state.network.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_events_time_what_the_device_does_without_waiting_for_it() -> None:
    device = torch.device("cuda")
    matrix = torch.ones((4096, 4096), device=device)
    matrix @ matrix
    clock = Laps(device)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        clock.start()
        for _ in range(50):
            matrix @ matrix
        clock("forward")
        matrix @ matrix
        clock("loss")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    main, _ = clock.seconds()
    assert main["forward"] > 10 * main["loss"] > 0
