"""The logs of a training: a line an epoch, the same after a resume, and TensorBoard as a convenience."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from autoseg.plan.plan import Plan
from autoseg.train.log import RECORDED, EpochReport, Event, TrainingLog, describe_epoch, make_record

MakePlan = Callable[..., Plan]
Train = Callable[..., Path]
ReadMetrics = Callable[[Path], list[dict[str, Any]]]


def _report(epoch: int, **changes: Any) -> EpochReport:
    values: dict[str, Any] = {
        "epoch": epoch,
        "epochs": 5,
        "train_loss": 1.0 / epoch,
        "validation_loss": 2.0 / epoch,
        "validation_dice": {"Leber, größer": 0.5, "tumour": None},
        "mean_dice": 0.5,
        "best": True,
        "learning_rate": 0.01,
        "seconds": 3.0,
        "seconds_waiting": 0.5,
        "seconds_left": 12.0,
        "peak_memory_gb": None,
    }
    return EpochReport(**(values | changes))


def _scalars(run_folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run_folder / "events"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_one_line_of_metrics_an_epoch(tmp_path: Path, read_metrics: ReadMetrics) -> None:
    log = TrainingLog(tmp_path, [])
    for epoch in (1, 2, 3):
        log.write_epoch(_report(epoch))
        assert read_metrics(tmp_path) == [make_record(_report(number)) for number in range(1, epoch + 1)]
    log.close()
    assert list(read_metrics(tmp_path)[0]) == list(RECORDED)
    assert "größer" in (tmp_path / "logs" / "metrics.jsonl").read_text(encoding="utf-8")


def test_a_resumed_log_ends_with_the_checkpoint(tmp_path: Path, read_metrics: ReadMetrics) -> None:
    """Epoch 3 was logged, but the training was killed before its checkpoint stood: it is done and logged again."""
    log = TrainingLog(tmp_path, [])
    for epoch in (1, 2, 3):
        log.write_epoch(_report(epoch))
    with (tmp_path / "logs" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_l')
    again = TrainingLog(tmp_path, [make_record(_report(1)), make_record(_report(2))])
    assert [record["epoch"] for record in read_metrics(tmp_path)] == [1, 2]
    again.write_epoch(_report(3, train_loss=7.0))
    again.close()
    assert [record["train_loss"] for record in read_metrics(tmp_path)] == [1.0, 0.5, 7.0]


def test_events_are_readable_and_go_on_after_a_resume(tmp_path: Path) -> None:
    first = TrainingLog(tmp_path, [])
    for epoch in (1, 2, 3):
        first.write_epoch(_report(epoch))
    first.close()
    time.sleep(1.1)  # TensorBoard orders the files of a second by a counter in their names, 10 before 9
    second = TrainingLog(tmp_path, [make_record(_report(epoch)) for epoch in (1, 2)])
    for epoch in (3, 4):
        second.write_epoch(_report(epoch, train_loss=9.0))
    second.close()
    scalars = _scalars(tmp_path)
    assert scalars["loss/training"] == [(1, 1.0), (2, 0.5), (3, 9.0), (4, 9.0)]
    assert [step for step, _ in scalars["dice/mean"]] == [1, 2, 3, 4]
    assert "dice/tumour" not in scalars and "memory_gb/device" not in scalars


def test_events_of_a_training_that_was_killed_in_its_first_epoch(tmp_path: Path) -> None:
    for loss in (5.0, 6.0):
        log = TrainingLog(tmp_path, [])
        log.write_epoch(_report(1, train_loss=loss))
        log.close()
    assert _scalars(tmp_path)["loss/training"] == [(1, 6.0)]


class _BrokenBoard:
    def __init__(self, *_: object, **__: object) -> None:
        raise RuntimeError("the installation\nis broken")


@pytest.mark.parametrize("when", ["opening", "writing"])
def test_a_failing_tensorboard_does_not_end_a_training(
    make_plan: MakePlan, train: Train, read_metrics: ReadMetrics, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if when == "opening":
        monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", _BrokenBoard)
    else:
        monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    run_folder = train(make_plan(epochs=3))
    assert len(read_metrics(run_folder)) == 3
    lines = (run_folder / "logs" / "train.log").read_text().splitlines()
    complaints = [line for line in lines if "no TensorBoard events from here on" in line]
    assert len(complaints) == 1
    assert ("RuntimeError: the installation is broken" if when == "opening" else "No space left") in complaints[0]


def test_a_training_writes_all_three(make_plan: MakePlan, train: Train, read_metrics: ReadMetrics) -> None:
    told: list[Event] = []
    run_folder = train(make_plan(epochs=2), on_event=told.append)
    reports = [event for event in told if isinstance(event, EpochReport)]
    records = read_metrics(run_folder)
    assert records == [json.loads(json.dumps(make_record(report))) for report in reports]
    assert dict(_scalars(run_folder)["loss/training"]) == pytest.approx({r["epoch"]: r["train_loss"] for r in records})
    lines = (run_folder / "logs" / "train.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \S", line) for line in lines)
    assert [describe_epoch(report) in line for report, line in zip(reports, lines[2:])] == [True, True]
    assert lines[0].endswith("batch 2 of (16, 16, 16)") and "starting: plan tiny" in lines[0]
    assert lines[-1].endswith("finished") and len(lines) == 5


def test_an_epoch_in_words() -> None:
    line = describe_epoch(_report(2, peak_memory_gb=7.25, peak_host_memory_gb=3.0, validation_loss=None, best=False))
    assert line == (
        "epoch 2/5  loss 0.5000, validation -  pseudo Dice 0.5000 (Leber, größer 0.5000, tumour -)  "
        "learning rate 1.00e-02  3.0 s, 0.5 s waiting for data, 12 s left  memory 7.2 GB  host memory 3.0 GB"
    )
    assert " best  learning rate" in describe_epoch(_report(2))
