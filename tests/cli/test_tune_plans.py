"""autoseg_tune where more than the training changes: other resolutions, second stages; and other storages."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
pytest.importorskip("cmaes", reason="the extra 'tune' is not installed")

import optuna  # noqa: E402
from optuna.storages import JournalStorage  # noqa: E402
from optuna.storages.journal import JournalFileBackend  # noqa: E402

from autoseg.cli import plan, train, tune  # noqa: E402

Captured = pytest.CaptureFixture[str]


def _space(root: Path, parameters: Any) -> str:
    path = root / "space.json"
    path.write_text(json.dumps({"schema": "autoseg.space.1", "parameters": parameters}))
    return str(path)


def _words(root: Path, name: str, *more: str) -> list[str]:
    return ["-d", "Phantom", "-w", str(root), "-a", name, "-j", "1", "--device", "cpu", "--epochs", "1", *more]


def _read_plan(root: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "plans" / "Phantom" / f"{name}.json").read_text())
    return content


def _trials(root: Path, study: str) -> list[Any]:
    storage = f"sqlite:///{root / 'tune' / 'Phantom' / study / 'study.db'}"
    return optuna.load_study(study_name=f"Phantom/{study}", storage=storage).trials


def test_downsampling_is_searched_by_whole_cases(planned: Path, capsys: Captured) -> None:
    space = _space(planned, {"preprocessing.downsample": {"choices": [1, 2]}})
    words = _words(planned, "tiny", "--space", space, "--sampler", "grid", "--trials", "5")
    assert tune.main([*words, "--take", "1", "--name", "coarse"]) == 0
    out = capsys.readouterr().out
    assert "judged by the Dice of its validation cases" in out and "2 trials: 2 trained to the end" in out
    assert [trial.params["preprocessing.downsample"] for trial in _trials(planned, "tiny_fold_0")] == [1, 2]
    assert len(list((planned / "preprocessed" / "Phantom").glob("*/preprocessing.json"))) == 2
    own, coarse = _read_plan(planned, "tiny"), _read_plan(planned, "coarse")
    assert coarse["preprocessing"]["downsample"] == 2
    spacings = zip(own["preprocessing"]["spacing"], coarse["preprocessing"]["spacing"])
    assert all(second == pytest.approx(2 * first) for first, second in spacings)
    for trial in range(2):
        run = planned / "tune" / "Phantom" / "tiny_fold_0" / f"trial_{trial:04}" / "fold_0"
        assert json.loads((run / "validation" / "metrics.json").read_text())["cases"]


def test_the_second_stage_of_a_cascade_is_searched_once_the_first_is_trained(planned: Path, capsys: Captured) -> None:
    path = planned / "plans" / "Phantom" / "splits.json"
    splits = json.loads(path.read_text())
    names = sorted({*splits["folds"][0]["train"], *splits["folds"][0]["validation"]})
    sides = [{"train": names[3:], "validation": names[:3]}, {"train": names[:3], "validation": names[3:]}]
    path.write_text(json.dumps(splits | {"folds": sides}))
    words = ["-d", "Phantom", "-w", str(planned), "--device", "cpu"]
    for name, change in (("low", "training.epochs=1"), ("second", "previous_stage=low")):
        assert plan.main([*words, "--from", "tiny", "--set", change, "--name", name]) == 0
    space = _space(planned, {"learning_rate_factor": {"choices": [1.0, 0.5]}})
    search = _words(planned, "second", "--space", space, "--trials", "2", "--sampler", "grid")
    capsys.readouterr()
    assert tune.main(search) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "folds [0, 1] of low are not trained to their end; run autoseg_train -d Phantom -a low -f 0" in line
    assert not (planned / "tune").exists()
    for fold in ("0", "1"):
        assert train.main([*words, "-a", "low", "-f", fold, "-j", "1"]) == 0
    assert tune.main([*search, "--take", "1"]) == 0
    assert "2 trials: 2 trained to the end" in capsys.readouterr().out
    for trial in range(2):
        run = planned / "tune" / "Phantom" / "second_fold_0" / f"trial_{trial:04}" / "fold_0"
        assert set(json.loads((run / "previous.json").read_text())["networks"]) == {"0", "1"}
    tuned = _read_plan(planned, "second_tuned")
    assert tuned["previous_stage"] == "low" and tuned["training"]["epochs"] == 12


def test_two_workers_share_a_journal(planned: Path, start: Any) -> None:
    space, journal = _space(planned, {"extra_blocks": {"low": 0, "high": 3}}), planned / "journal.log"
    more = ["--space", space, "--trials", "4", "--sampler", "grid", "--storage", f"journal:{journal}"]
    workers = [start("tune", *_words(planned, "tiny", *more)) for _ in "ab"]
    told = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    storage = JournalStorage(JournalFileBackend(str(journal)))
    trials = optuna.load_study(study_name="Phantom/tiny_fold_0", storage=storage).trials
    assert sorted(trial.params["extra_blocks"] for trial in trials) == [0, 1, 2, 3]
    assert all(trial.state.name == "COMPLETE" for trial in trials)
    assert not (planned / "tune" / "Phantom" / "tiny_fold_0" / "study.db").exists()
