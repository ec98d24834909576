"""The loop: it learns, repeats itself, goes on bit for bit after an interruption, and says why it cannot go on."""

import errno
import json
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg.data.splits import Fold
from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.preprocess.store import CaseStore
from autoseg.train import device as device_module
from autoseg.train import loop
from autoseg.train.interruption import StopFlag, TrainingInterrupted
from autoseg.train.loader import Batch
from autoseg.train.log import EpochReport, Event, IterationReport, StopReport
from autoseg.train.state import TrainState
from autoseg.train.step import StepOutcome

CPU = torch.device("cpu")
MakePlan = Callable[..., Plan]
Train = Callable[..., Path]
ReadMetrics = Callable[[Path], list[dict[str, Any]]]
AssertSame = Callable[[Path, Path], None]

OPTIMIZERS = {
    "sgd": {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9},
    "adam": {"name": "adam", "learning_rate": 0.005},
    "adamw": {"name": "adamw", "learning_rate": 0.005},
    "rmsprop": {"name": "rmsprop", "learning_rate": 0.001},
}


def _losses(records: list[dict[str, Any]]) -> list[float]:
    return [record[kind] for record in records for kind in ("train_loss", "validation_loss")]


class _Spoiler:
    """An ``on_event`` that strikes once: it calls ``strike`` at the first event that ``where`` is true of."""

    def __init__(self, where: Callable[[Event], bool], strike: Callable[[], None]) -> None:
        self.where, self.strike, self.struck = where, strike, False

    def __call__(self, event: Event) -> None:
        if not self.struck and self.where(event):
            self.struck = True
            self.strike()


class _Bug(Exception):
    pass


def _raise_bug() -> None:
    raise _Bug


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_the_loss_falls(
    make_plan: MakePlan, train: Train, read_metrics: ReadMetrics, optimizer: str, schedule: str
) -> None:
    plan = make_plan(
        optimizer=OPTIMIZERS[optimizer], schedule={"name": schedule, "warmup_iterations": 2}, iterations_per_epoch=6
    )
    records = read_metrics(train(plan))
    assert records[-1]["train_loss"] < records[0]["train_loss"] - 0.1
    assert records[-1]["validation_loss"] < records[0]["validation_loss"]


def test_a_longer_training_finds_the_balls(make_plan: MakePlan, train: Train, read_metrics: ReadMetrics) -> None:
    plan = make_plan(epochs=6, iterations_per_epoch=10, augmentation=())
    last = read_metrics(train(plan))[-1]
    assert last["validation_dice"]["ball"] > 0.7
    assert list(last["validation_dice"]) == ["ball", "core"]


def test_the_same_seed_gives_the_same_training(
    make_plan: MakePlan, train: Train, tmp_path: Path, assert_same_training: AssertSame
) -> None:
    plan = make_plan(epochs=2)
    torch.manual_seed(1)
    first = train(plan, run_folder=tmp_path / "first")
    torch.manual_seed(2)
    assert_same_training(train(plan, run_folder=tmp_path / "second", num_workers=3), first)


def test_another_seed_gives_another_training(
    make_plan: MakePlan, train: Train, tmp_path: Path, read_metrics: ReadMetrics
) -> None:
    runs = [train(make_plan(epochs=1, seed=seed), run_folder=tmp_path / str(seed)) for seed in (1, 2)]
    first, second = (_losses(read_metrics(run)) for run in runs)
    assert first != second


def test_the_callers_settings_are_as_before(make_plan: MakePlan, train: Train) -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), [signal.getsignal(s) for s in (2, 15)]
    threads = threading.active_count()
    train(make_plan(epochs=1))
    after = torch.get_rng_state(), torch.get_num_threads(), [signal.getsignal(s) for s in (2, 15)]
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert threading.active_count() <= threads


def _in_iteration(phase: str, epoch: int, iteration: int) -> Callable[[Event], bool]:
    def where(event: Event) -> bool:
        wanted = (phase, epoch, iteration)
        return isinstance(event, IterationReport) and (event.phase, event.epoch, event.iteration) == wanted

    return where


