"""A training ended by the system, a signal or a full disk: the same command goes on, and the result is the same."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.cli import train
from autoseg.documents import read_document
from autoseg.plan.plan import Plan
from autoseg.train.state import read_progress

RUN = Path("results") / "Phantom" / "tiny" / "fold_0"


def _arguments(root: Path) -> list[str]:
    return ["-d", "Phantom", "-a", "tiny", "-f", "0", "--device", "cpu", "-j", "2", "-w", str(root)]


class _Process:
    """``autoseg_train`` in a process of its own."""

    def __init__(self, root: Path, start: Any) -> None:
        self.metrics = root / RUN / "logs" / "metrics.jsonl"
        self.process = start("train", *_arguments(root))

    def num_epochs(self) -> int:
        return len(self.metrics.read_text().splitlines()) if self.metrics.is_file() else 0

    def wait_for_epoch(self, epoch: int) -> None:
        while self.num_epochs() < epoch:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.002)

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; return the exit status and what was written to standard error."""
        self.process.send_signal(number)
        _, err = self.process.communicate()
        return self.process.returncode, err


def _train(root: Path) -> None:
    assert train.main(_arguments(root)) == 0


@pytest.fixture(scope="module")
def expected(planned_once: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint and the validation scores of an uninterrupted run."""
    root = tmp_path_factory.mktemp("uninterrupted")
    for name in ("raw", "plans", "preprocessed"):
        (root / name).symlink_to(planned_once / name)
    _train(root)
    return _result(root)


def _result(root: Path) -> dict[str, Any]:
    checkpoint = torch.load(root / RUN / "checkpoints" / "last.pt", weights_only=True)
    metrics = json.loads((root / RUN / "validation" / "metrics.json").read_text())
    return {"network": checkpoint["network"], "optimizer": checkpoint["optimizer"]["state"], "metrics": metrics}


def _tensors(value: Any, where: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{where}.{key}")
    elif isinstance(value, torch.Tensor):
        yield where, value


def _assert_same(root: Path, expected: dict[str, Any]) -> None:
    found = _result(root)
    ours, theirs = dict(_tensors(found)), dict(_tensors(expected))
    assert ours.keys() == theirs.keys() and len(ours) > 20
    assert [where for where in ours if not torch.equal(ours[where], theirs[where])] == []
    assert found["metrics"] == expected["metrics"]
    epochs = [json.loads(line)["epoch"] for line in (root / RUN / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 13))


def test_killed_at_any_moment_and_started_again(planned: Path, start: Any, expected: dict[str, Any]) -> None:
    """SIGKILL twice, each time at a drawn moment of an epoch; what it leaves behind is cleared away."""
    rng = random.Random(5)
    checkpoints = planned / RUN / "checkpoints"
    for epoch in (1, 4):
        running = _Process(planned, start)
        running.wait_for_epoch(epoch)
        started = time.perf_counter()
        running.wait_for_epoch(epoch + 1)
        time.sleep(rng.random() * (time.perf_counter() - started))
        status, _ = running.end(signal.SIGKILL)
        assert status == -signal.SIGKILL
        kept, _ = read_progress(planned / RUN, read_document(planned / RUN / "plan.json", Plan))
        assert epoch <= kept < 12
    partial = checkpoints / ".partial-abc-last.pt"
    partial.write_bytes(b"what a kill while writing leaves")
    _train(planned)
    _assert_same(planned, expected)
    assert not list((planned / RUN).rglob(".partial*"))
    assert sorted(path.name for path in checkpoints.glob("[a-z]*")) == ["best.pt", "last.previous.pt", "last.pt"]


@pytest.mark.parametrize(
    ("number", "damaged"), [(signal.SIGINT, False), (signal.SIGTERM, True)], ids=["SIGINT", "SIGTERM, then damage"]
)
def test_a_signal_ends_it_in_one_line(
    planned: Path,
    start: Any,
    expected: dict[str, Any],
    number: signal.Signals,
    damaged: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    running = _Process(planned, start)
    running.wait_for_epoch(2)
    status, err = running.end(number)
    assert status == 130
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"stopped by {number.name}; ") and "same command goes on" in lines[0]
    assert not list((planned / RUN).rglob(".partial*"))
    last = planned / RUN / "checkpoints" / "last.pt"
    kept, _ = read_progress(planned / RUN, read_document(planned / RUN / "plan.json", Plan))
    if damaged:
        os.truncate(last, last.stat().st_size // 2)
    _train(planned)
    _assert_same(planned, expected)
    told = capsys.readouterr().out
    assert f"going on after epoch {kept - damaged}\n" in told
    assert (f"warning: {last}: the checkpoint cannot be read: it is cut short or damaged" in told) == damaged


def test_a_signal_before_the_first_epoch(planned: Path, start: Any) -> None:
    running = _Process(planned, start)
    while not running.metrics.is_file():
        assert running.process.poll() is None, running.process.communicate()
        time.sleep(0.01)
    status, err = running.end(signal.SIGTERM)
    assert (status, len(err.splitlines())) == (130, 1)


def test_interrupted_while_scoring(
    planned: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from autoseg.launch import fold

    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(fold, "evaluate_folder", interrupted)
        assert train.main(_arguments(planned)) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on from there\n"
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (planned / RUN / "validation" / "metrics.json").exists()
    _train(planned)
    _assert_same(planned, expected)


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_full_disk_is_one_line(
    planned: Path,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    save = torch.save

    def full(content: dict[str, Any], path: Path) -> None:
        if content["epoch"] == 3 and ("optimizer" in content) == (name == "last.pt"):
            path.write_bytes(b"the first part")
            raise OSError(28, "No space left on device")
        save(content, path)

    def always_best(*_: object) -> bool:
        return True

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        patch.setattr("autoseg.train.loop.update_best", always_best)
        assert train.main(_arguments(planned)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "epoch 3 cannot be written" in lines[0] and "make room" in lines[0]
    assert torch.load(planned / RUN / "checkpoints" / "last.pt", weights_only=True)["epoch"] == 2
    assert not list((planned / RUN).rglob(".partial*"))


def test_a_disk_that_is_really_full(planned: Path, start: Any, expected: dict[str, Any]) -> None:
    """The system lets no file of the process grow beyond a few pages; afterwards it goes on."""

    process = start("train", *_arguments(planned), largest_file=20_000)
    _, err = process.communicate()
    assert process.returncode == 2, err
    lines = err.splitlines()
    assert len(lines) == 1 and "cannot be written" in lines[0] and "make room" in lines[0]
    assert not list((planned / RUN).rglob(".partial*"))
    _train(planned)
    _assert_same(planned, expected)


@pytest.fixture
def small_disk(planned: Path) -> Iterator[Path]:
    """The results folder, on a disk in memory of 32 MB."""
    folder = planned / "results"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_small_disk_that_fills_up_meanwhile(
    planned: Path, start: Any, expected: dict[str, Any], small_disk: Path
) -> None:
    running = _Process(planned, start)
    running.wait_for_epoch(2)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    _, err = running.process.communicate()
    assert running.process.returncode == 2, err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "cannot be written" in lines[0] and "make room" in lines[0]
    assert 2 <= torch.load(planned / RUN / "checkpoints" / "last.pt", weights_only=True)["epoch"] < 12
    ballast.unlink()
    _train(planned)
    _assert_same(planned, expected)
