"""A cascade of two stages through the commands: what a user types, and what is told when a step is missing."""

import importlib
import json
from pathlib import Path

import pytest


def main(root: Path, name: str, *arguments: str) -> int:
    device = ("--device", "cpu") if name in ("train", "predict") else ()
    words = [*arguments, "-w", str(root), *device]
    status: int = importlib.import_module(f"autoseg.cli.{name}").main(words)
    return status


@pytest.fixture
def two_folds(planned: Path) -> Path:
    """The planned workspace with two folds."""
    path = planned / "plans" / "Phantom" / "splits.json"
    content = json.loads(path.read_text())
    names = sorted({*content["folds"][0]["train"], *content["folds"][0]["validation"]})
    content["folds"] = [
        {"train": names[3:], "validation": names[:3]},
        {"train": names[:3], "validation": names[3:]},
    ]
    path.write_text(json.dumps(content))
    return planned


def test_liver_at_low_resolution_then_both_at_full(two_folds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ("plan", "-d", "Phantom", "--from", "tiny", "--set", "training.epochs=2")
    assert main(two_folds, *plan, "--set", "preprocessing.downsample=2", "--name", "low") == 0
    capsys.readouterr()
    assert main(two_folds, *plan, "--set", "previous_stage=low", "--name", "second") == 0
    assert "next: autoseg_train -d Phantom -a low -f 0   (and its other folds; then second)" in capsys.readouterr().out
    assert main(two_folds, "train", "-d", "Phantom", "-a", "low", "-f", "1") == 0
    capsys.readouterr()

    assert main(two_folds, "train", "-d", "Phantom", "-a", "second", "-f", "0") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "folds [0] of low are not trained to their end; run autoseg_train -d Phantom -a low -f 0" in line
    assert not (two_folds / "results" / "Phantom" / "second").exists()

    assert main(two_folds, "train", "-d", "Phantom", "-a", "low", "-f", "0") == 0
    for _ in range(2):  # the second time everything is there
        assert main(two_folds, "train", "-d", "Phantom", "-a", "second", "-f", "0") == 0
        assert "low has segmented the 6 cases, each by the fold that did not see it" in capsys.readouterr().out
    run = two_folds / "results" / "Phantom" / "second" / "fold_0"
    assert len(list((run / "validation").glob("*.nii.gz"))) == 3
    assert set(json.loads((run / "previous.json").read_text())["networks"]) == {"0", "1"}

    images = next((two_folds / "raw").glob("*/imagesTs"))
    out = two_folds / "out"
    assert main(two_folds, "predict", "-d", "Phantom", "-a", "second", "-i", str(images), "-o", str(out)) == 0
    assert "low, then second (fold 0; weight 1)" in capsys.readouterr().out
    assert json.loads((out / "prediction.json").read_text())["plans"][0]["previous_stage"] == "low"
    assert len(list(out.glob("*.nii.gz"))) == len(list(images.glob("*.nii.gz")))

    assert main(two_folds, "compare", "-d", "Phantom", "-a", "second") == 0
    (alone,) = json.loads((two_folds / "reports" / "Phantom" / "summary.json").read_text())["plans"]
    assert main(two_folds, "compare", "-d", "Phantom") == 0
    summary = json.loads((two_folds / "reports" / "Phantom" / "summary.json").read_text())
    plans = {one["name"]: one["cost"] for one in summary["plans"]}
    own = json.loads((run / "run.json").read_text())["parameters"]
    seconds = [json.loads(text)["seconds"] for text in (run / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert alone["cost"] == plans["second"]
    assert plans["second"]["parameters"] == own + plans["low"]["parameters"]
    assert plans["second"]["training_seconds"] == pytest.approx(sum(seconds) + plans["low"]["training_seconds"])