def _after_epoch(epoch: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, EpochReport) and event.epoch == epoch


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (_in_iteration("training", 1, 2), 0),
        (_in_iteration("training", 3, 1), 2),
        (_in_iteration("validation", 2, 1), 1),
        (_after_epoch(2), 2),
    ],
    ids=["first epoch", "training", "validation", "between epochs"],
)
@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM", "bug"])
def test_interrupted_and_resumed_is_uninterrupted(
    make_plan: MakePlan,
    train: Train,
    tmp_path: Path,
    read_metrics: ReadMetrics,
    assert_same_training: AssertSame,
    where: Callable[[Event], bool],
    kept: int,
    kind: str,
) -> None:
    plan = make_plan(optimizer=OPTIMIZERS["sgd" if kind == "bug" else "adamw"])
    expected = train(plan, run_folder=tmp_path / "uninterrupted")
    if kind == "bug":
        with pytest.raises(_Bug):
            train(plan, on_event=_Spoiler(where, _raise_bug), num_workers=2)
    else:
        spoiler = _Spoiler(where, lambda: signal.raise_signal(signal.Signals[kind]))
        words = f"{kept} finished epochs? (is|are) kept" if kept else "no epoch was finished yet"
        with pytest.raises(TrainingInterrupted, match=f"stopped by {kind}; {words}; the same command"):
            train(plan, on_event=spoiler, num_workers=2)
    run_folder = train(plan, num_workers=2)
    assert_same_training(run_folder, expected)
    assert [record["epoch"] for record in read_metrics(run_folder)] == [1, 2, 3, 4]


def test_interrupted_after_every_epoch(
    make_plan: MakePlan, train: Train, tmp_path: Path, assert_same_training: AssertSame
) -> None:
    plan = make_plan(
        precision="bf16", regions={"all": {"labels": (1, 2), "value": 1}, "core": {"labels": (2,), "value": 2}}
    )
    expected = train(plan, run_folder=tmp_path / "uninterrupted")
    for epoch in range(1, 5):
        with pytest.raises(_Bug):
            train(plan, on_event=_Spoiler(_after_epoch(epoch), _raise_bug))
    assert_same_training(train(plan), expected)


def test_a_second_signal_ends_the_running_iteration(make_plan: MakePlan, train: Train) -> None:
    told: list[Event] = []

    def on_event(event: Event) -> None:
        told.append(event)
        if isinstance(event, IterationReport):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(make_plan(), on_event=on_event)
    assert not isinstance(caught.value, TrainingInterrupted)
    assert [type(event) for event in told] == [IterationReport, StopReport]


def test_a_finished_training_returns_at_once(make_plan: MakePlan, train: Train) -> None:
    run_folder = train(make_plan(epochs=1))
    before = {path: path.stat().st_mtime_ns for path in run_folder.glob("[cl]*/*")}
    told: list[Event] = []
    train(make_plan(epochs=1), on_event=told.append)
    assert told == []
    assert {path: path.stat().st_mtime_ns for path in run_folder.glob("[cl]*/*")} == before


def test_a_second_training_of_the_same_fold_is_refused(
    make_plan: MakePlan, train: Train, tmp_path: Path, assert_same_training: AssertSame
) -> None:
    plan = make_plan(epochs=2)
    expected, told = train(plan, run_folder=tmp_path / "alone"), []

    def start_another(event: Event) -> None:
        with pytest.raises(TrainingError, match="being trained by another process") as caught:
            train(plan)
        told.append(str(caught.value))

    assert_same_training(train(plan, on_event=start_another), expected)
    assert len(told) == 12 and "\n" not in told[0]


