"""autoseg_tune on the phantom: three tiny trials, two workers, an interruption, mistakes."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
pytest.importorskip("cmaes", reason="the extra 'tune' is not installed")

import optuna  # noqa: E402

from autoseg.cli import train, tune  # noqa: E402

SPACE = {
    "schema": "autoseg.space.1",
    "parameters": {
        "learning_rate_factor": {"low": 0.1, "high": 10.0, "log": True},
        "training.loss.name": {"choices": ["dice_ce", "focal"]},
    },
}


def _arguments(root: Path, *more: str) -> list[str]:
    return ["-d", "Phantom", "-w", str(root), "-a", "tiny", "-j", "1", "--device", "cpu", "--epochs", "2", *more]


def _space(root: Path, content: Any = SPACE) -> str:
    path = root / "space.json"
    path.write_text(json.dumps(content))
    return str(path)


def _trials(root: Path, study: str = "tiny_fold_0") -> list[Any]:
    storage = f"sqlite:///{root / 'tune' / 'Phantom' / study / 'study.db'}"
    return optuna.load_study(study_name=f"Phantom/{study}", storage=storage).trials


def test_three_trials_make_a_report_and_a_plan_that_trains(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = _arguments(planned, "--space", _space(planned), "--trials", "3", "--pruner", "none")
    assert tune.main(words) == 0
    out = capsys.readouterr().out
    assert "3 trials: 3 trained to the end" in out and "the plan's own values" in out and "tune_tiny_fold_0.html" in out
    trials = _trials(planned)
    for trial in trials:
        folder = planned / "tune" / "Phantom" / "tiny_fold_0" / f"trial_{trial.number:04}" / "fold_0"
        records = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]
        dice = [value for value in records[-1]["validation_dice"].values() if value is not None]
        assert len(records) == 2 and trial.value == pytest.approx(sum(dice) / len(dice))
        assert not list(folder.rglob("*.pt"))
    report = planned / "reports" / "Phantom" / "tune_tiny_fold_0.html"
    assert "Parallel coordinates" in report.read_text(encoding="utf-8")
    best = max(trials, key=lambda trial: (trial.value, -trial.number)).number
    assert tune.main([*words[:-4], "--trials", "3", "--take", str(best), "--name", "better"]) == 0
    assert "3 of 3 trials begun" in capsys.readouterr().out and len(_trials(planned)) == 3
    plan = json.loads((planned / "plans" / "Phantom" / "better.json").read_text())
    assert (
        plan["training"]["epochs"] == 12
        and plan["training"]["loss"]["name"] == trials[best].params["training.loss.name"]
    )
    assert "autoseg_tune" in json.dumps(plan["rationale"]) or best == 0
    assert (
        train.main(["-d", "Phantom", "-w", str(planned), "-a", "better", "-f", "1", "-j", "1", "--device", "cpu"]) == 0
    )


def test_a_trial_too_large_or_impossible_is_told_and_the_others_go_on(
    planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "schema": "autoseg.space.1",
        "parameters": {
            "training.batch_size": {"choices": [2, 100_000]},
            "training.patch_size": {"choices": [[16, 16, 16], [0, 16, 16]]},
        },
    }
    words = ["--space", _space(planned, content), "--sampler", "grid", "--trials", "9"]
    assert tune.main(_arguments(planned, *words)) == 0
    out = capsys.readouterr().out
    states = [trial.state.name for trial in _trials(planned)]
    assert len(states) == 4 and states[0] == "COMPLETE" and sorted(states[1:]) == ["FAIL", "FAIL", "PRUNED"]
    assert "1 trained to the end, 1 too large for the memory, 2 failed" in out
    assert "GB to train, and the budget of 8 GB allows" in out and "validation cases" in out
    assert "Nothing better than tiny itself was found" in out
    assert not (planned / "plans" / "Phantom" / "tiny_tuned.json").exists()


def test_two_workers_share_one_sqlite_and_a_killed_one_is_replaced(planned: Path, start: Any) -> None:
    words = ["--space", _space(planned), "--trials", "5", "--pruner", "none", "--study", "shared"]
    first, second = (start("tune", *_arguments(planned, *words)) for _ in range(2))
    database = planned / "tune" / "Phantom" / "shared" / "study.db"
    folder = database.parent
    while not list(folder.glob("trial_*/fold_0/logs/metrics.jsonl")):
        assert first.poll() is None or second.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    told, _ = second.communicate()
    assert second.returncode == 0, told
    assert tune.main(_arguments(planned, *words)) == 0
    trials = _trials(planned, "shared")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5
    assert sum(bool(trial.user_attrs.get("own")) for trial in trials) == 1
    for trial in trials:
        path = folder / f"trial_{trial.number:04}" / "fold_0" / "logs" / "metrics.jsonl"
        assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]


def test_an_interrupted_study_ends_as_an_uninterrupted_one(planned: Path, start: Any) -> None:
    words = ["--space", _space(planned), "--trials", "3", "--pruner", "none", "--study"]
    assert tune.main(_arguments(planned, *words, "whole")) == 0
    process = start("tune", *_arguments(planned, *words, "parts"))
    folder = planned / "tune" / "Phantom" / "parts"
    while not (folder / "trial_0001" / "fold_0" / "logs" / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate()
    assert process.returncode == 130 and "the same command goes on from there" in told
    assert tune.main(_arguments(planned, *words, "parts")) == 0
    whole, parts = ([(t.params, t.value, t.state) for t in _trials(planned, name)] for name in ("whole", "parts"))
    assert parts == whole


def test_the_default_space_is_printed_to_be_edited(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main(_arguments(planned, "--print-space")) == 0
    text = capsys.readouterr().out
    assert "learning_rate_factor" in text
    path = planned / "printed.json"
    path.write_text(text)
    assert tune.main(_arguments(planned, "--space", str(path), "--print-space")) == 0
    assert capsys.readouterr().out == text and not (planned / "tune").exists()


MISTAKES = [
    (["--sampler", "grid"], "learning_rate_factor can be any number"),
    (["--sampler", "nsga2", "--pruner", "median"], "two objectives"),
    (["-f", "9"], "fold"),
    (["--name", "tiny"], "--name tiny"),
    (["--name", "unet"], "--name unet"),
    (["--storage", "nonsense"], "allowed are a URL"),
    (["--study", "../x"], "--study ../x"),
    (["--space", "absent.json"], "no such file"),
    (["--trials", "0", "--take", "3"], "--take 3"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    planned: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    before = (planned / "plans" / "Phantom" / "tiny.json").read_bytes()
    assert tune.main(_arguments(planned, *words)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("error: ")
    assert [path.name for path in (planned / "plans" / "Phantom").glob("tiny*.json")] == ["tiny.json"]
    assert (planned / "plans" / "Phantom" / "tiny.json").read_bytes() == before
