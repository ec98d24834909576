"""Checkpoints: whole or not there, of the right plan, without code; and what is seeded by a plan."""

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.train import state as state_module
from autoseg.train.log import EpochReport, Event
from autoseg.train.state import (
    TrainState,
    build_network,
    load_network,
    make_state,
    read_last,
    read_progress,
    restore_state,
    save_best,
    save_last,
    seeded_epoch,
    training_digest,
    update_best,
)

CPU = torch.device("cpu")
MakePlan = Callable[..., Plan]
Train = Callable[..., Path]
AssertSame = Callable[[Path, Path], None]
Damage = Callable[[Path], object]


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGES: dict[str, Damage] = {
    "truncated": _truncate,
    "garbage": lambda path: path.write_bytes(b"nonsense" * 100),
    "empty": lambda path: path.write_bytes(b""),
    "another document": lambda path: torch.save({"schema": "other.1"}, path),
    "a list": lambda path: torch.save([1, 2], path),
    "a copy of best.pt": lambda path: shutil.copy(path.with_name("best.pt"), path),
}


@pytest.fixture
def plan(make_plan: MakePlan) -> Plan:
    return make_plan()


@pytest.fixture
def state(plan: Plan) -> TrainState:
    return make_state(plan, CPU, scaled=False)


def _save(state: TrainState, plan: Plan, folder: Path, epoch: int) -> None:
    state.epoch = epoch
    save_last(state, folder, training_digest(plan))


def test_the_checkpoint_before_is_kept(state: TrainState, plan: Plan, tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        _save(state, plan, tmp_path, epoch)
    epochs = {path.name: torch.load(path, weights_only=True)["epoch"] for path in tmp_path.iterdir()}
    assert epochs == {"last.pt": 3, "last.previous.pt": 2}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed")])
@pytest.mark.parametrize("save", [save_last, save_best], ids=["last", "best"])
def test_a_full_disk_leaves_the_checkpoints_as_they_were(
    state: TrainState, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, save: Any
) -> None:
    for epoch in (1, 2):
        _save(state, plan, tmp_path, epoch)
    save_best(state, tmp_path, training_digest(plan))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(content: object, path: Path) -> None:
        path.write_bytes(b"the first part")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    state.epoch = 3
    with pytest.raises(TrainingError, match="checkpoint of epoch 3 cannot be written.*kept; make room") as caught:
        save(state, tmp_path, training_digest(plan))
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_systems_own_limit_is_told_too(state: TrainState, plan: Plan, tmp_path: Path) -> None:
    """What torch really raises where a file cannot grow: here because the system forbids large files."""
    _save(state, plan, tmp_path, 1)
    before = (tmp_path / "last.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(TrainingError, match="cannot be written"):
            _save(state, plan, tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"last.pt": before}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    plan: Plan, train: Train, tmp_path: Path, assert_same_training: AssertSame, damage: Damage
) -> None:
    expected = train(plan, run_folder=tmp_path / "uninterrupted")

    def stop(event: Event) -> None:
        if isinstance(event, EpochReport) and event.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, run_folder=tmp_path / "run", on_event=stop)
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    damage(last)
    checkpoint, problems = read_last(last.parent, plan)
    assert checkpoint is not None and checkpoint["epoch"] == 2
    assert len(problems) == 1 and str(last) in problems[0]
    assert_same_training(train(plan, run_folder=tmp_path / "run"), expected)
    log = (tmp_path / "run" / "logs" / "train.log").read_text()
    assert "going on from the checkpoint before it" in log and "going on after epoch 2" in log