def test_a_file_system_without_locks(make_plan: MakePlan, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    assert (train(make_plan(epochs=1)) / "checkpoints" / "last.pt").is_file()


def test_a_training_in_another_thread(make_plan: MakePlan, train: Train) -> None:
    with ThreadPoolExecutor(1) as pool:
        run_folder = pool.submit(train, make_plan(epochs=1)).result()
    assert (run_folder / "checkpoints" / "last.pt").is_file()


def test_events_come_in_order(make_plan: MakePlan, train: Train) -> None:
    told: list[Event] = []
    train(make_plan(epochs=2), on_event=told.append)
    found = [(e.phase, e.epoch, e.iteration) if isinstance(e, IterationReport) else ("epoch", e.epoch, 0) for e in told]
    epochs = [
        [*(("training", n, i) for i in (1, 2, 3)), *(("validation", n, i) for i in (1, 2)), ("epoch", n, 0)]
        for n in (1, 2)
    ]
    assert found == [*epochs[0], *epochs[1]]
    reports = [event for event in told if isinstance(event, EpochReport)]
    assert [report.seconds_left > 0 for report in reports] == [True, False]
    assert all(0 <= report.seconds_waiting <= report.seconds for report in reports)


def test_the_learning_rate_decays_each_iteration(make_plan: MakePlan, train: Train, read_metrics: ReadMetrics) -> None:
    records = read_metrics(train(make_plan(epochs=2)))
    expected = [0.01 * (1 - iteration / 6) ** 0.9 for iteration in (2, 5)]
    assert [record["learning_rate"] for record in records] == pytest.approx(expected)


def test_a_plateau_lowers_the_learning_rate(make_plan: MakePlan, train: Train, read_metrics: ReadMetrics) -> None:
    """A threshold that no epoch passes: after a patience of one epoch each second one drops."""
    schedule = {"name": "plateau", "factor": 0.5, "patience": 0.1, "smoothing": 0.0, "threshold": 1e6, "least": 0.01,
                "warmup_iterations": 0}  # fmt: skip
    records = read_metrics(train(make_plan(epochs=6, schedule=schedule)))
    expected = [0.01 * factor for factor in (1, 1, 1, 0.5, 0.5, 0.25)]
    assert [record["learning_rate"] for record in records] == pytest.approx(expected)


def test_a_loss_that_is_not_finite_at_once(make_plan: MakePlan, train: Train, run_folder: Path) -> None:
    plan = make_plan(optimizer={"name": "sgd", "learning_rate": 1e30}, gradient_clip=None)
    with pytest.raises(TrainingError) as caught:
        train(plan)
    message = str(caught.value)
    assert "epoch 1" in message and "no checkpoint yet" in message and "\n" not in message
    assert "training.optimizer.learning_rate" in message and "1e+30" in message
    assert not (run_folder / "checkpoints").exists()
    assert message in (run_folder / "logs" / "train.log").read_text()


def test_a_loss_that_is_not_finite_later_keeps_the_checkpoint(
    make_plan: MakePlan,
    train: Train,
    tmp_path: Path,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    assert_same_training: AssertSame,
) -> None:
    expected, step = train(make_plan(), run_folder=tmp_path / "uninterrupted"), loop.train_step

    def spoilt(state: TrainState, setup: loop.Setup, batches: Iterable[Batch], iteration: int) -> StepOutcome:
        loss, finite = step(state, setup, batches, iteration)
        return StepOutcome(loss, finite & (state.epoch != 2))

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", spoilt)
        with pytest.raises(TrainingError, match="not finite in iteration 1 of epoch 3.*checkpoint of epoch 2 is kept"):
            train(make_plan())
    assert torch.load(run_folder / "checkpoints" / "last.pt", weights_only=True)["epoch"] == 2
    assert_same_training(train(make_plan()), expected)


def test_the_validation_loss_is_checked_too(make_plan: MakePlan, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(*_: object) -> tuple[float, dict[str, float | None], float, None]:
        return float("inf"), {"ball": None, "core": None}, 0.0, None

    monkeypatch.setattr(loop, "run_validation", infinite)
    with pytest.raises(TrainingError, match="validation loss of epoch 1 is inf"):
        train(make_plan())


def _count_slowly(
    logits: np.ndarray, classes: np.ndarray, members: list[set[int]], overlapping: bool
) -> list[list[int]]:
    """An oracle that looks at one voxel after another."""
    counts = [[0, 0, 0] for _ in members]
    for index in np.ndindex(classes.shape):
        if classes[index] < 0:
            continue
        values = logits[(index[0], slice(None), *index[1:])]
        for region, own in enumerate(members):
            predicted = values[region] > 0 if overlapping else int(values.argmax()) in own
            there = int(classes[index]) in own
            counts[region][0] += predicted and there
            counts[region][1] += predicted and not there
            counts[region][2] += there and not predicted
    return counts


@pytest.mark.parametrize("overlapping", [False, True], ids=["classes", "overlapping regions"])
def test_voxels_are_counted_as_one_by_one(rng: np.random.Generator, overlapping: bool) -> None:
    members = [{1, 2, 3}, {3}, {2, 3}] if overlapping else [{1}, {2}, {3}]
    logits = rng.standard_normal((2, 3 if overlapping else 4, 3, 4, 5)).astype(np.float32)
    classes = rng.integers(-1, 4, (2, 3, 4, 5)).astype(np.int16)
    membership = torch.tensor([[value in own for value in range(4)] for own in members])
    tensors = torch.from_numpy(logits), torch.from_numpy(classes)
    counts = loop.count_voxels(*tensors, membership, overlapping=overlapping)
    expected = _count_slowly(logits, classes, members, overlapping)
    assert counts.tolist() == expected and counts.dtype == torch.int64
    dice = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in expected]
    assert loop.pseudo_dice(counts) == pytest.approx(dice)


def test_pseudo_dice_is_undefined_where_there_is_nothing() -> None:
    assert loop.pseudo_dice(torch.tensor([[0, 0, 0], [0, 2, 1], [3, 2, 1]])) == [None, 0.0, pytest.approx(6 / 9)]


def test_validation_is_the_same_in_every_epoch(make_plan: MakePlan, train: Train, read_metrics: ReadMetrics) -> None:
    """A network that does not change has the same validation loss, and another training loss each epoch."""
    still = {"name": "sgd", "learning_rate": 1e-30, "momentum": 0.0, "weight_decay": 0.0}
    records = read_metrics(train(make_plan(optimizer=still)))
    assert len({record["validation_loss"] for record in records}) == 1
    assert len({json.dumps(record["validation_dice"]) for record in records}) == 1
    assert len({record["train_loss"] for record in records}) == 4


@pytest.mark.parametrize("without", ["cases", "iterations"])
def test_a_fold_without_validation(
    make_plan: MakePlan, train: Train, fold: Fold, read_metrics: ReadMetrics, without: str
) -> None:
    plan = make_plan(epochs=2, validation_iterations=0 if without == "iterations" else 2)
    chosen = fold.model_copy(update={"validation": ()}) if without == "cases" else fold
    told: list[Event] = []
    run_folder = train(plan, fold=chosen, on_event=told.append)
    for record in read_metrics(run_folder):
        assert record["validation_loss"] is None and record["validation_dice"] == {"ball": None, "core": None}
    assert [event.best for event in told if isinstance(event, EpochReport)] == [True, True]
    assert torch.load(run_folder / "checkpoints" / "best.pt", weights_only=True)["epoch"] == 2


@pytest.mark.parametrize("cases", [("case_0", "gone_1", "gone_2"), ()], ids=["missing", "none"])
def test_cases_that_are_not_there(
    make_plan: MakePlan, train: Train, fold: Fold, run_folder: Path, cases: tuple[str, ...]
) -> None:
    with pytest.raises(TrainingError) as caught:
        train(make_plan(), fold=fold.model_copy(update={"train": cases}))
    expected = "2 of 5 cases are not preprocessed, e.g. gone_1; run autoseg_plan" if cases else "no training case"
    assert expected in str(caught.value)
    assert not run_folder.exists()


def test_a_case_that_breaks_while_training(
    make_plan: MakePlan, train: Train, store: CaseStore, tmp_path: Path, run_folder: Path
) -> None:
    """The error of a reading thread ends the training in one line, leaves the checkpoint, and no thread behind."""
    folder = tmp_path / "preprocessed"
    folder.mkdir()
    for path in store.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())

    def spoil() -> None:
        for path in folder.glob("*.b2nd"):
            path.write_bytes(b"nonsense")

    threads = threading.active_count()
    copy = CaseStore(folder)
    loop.CaseCache.limit_bytes, limit = 0, loop.CaseCache.limit_bytes
    try:
        with pytest.raises(TrainingError, match=r"case case_\d.*autoseg_plan"):
            train(make_plan(epochs=50), store=copy, on_event=_Spoiler(_after_epoch(1), spoil), num_workers=3)
    finally:
        loop.CaseCache.limit_bytes = limit
    assert torch.load(run_folder / "checkpoints" / "last.pt", weights_only=True)["epoch"] >= 1
    assert threading.active_count() <= threads


