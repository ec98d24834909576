"""The logs of a training: a line an epoch, the same after a resume, and loggers that can end no training."""

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoseg.plan.plan import Plan
from autoseg.train import log as log_module
from autoseg.train.log import (
    RECORDED,
    Beginning,
    EpochReport,
    Event,
    Logger,
    TrainingLog,
    describe_epoch,
    make_record,
)

MakePlan = Callable[..., Plan]
Train = Callable[..., Path]
ReadMetrics = Callable[[Path], list[dict[str, Any]]]
MakeReport = Callable[..., EpochReport]


class Spy:
    """A logger that remembers what it was told, in which thread, and raises at what it is told to."""

    name = "spy"

    def __init__(self, fail_at: str = "", error: Exception | None = None) -> None:
        self.told: list[Any] = []
        self.threads: set[str] = set()
        self._fail_at, self._error = fail_at, error or RuntimeError("the service\nis gone")

    def _tell(self, what: str, value: Any = None) -> None:
        self.threads.add(threading.current_thread().name)
        if what == self._fail_at:
            raise self._error
        self.told.append(value if value is not None else what)

    def begin(self, beginning: Beginning) -> None:
        self._tell("begin", len(beginning.history))

    def add_epoch(self, report: EpochReport) -> None:
        self._tell("add_epoch", f"epoch {report.epoch}")

    def rest(self) -> None:
        if self._fail_at == "rest":
            self._tell("rest")

    def end(self) -> None:
        self._tell("end")


OpenLog = Callable[..., TrainingLog]


@pytest.fixture
def open_log(begin: Callable[..., Beginning], tmp_path: Path) -> OpenLog:
    """Opens the log of a run that goes on after the epochs of ``history``."""

    def open_it(history: list[dict[str, Any]], *loggers: Logger) -> TrainingLog:
        return TrainingLog(begin(tmp_path, history), loggers)

    return open_it


def test_one_line_of_metrics_an_epoch(
    tmp_path: Path, read_metrics: ReadMetrics, open_log: OpenLog, report: MakeReport
) -> None:
    log = open_log([])
    for epoch in (1, 2, 3):
        log.write_epoch(report(epoch))
        assert read_metrics(tmp_path) == [make_record(report(number)) for number in range(1, epoch + 1)]
    log.close()
    assert list(read_metrics(tmp_path)[0]) == list(RECORDED)
    assert "größer" in (tmp_path / "logs" / "metrics.jsonl").read_text(encoding="utf-8")


def test_a_resumed_log_ends_with_the_checkpoint(
    tmp_path: Path, read_metrics: ReadMetrics, open_log: OpenLog, report: MakeReport
) -> None:
    """Epoch 3 was logged, but the training was killed before its checkpoint stood: it is done and logged again."""
    log = open_log([])
    for epoch in (1, 2, 3):
        log.write_epoch(report(epoch))
    with (tmp_path / "logs" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_l')
    again = open_log([make_record(report(1)), make_record(report(2))])
    assert [record["epoch"] for record in read_metrics(tmp_path)] == [1, 2]
    again.write_epoch(report(3, train_loss=7.0))
    again.close()
    assert [record["train_loss"] for record in read_metrics(tmp_path)] == [1.0, 0.5, 7.0]


def test_loggers_are_told_in_order_in_threads_of_their_own(open_log: OpenLog, report: MakeReport) -> None:
    one, other = Spy(), Spy()
    log = open_log([make_record(report(1))], one, other)
    for epoch in (2, 3):
        log.write_epoch(report(epoch))
    log.close()
    assert one.told == other.told == [1, "epoch 2", "epoch 3", "end"]
    assert threading.current_thread().name not in one.threads | other.threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("autoseg ")]


@pytest.mark.parametrize("where", ["begin", "add_epoch", "rest", "end"])
def test_a_logger_that_raises_is_told_once_and_ends_nothing(
    make_plan: MakePlan, train: Train, read_metrics: ReadMetrics, where: str
) -> None:
    broken, fine = Spy(where), Spy()
    run_folder = train(make_plan(epochs=3), loggers=(broken, fine))
    assert len(read_metrics(run_folder)) == 3
    lines = (run_folder / "logs" / "train.log").read_text().splitlines()
    complaints = [line for line in lines if "no spy from here on: RuntimeError: the service is gone" in line]
    assert len(complaints) == 1 and "finished" in "".join(lines)
    assert fine.told == [0, "epoch 1", "epoch 2", "epoch 3", "end"]
    assert (run_folder / "progress.png").is_file() and list((run_folder / "events").iterdir())


def test_a_logger_that_hangs_is_not_waited_for(
    open_log: OpenLog, report: MakeReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "PATIENCE_SECONDS", 0.2)
    free = threading.Event()

    class Hanging(Spy):
        def add_epoch(self, report: EpochReport) -> None:
            free.wait()

    fine = Spy()
    log = open_log([], Hanging(), fine)
    log.write_epoch(report(1))
    log.close()
    assert "spy: not ready after 0 s; the rest is left out" in (tmp_path / "logs" / "train.log").read_text()
    assert fine.told == [0, "epoch 1", "end"]
    free.set()


@pytest.mark.parametrize(
    "what", ["torch.utils.tensorboard.SummaryWriter.add_scalar", "autoseg.train.progress.draw_charts"]
)
def test_neither_tensorboard_nor_the_picture_ends_a_training(
    make_plan: MakePlan, train: Train, read_metrics: ReadMetrics, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(what, full)
    run_folder = train(make_plan(epochs=3))
    assert len(read_metrics(run_folder)) == 3
    lines = (run_folder / "logs" / "train.log").read_text().splitlines()
    assert len([line for line in lines if "from here on" in line and "No space left" in line]) == 1


def test_a_training_writes_its_logs(make_plan: MakePlan, train: Train, read_metrics: ReadMetrics) -> None:
    told: list[Event] = []
    run_folder = train(make_plan(epochs=2), on_event=told.append)
    reports = [event for event in told if isinstance(event, EpochReport)]
    records = read_metrics(run_folder)
    assert records == [json.loads(json.dumps(make_record(report))) for report in reports]
    lines = (run_folder / "logs" / "train.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \S", line) for line in lines)
    assert [describe_epoch(report) in line for report, line in zip(reports, lines[2:])] == [True, True]
    assert lines[0].endswith("batch 2 of (16, 16, 16)") and "starting: plan tiny" in lines[0]
    assert lines[-1].endswith("finished") and len(lines) == 5


def test_an_epoch_in_words(report: MakeReport) -> None:
    line = describe_epoch(report(2, peak_memory_gb=7.25, peak_host_memory_gb=3.0, validation_loss=None, best=False))
    assert line == (
        "epoch 2/5  loss 0.5000, validation -  pseudo Dice 0.5000 (Leber, größer 0.5000, tumour -)  "
        "learning rate 1.00e-02  3.0 s, 0.5 s waiting for data, 12 s left  memory 7.2 GB  host memory 3.0 GB"
    )
    assert " best  learning rate" in describe_epoch(report(2))
