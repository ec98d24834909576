"""Several processes that train together do what one would, stop together, and never wait for one that is gone."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.compare.serve import free_port
from autoseg.data.splits import Fold
from autoseg.documents import write_document
from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.preprocess.store import CaseStore
from autoseg.train.loop import train_fold
from autoseg.train.machine import Machine
from autoseg.train.processes import Processes, _explain_loss, place_process

MakePlan = Callable[..., Plan]
Launch = Callable[..., Any]
ReadMetrics = Callable[[Path], list[dict[str, Any]]]
SGD = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
"""Adam divides by the gradient's size, which makes differences of rounding large."""

LOSS = {"name": "dice_ce", "batch_dice": True, "smooth": 1e-5, "weight_dice": 1.0, "weight_ce": 1.0}

SCRIPT = Path(__file__).parent / "two.py"


def _torchrun(count: int, order: dict[str, Any]) -> int:
    """Start processes as a user does; it takes long, since each imports PyTorch."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", str(SCRIPT), json.dumps(order)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=300, check=False)
    print(done.stderr[-3000:])
    return done.returncode


def _fork(forks: ForkServerContext, count: int, order: dict[str, Any]) -> int:
    """Start processes quickly, with the environment that torchrun gives them."""
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port(0))}
    processes = []
    for rank in map(str, range(count)):
        given = {**shared, "RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": "test"}
        told = {"ORDER": order, "ENVIRONMENT": given}
        processes.append(forks.Process(target=runpy.run_path, args=(str(SCRIPT), told, "__main__")))
        processes[-1].start()
    for process in processes:
        process.join(300)
        process.kill()
    return max(abs(process.exitcode or 0) for process in processes)


@pytest.fixture
def launch(store: CaseStore, fold: Fold, tmp_path: Path, forks: ForkServerContext) -> Launch:
    """Trains a plan with so many Gloo processes, and returns the exit status and each process's last words."""

    def launch(
        plan: Plan, run_folder: Path, *, count: int = 2, torchrun: bool = False, **order: Any
    ) -> tuple[int, list[str]]:
        words = tmp_path / "words"
        words.mkdir(exist_ok=True)
        for old in words.iterdir():
            old.unlink()
        write_document(tmp_path / "plan.json", plan)
        sides = {"train": fold.train, "validation": fold.validation}
        order |= {"plan": str(tmp_path / "plan.json"), "run_folder": str(run_folder), "words": str(words)}
        order |= {"store": str(store.folder), "fold": sides}
        status = _torchrun(count, order) if torchrun else _fork(forks, count, order)
        files = [words / f"{rank}.txt" for rank in range(count)]
        return status, [file.read_text(encoding="utf-8") if file.exists() else "gone" for file in files]

    return launch


def _weights(run_folder: Path, key: str = "network") -> torch.Tensor:
    checkpoint = torch.load(run_folder / "checkpoints" / "last.pt", weights_only=True)
    return torch.cat([weights.flatten() for weights in checkpoint[key].values()])


@pytest.fixture
def alone(store: CaseStore, fold: Fold) -> Callable[[Plan, Path], None]:
    """Trains a plan with one process."""

    def alone(plan: Plan, run_folder: Path) -> None:
        train_fold(plan, store, fold, run_folder, Machine(torch.device("cpu"), 1))

    return alone


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 3, "loss": LOSS, "class_weights": {"core": 3.0}},
        {"gradient_accumulation": 2, "ema_decay": 0.9, "on_nan": "skip"},
    ],
    ids=["uneven batch dice", "accumulated, averaged"],
)
def test_two_processes_train_what_one_does(
    make_plan: MakePlan,
    launch: Launch,
    alone: Callable[[Plan, Path], None],
    tmp_path: Path,
    read_metrics: ReadMetrics,
    settings: dict[str, Any],
) -> None:
    plan = make_plan(epochs=2, optimizer=SGD, **settings)
    once_as_a_user = "batch_size" in settings
    assert launch(plan, tmp_path / "two", torchrun=once_as_a_user) == (0, ["", ""])
    alone(plan, tmp_path / "one")
    for key in ("network", "trained")[: 1 + ("ema_decay" in settings)]:
        one, two = (_weights(tmp_path / name, key) for name in ("one", "two"))
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
    for record, other in zip(*(read_metrics(tmp_path / name) for name in ("one", "two")), strict=True):
        for name in ("train_loss", "validation_loss"):
            assert other[name] == pytest.approx(record[name], rel=1e-4)
        assert other["validation_dice"] == pytest.approx(record["validation_dice"], abs=1e-3)


