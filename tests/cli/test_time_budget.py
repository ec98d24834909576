"""``autoseg_train --time-budget``: the fitted plan is a document, is made once, and is what is trained."""

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autoseg.cli import train
from autoseg.launch import time_budget
from autoseg.plan.time_budget import Costs
from autoseg.train.machine import Machine

NAME = "tiny_1m30s"


def _arguments(root: Path, *more: str) -> list[str]:
    return ["-d", "Phantom", "-a", "tiny", "-f", "0", "--device", "cpu", "-j", "1", "-w", str(root), *more]


def _weights(root: Path) -> dict[str, torch.Tensor]:
    path = root / "results" / "Phantom" / NAME / "fold_0" / "checkpoints" / "last.pt"
    network: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["network"]
    return network


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is measured, by the plans' names: an epoch takes 25 s on this machine, so that three fit into 90 s."""
    names: list[str] = []

    def measure(run: Any, *_: object) -> Costs:
        names.append(run.plan.name)
        return Costs(setup=0.0, epoch=25.0, validation=5.0)

    still = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr(time_budget, "_measure", measure)
    monkeypatch.setattr(time_budget, "time", still)
    monkeypatch.setattr(train, "time", still)
    return names


def test_the_fitted_plan_is_made_once_and_goes_on_bit_for_bit(
    planned: Path, measured: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = planned / "plans" / "Phantom" / f"{NAME}.json"
    assert train.main(_arguments(planned, "--time-budget", "90s")) == 0
    plan, out = json.loads(path.read_text()), capsys.readouterr().out
    assert plan["training"]["epochs"] == 3 and measured == [NAME]
    assert "Fitted to a time budget of 1m30s" in plan["rationale"]["training.epochs"]
    assert plan["rationale"]["training.epochs"] in out and "of the 1 min 30 s" in out
    expected = _weights(planned)

    (planned / "results" / "Phantom" / NAME).rename(planned / "uninterrupted")
    shown = train.TrainingDisplay.show

    def struck(display: Any, event: Any) -> None:
        if getattr(event, "phase", "") == "training" and event.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        shown(display, event)

    with monkeypatch.context() as patch:
        patch.setattr(train.TrainingDisplay, "show", struck)
        assert train.main(_arguments(planned, "--time-budget", "1m30s")) == 130
    capsys.readouterr()
    assert train.main(_arguments(planned, "--time-budget", "90s")) == 0
    out = capsys.readouterr().out
    assert "fitted before" in out and "in earlier starts" in out and measured == [NAME]
    found = _weights(planned)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_another_plan_of_that_name_is_not_taken(
    planned: Path, measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    plans = planned / "plans" / "Phantom"
    content = json.loads((plans / "tiny.json").read_text())
    content["name"], content["training"]["seed"] = NAME, 99
    (plans / f"{NAME}.json").write_text(json.dumps(content))
    assert train.main(_arguments(planned, "--time-budget", "90s")) == 2
    line = capsys.readouterr().err
    assert f"{NAME}.json: is not tiny fitted to that time" in line and len(line.splitlines()) == 1


def test_it_is_measured_and_nothing_else_is_left(planned: Path) -> None:
    from autoseg.data.dataset import find_dataset
    from autoseg.data.workspace import open_workspace

    place = open_workspace(planned)
    machine = Machine(torch.device("cpu"), 1)
    found, began = find_dataset("Phantom", place), time.monotonic()
    plan, known = time_budget.fit_to_time(place, found, "tiny", 0, 3600, machine, started=began)
    assert not known and plan.name == "tiny_1h" and plan.training.epochs > 12
    assert "2 validation cases" in plan.rationale["training.epochs"]
    assert not (planned / "results").exists() and not list(planned.glob(".partial*"))


@pytest.mark.parametrize(("budget", "words"), [("1s", "smallest budget that works is"), ("soon", "is no time")])
def test_what_cannot_be_is_refused_in_one_line(
    planned: Path, capsys: pytest.CaptureFixture[str], budget: str, words: str
) -> None:
    assert train.main(_arguments(planned, "--time-budget", budget)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and words in lines[0]
    assert not (planned / "results").exists() and not list(planned.glob(".partial*"))
    assert [path.stem for path in (planned / "plans" / "Phantom").glob("tiny*.json")] == ["tiny"]


def test_what_a_killed_rehearsal_left_is_removed_and_one_at_work_is_not(planned: Path) -> None:
    from autoseg.data.workspace import open_workspace
    from autoseg.train.exclusion import hold_folder

    place = open_workspace(planned)
    left, at_work = (planned / f"{time_budget.PREFIX}{name}" for name in ("left", "at_work"))
    (left / "0" / "checkpoints").mkdir(parents=True)
    with hold_folder(at_work), time_budget._temporary_folder(place) as folder:
        assert folder.is_dir() and at_work.is_dir() and not left.exists()
        with time_budget._temporary_folder(place):
            assert folder.is_dir()
    assert not folder.exists()