def test_a_kill_between_the_two_renamings_loses_nothing_but_the_epoch(
    state: TrainState, plan: Plan, tmp_path: Path
) -> None:
    for epoch in (1, 2):
        _save(state, plan, tmp_path, epoch)
    (tmp_path / "last.pt").rename(tmp_path / "last.new.pt")
    checkpoint, problems = read_last(tmp_path, plan)
    assert checkpoint is not None and checkpoint["epoch"] == 1 and problems == []
    _save(state, plan, tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.previous.pt", "last.pt"]


def test_no_readable_checkpoint(state: TrainState, plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "fold_0" / "checkpoints"
    for epoch in (1, 2):
        _save(state, plan, folder, epoch)
    for path in folder.iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(TrainingError) as caught:
        read_last(folder, plan)
    message = str(caught.value)
    assert "last.pt" in message and "last.previous.pt" in message and "\n" not in message
    assert f"delete {folder.parent} to train from the beginning" in message


def test_no_checkpoint_yet(plan: Plan, tmp_path: Path) -> None:
    assert read_last(tmp_path / "nowhere", plan) == (None, [])


def test_another_plan_is_refused(make_plan: MakePlan, train: Train, run_folder: Path) -> None:
    train(make_plan(epochs=1))
    before = (run_folder / "plan.json").read_text()
    with pytest.raises(TrainingError, match="another plan.*--name, or delete") as caught:
        train(make_plan(epochs=1, seed=8))
    assert "\n" not in str(caught.value)
    assert (run_folder / "plan.json").read_text() == before


def test_another_way_to_predict_is_no_other_training(make_plan: MakePlan, train: Train) -> None:
    plan = make_plan(epochs=1)
    prediction = plan.prediction.model_copy(update={"tile_step": 0.25})
    other = plan.model_copy(update={"prediction": prediction, "rationale": {"a": "b"}})
    assert training_digest(other) == training_digest(plan)
    train(plan)
    train(other)


class _Code:
    """Pickled code: loading it would make a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_code_in_a_checkpoint_is_not_run(plan: Plan, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"schema": state_module.SCHEMA, "network": _Code(trace)}, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match="cannot be read"):
        read_last(tmp_path, plan)
    assert not trace.exists()


@pytest.mark.parametrize("part", [0.0, 0.5, 0.98])
def test_a_checkpoint_cut_short_is_told_plainly(plan: Plan, tmp_path: Path, part: float) -> None:
    torch.save({"schema": state_module.SCHEMA, "network": torch.zeros(1000)}, tmp_path / "last.pt")
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[: int(part * len(content))])
    with pytest.raises(TrainingError, match="cannot be read: it is cut short or damaged") as refused:
        read_last(tmp_path, plan)
    assert "Errno" not in str(refused.value)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_restored_state_is_the_saved_one(plan: Plan, tmp_path: Path, scaled: bool) -> None:
    saved, fresh = (make_state(plan, CPU, scaled=scaled) for _ in range(2))
    for weights in saved.network.parameters():
        weights.grad = torch.ones_like(weights)
    saved.optimizer.step()
    if saved.scaler is not None:
        saved.scaler.load_state_dict(saved.scaler.state_dict() | {"scale": 123.0})
    saved.average_dice, saved.best_dice, saved.history = 0.4, 0.5, [{"epoch": 3, "seconds": 1.0}]
    _save(saved, plan, tmp_path, 3)
    checkpoint, _ = read_last(tmp_path, plan)
    assert checkpoint is not None
    restore_state(fresh, checkpoint)
    assert (fresh.epoch, fresh.average_dice, fresh.best_dice, fresh.history) == (3, 0.4, 0.5, saved.history)
    for one, other in zip(saved.network.parameters(), fresh.network.parameters()):
        assert torch.equal(one, other)
        assert torch.equal(saved.optimizer.state[one]["exp_avg"], fresh.optimizer.state[other]["exp_avg"])
        assert other.stride() == one.stride()
    if fresh.scaler is not None:
        assert fresh.scaler.state_dict()["scale"] == 123.0


def test_a_network_whose_code_has_changed(state: TrainState, plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    _save(state, plan, folder, 1)
    content = torch.load(folder / "last.pt", weights_only=True)
    name = next(iter(content["network"]))
    content["network"]["renamed"] = content["network"].pop(name)
    torch.save(content, folder / "last.pt")
    checkpoint, _ = read_last(folder, plan)
    assert checkpoint is not None
    for load in (
        lambda: restore_state(state, checkpoint),
        lambda: load_network(tmp_path, plan, which="last", device=CPU),
    ):
        with pytest.raises(TrainingError, match="code must have changed") as caught:
            load()
        assert "\n" not in str(caught.value)


def test_a_trained_network_is_loaded_to_predict(plan: Plan, train: Train) -> None:
    run_folder = train(plan)
    assert read_progress(run_folder, plan) == (4, True)
    for which in ("last", "best"):
        network = load_network(run_folder, plan, which=which, device=CPU)
        content = torch.load(run_folder / "checkpoints" / f"{which}.pt", weights_only=True)
        assert not network.training
        assert all(torch.equal(value, content["network"][name]) for name, value in network.state_dict().items())


def test_a_fold_that_is_not_trained(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="best.pt: no such checkpoint.*autoseg_train"):
        load_network(tmp_path, plan, which="best", device=CPU)


def test_the_best_epoch_is_that_of_the_moving_average(state: TrainState) -> None:
    """By hand: 0.5; 0.9 x 0.5 + 0.1 x 0.7 = 0.52; undefined; 0.9 x 0.52 + 0.1 x 0.2 = 0.488; 0.5292."""
    told, averages = [], []
    for dice in (0.5, 0.7, None, 0.2, 0.9):
        told.append(update_best(state, dice))
        averages.append(state.average_dice)
    assert told == [True, True, False, False, True]
    assert averages == pytest.approx([0.5, 0.52, 0.52, 0.488, 0.5292])
    assert state.best_dice == pytest.approx(0.5292)


def test_without_a_dice_the_latest_epoch_is_the_best(state: TrainState) -> None:
    assert [update_best(state, dice) for dice in (None, None, 0.0, None)] == [True, True, True, False]


def test_networks_are_drawn_from_the_seed(make_plan: MakePlan) -> None:
    before = torch.get_rng_state()
    first, again, other = (build_network(make_plan(seed=seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_an_epoch_seeds_what_dropout_draws(state: TrainState) -> None:
    def draw(seed: int, epoch: int) -> torch.Tensor:
        with seeded_epoch(seed, epoch, CPU):
            return torch.nn.functional.dropout(torch.ones(100))

    before = torch.get_rng_state()
    assert torch.equal(draw(1, 3), draw(1, 3))
    assert not torch.equal(draw(1, 3), draw(1, 4))
    assert not torch.equal(draw(1, 3), draw(2, 3))
    with pytest.raises(KeyError), seeded_epoch(1, 1, CPU):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
