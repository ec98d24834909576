"""--logger clearml with the real package, offline: the sessions that it writes are opened and read."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("clearml", reason="the extra 'clearml' is not installed")

from autoseg.cli import compare, run, train, tune  # noqa: E402
from autoseg.documents import parse_document  # noqa: E402
from autoseg.plan.plan import Plan, read_plan  # noqa: E402
from autoseg.train.examples import is_due  # noqa: E402

EPOCHS = 12

Session = tuple[dict[str, Any], list[dict[str, Any]], list[str]]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the sessions that ClearML keeps where there is no server."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    return tmp_path / "home" / ".clearml" / "cache" / "offline"


def _sessions(folder: Path) -> dict[str, Session]:
    """Return by name of the task what is in its zip file: task.json, the reported events, and the names of files."""
    found = {}
    for path in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(path) as session:
            task = json.loads(session.read("task.json"))
            lines = session.read("metrics.jsonl").decode().splitlines()
            events = [event for line in lines for event in json.loads(line)]
            found[task["name"]] = task, events, session.namelist()
    return found


def _curve(session: Session, metric: str, variant: str) -> list[tuple[int, float]]:
    return [
        (event["iter"], event["value"])
        for event in session[1]
        if event["metric"] == metric and event["variant"] == variant and event["type"] == "training_stats_scalar"
    ]


def _parameters(session: Session) -> dict[str, str]:
    return {name: entry["value"] for name, entry in session[0]["hyperparams"]["General"].items()}


def _attached(session: Session) -> list[str]:
    return sorted(artifact["key"] for artifact in session[0]["execution"]["artifacts"])


def test_a_run_is_a_task_with_plan_curves_scores_and_files_and_the_report_another(
    planned: Path, offline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-d", "Phantom", "-w", str(planned), "-a", "tiny", "-f", "0", "--device", "cpu", "-j", "1"]
    assert run.main([*words, "--logger", "clearml"]) == 0
    sessions = _sessions(offline)
    assert sorted(sessions) == ["comparison", "tiny fold 0"]
    task, folder = sessions["tiny fold 0"], planned / "results" / "Phantom" / "tiny" / "fold_0"
    plan = read_plan(planned / "plans" / "Phantom" / "tiny.json")
    assert (task[0]["project_name"], task[0]["type"]) == ("autoseg/Phantom", "training")
    assert parse_document(task[0]["configuration"]["plan"]["value"], Plan, where="ClearML") == plan
    assert json.loads(task[0]["configuration"]["run"]["value"])["schema"] == "autoseg.run.1"
    assert _parameters(task)["training.batch_size"] == "2" and _parameters(task)["network.architecture"] == "unet"
    records = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    curves = {
        ("loss", "training"): [r["train_loss"] for r in records],
        ("loss", "validation"): [r["validation_loss"] for r in records],
        ("dice", "liver"): [r["validation_dice"]["liver"] for r in records],
        ("learning_rate", "learning_rate"): [r["learning_rate"] for r in records],
        ("time", "seconds"): [r["seconds"] for r in records],
        ("memory_gb", "host"): [r["peak_host_memory_gb"] for r in records],
    }
    for key, values in curves.items():
        assert _curve(task, *key) == list(zip(range(1, EPOCHS + 1), map(pytest.approx, values)))
    scores = json.loads((folder / "validation" / "metrics.json").read_text())["mean"]
    single = {event["variant"]: event["value"] for event in task[1] if event["metric"] == "Summary"}
    assert single["dice/liver"] == pytest.approx(scores["liver"]["dice"])
    assert single["surface_dice/tumour"] == pytest.approx(scores["tumour"]["surface_dice"])
    pictures = [name for name in task[2] if "validation patch" in name and name.endswith((".jpeg", ".png"))]
    assert len(pictures) == sum(is_due(epoch, EPOCHS) for epoch in range(1, EPOCHS + 1))
    assert _attached(task) == ["metrics", "progress", "run", "train"]
    report = sessions["comparison"]
    assert _attached(report) == ["cases", "report", "summary"] and report[0]["type"] == "qc"
    assert any(name.endswith("/report.html") for name in report[2])
    assert "tiny" in _parameters(report)["plans"]
    assert "clearml: offline, " in (folder / "logs" / "run.log").read_text()
    assert "clearml: offline, " in capsys.readouterr().out


def test_trials_are_tasks_and_the_search_one_with_its_report(planned: Path, offline: Path) -> None:
    pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
    space = planned / "space.json"
    parameters = {"learning_rate_factor": {"low": 0.1, "high": 10.0, "log": True}}
    space.write_text(json.dumps({"schema": "autoseg.space.1", "parameters": parameters}))
    words = ["-d", "Phantom", "-w", str(planned), "-a", "tiny", "-j", "1", "--device", "cpu", "--epochs", "2"]
    assert tune.main([*words, "--space", str(space), "--trials", "2", "--logger", "clearml"]) == 0
    sessions = _sessions(offline)
    assert sorted(sessions) == ["search tiny_fold_0", "trial 0000", "trial 0001"]
    for number in (0, 1):
        trial = sessions[f"trial {number:04}"]
        assert trial[0]["project_name"] == "autoseg/Phantom/tiny_fold_0"
        assert len(_curve(trial, "loss", "training")) == 2 and "searched.learning_rate_factor" in _parameters(trial)
        plan = parse_document(trial[0]["configuration"]["plan"]["value"], Plan, where="ClearML")
        assert plan.name == f"tiny_trial_{number:04}" and plan.training.epochs == 2
        assert {"trial/dice", "trial/seconds"} <= {event["variant"] for event in trial[1]}
    assert _attached(sessions["search tiny_fold_0"]) == ["tune_tiny_fold_0"]


def test_a_training_that_was_over_is_told_whole_when_it_is_scored_again(planned: Path, offline: Path) -> None:
    words = ["-d", "Phantom", "-w", str(planned), "-a", "tiny", "-f", "0", "--device", "cpu", "-j", "1"]
    assert train.main(words) == 0
    assert not offline.exists()
    assert train.main([*words, "--logger", "clearml"]) == 0
    task = _sessions(offline)["tiny fold 0"]
    assert len(_curve(task, "loss", "training")) == EPOCHS and "plan" in task[0]["configuration"]
    assert _attached(task) == ["metrics", "progress", "run", "train"]


def test_without_a_server_and_credentials_the_training_goes_on(
    planned: Path, offline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CLEARML_OFFLINE_MODE")
    words = ["-d", "Phantom", "-w", str(planned), "-a", "tiny", "-f", "0", "--device", "cpu", "-j", "1"]
    assert train.main([*words, "--logger", "clearml"]) == 0
    out = capsys.readouterr().out
    assert out.count("warning: nothing is told to clearml") == 1 and "MissingConfigError" in out
    assert (planned / "results" / "Phantom" / "tiny" / "fold_0" / "validation" / "metrics.json").is_file()


@pytest.mark.parametrize("command", [train, run, tune, compare], ids=lambda one: one.__name__.rsplit(".", 1)[-1])
def test_a_missing_package_is_told_before_anything_is_done(
    planned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: Any
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ["-d", "Phantom", "-w", str(planned), "-a", "tiny", "--logger", "clearml"]
    assert command.main([*words, "-f", "0"] if command is not compare else words) == 2
    assert "pip install 'autoseg[clearml]'" in capsys.readouterr().err
    assert not (planned / "results").exists()


def test_an_unknown_service_is_refused(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["-d", "Phantom", "-w", str(planned), "-a", "tiny", "-f", "0", "--logger", "wandb"]) == 2
    assert "clearml" in capsys.readouterr().err