def test_a_training_goes_on_with_another_number_of_processes(
    make_plan: MakePlan, launch: Launch, alone: Callable[[Plan, Path], None], tmp_path: Path
) -> None:
    plan = make_plan(epochs=3, optimizer=SGD)
    alone(plan, tmp_path / "one")
    mixed = tmp_path / "mixed"
    strike = {"kind": "signal", "rank": 0}
    assert launch(plan, mixed, strike=strike | {"where": ["training", 2, 1]})[0] != 0
    assert launch(plan, mixed, count=1, strike=strike | {"where": ["training", 3, 1]})[0] != 0
    assert torch.load(mixed / "checkpoints" / "last.pt", weights_only=True)["epoch"] == 2
    assert launch(plan, mixed) == (0, ["", ""])
    torch.testing.assert_close(_weights(mixed), _weights(tmp_path / "one"), rtol=1e-4, atol=1e-5)


def test_two_processes_start_from_the_same_weights(
    make_plan: MakePlan, launch: Launch, alone: Callable[[Plan, Path], None], tmp_path: Path
) -> None:
    """At a learning rate that moves nothing they end with the weights they began with."""
    source, run = tmp_path / "plan" / "fold_0", tmp_path / "run"
    alone(make_plan(epochs=2), source)
    still = make_plan(epochs=1, optimizer={"name": "adamw", "learning_rate": 1e-30}, ema_decay=0.9, seed=8)
    assert launch(still, run, initial=str(source)) == (0, ["", ""])
    for key in ("network", "trained"):
        assert torch.equal(_weights(run, key), _weights(source))
    assert json.loads((run / "initial.json").read_text())["checkpoint"] == "plan/fold_0/checkpoints/last.pt"


def test_two_processes_repeat_themselves_and_all_refuse_another_plan(
    make_plan: MakePlan, launch: Launch, tmp_path: Path
) -> None:
    plan = make_plan(epochs=2)
    for name in ("first", "second"):
        assert launch(plan, tmp_path / name) == (0, ["", ""])
    assert torch.equal(_weights(tmp_path / "first"), _weights(tmp_path / "second"))
    other = plan.model_copy(update={"training": plan.training.model_copy(update={"seed": 8})})
    status, words = launch(other, tmp_path / "second")
    assert status != 0
    assert all("trained with another plan" in word for word in words)


def test_a_signal_to_one_process_stops_all(make_plan: MakePlan, launch: Launch, tmp_path: Path) -> None:
    strike = {"kind": "signal", "rank": 1, "where": ["training", 2, 1]}
    status, words = launch(make_plan(epochs=3), tmp_path / "run", strike=strike)
    assert status != 0
    assert [word.split(";")[0] for word in words] == [
        "TrainingInterrupted: stopped by another process",
        "TrainingInterrupted: stopped by SIGTERM",
    ]
    assert all("1 finished epoch is kept" in word for word in words)


def test_a_process_that_dies_ends_the_others(make_plan: MakePlan, launch: Launch, tmp_path: Path) -> None:
    strike = {"kind": "end", "rank": 1, "where": ["training", 2, 1]}
    status, words = launch(make_plan(epochs=3), tmp_path / "run", strike=strike)
    assert status != 0
    assert words[0].startswith("TrainingError: process 0 of 2 lost the others") and words[1] == "gone"
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["epoch"] == 1


def test_the_loss_of_the_others_is_told_and_a_bug_is_not_hidden() -> None:
    second = Processes(rank=1, count=2)
    told = "process 1 of 2 lost the others .*Connection closed"
    with pytest.raises(TrainingError, match=told), _explain_loss(second):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match="a bug"), _explain_loss(second):
        raise RuntimeError("a bug")


@pytest.mark.parametrize("rank", [0, 1])
def test_too_many_processes_for_a_batch(rank: int) -> None:
    with pytest.raises(TrainingError, match="batch_size is 1, so 2 processes cannot have a sample each"):
        Processes(rank=rank, count=2).share_batch(1)


@pytest.mark.parametrize(("count", "size"), [(2, 3), (3, 8), (4, 4)])
def test_shares_are_even_and_whole(count: int, size: int) -> None:
    shares = [Processes(rank=rank, count=count).share_batch(size) for rank in range(count)]
    owned = [share.own for share in shares if share is not None]
    assert [sample for own in owned for sample in own] == list(range(size))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert place_process(cuda, Processes(rank=5, local_rank=1, count=6)) == torch.device("cuda", 1)
    assert place_process(cpu, Processes(rank=1, local_rank=1, count=2)) == cpu
    assert place_process(cuda, Processes()) == cuda
    with pytest.raises(TrainingError, match="process 3 on a machine with 2 GPUs"):
        place_process(cuda, Processes(rank=2, local_rank=2, count=3))