def test_bf16_keeps_the_weights_in_float32(
    make_plan: MakePlan, train: Train, tmp_path: Path, read_metrics: ReadMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_cpu_has_bf16", lambda: True)
    runs = {name: train(make_plan(epochs=2, precision=name), run_folder=tmp_path / name) for name in ("bf16", "fp32")}
    losses = {name: _losses(read_metrics(run)) for name, run in runs.items()}
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], abs=0.1)
    assert json.loads((runs["bf16"] / "run.json").read_text())["precision"] == "bf16"
    checkpoint = torch.load(runs["bf16"] / "checkpoints" / "last.pt", weights_only=True)
    moments = [value for state in checkpoint["optimizer"]["state"].values() for value in state.values()]
    assert {value.dtype for value in [*checkpoint["network"].values(), *moments]} == {torch.float32}


@pytest.mark.parametrize("deep", [True, False], ids=["deep", "finest only"])
def test_deep_supervision_counts_the_coarser_outputs(make_plan: MakePlan, deep: bool) -> None:
    setup = loop.make_setup(make_plan(deep_supervision=deep), CPU, lambda event: None, StopFlag())
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn((2, 3, size, size, size), generator=generator) for size in (16, 8, 4)]
    classes = torch.randint(0, 3, (2, 16, 16, 16), generator=generator, dtype=torch.int16)
    coarser = [logits[0], -logits[1], logits[2]]
    assert torch.equal(setup.loss(logits, classes), setup.loss(coarser, classes)) is not deep


def test_a_training_without_deep_supervision(make_plan: MakePlan, train: Train, read_metrics: ReadMetrics) -> None:
    records = read_metrics(train(make_plan(deep_supervision=False, iterations_per_epoch=6)))
    assert records[-1]["train_loss"] < records[0]["train_loss"] - 0.1


def test_overlapping_regions_are_learned(make_plan: MakePlan, train: Train, read_metrics: ReadMetrics) -> None:
    regions = {"all": {"labels": (1, 2), "value": 1}, "core": {"labels": (2,), "value": 2}}
    records = read_metrics(train(make_plan(regions=regions, epochs=5, iterations_per_epoch=8, augmentation=())))
    assert records[-1]["validation_loss"] < records[0]["validation_loss"] - 0.1
    assert records[-1]["validation_dice"]["all"] > 0.5
