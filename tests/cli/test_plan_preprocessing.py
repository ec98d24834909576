"""autoseg_plan's preprocessing: its pictures, doing it again, cases that fail, and being killed."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import autoseg.preprocess.run as run_module
from autoseg.cli import plan
from autoseg.preprocess.preview import COLOURS

Captured = pytest.CaptureFixture[str]
MOMENTS = 5


def _files(root: Path) -> dict[str, bytes]:
    """Return the content of the finished files of preprocessed cases; half-written ones belong to killed runs."""
    folder = root / "preprocessed" / "Phantom"
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if ".partial-" not in name}


def test_both_pictures_are_drawn(planned: Path, capsys: Captured) -> None:
    arguments = ["-d", "Phantom", "-w", str(planned), "--from", "tiny", "--set", "training.seed=7", "--name", "seven"]
    assert plan.main([*arguments, "--preview", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    for kind in ("preprocessing", "augmentation"):
        path = planned / "plans" / "Phantom" / f"seven.{kind}.png"
        assert f"wrote {path}" in shown.replace("\n", "")
        pixels = np.asarray(Image.open(path))
        assert all((pixels == colour).all(axis=-1).any() for colour in COLOURS[:2])  # liver and tumour
    assert "on cpu: " in shown and "each" in shown


def test_force_makes_the_cases_again(planned: Path) -> None:
    arguments = ["-d", "Phantom", "-w", str(planned), "--from", "tiny", "--set", "training.seed=7", "--name", "seven"]
    before = _files(planned)
    image = next((planned / "preprocessed").rglob("phantom_001.b2nd"))
    image.write_bytes(b"damaged")
    assert plan.main(arguments) == 0 and image.read_bytes() == b"damaged"
    assert plan.main([*arguments, "--force"]) == 0 and _files(planned) == before


def test_a_case_that_fails_is_told_and_the_others_are_made(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    original = run_module.preprocess_case

    def preprocess(case: object, *arguments: object, **options: object) -> object:
        if case.name == "phantom_002":
            raise MemoryError
        return original(case, *arguments, **options)

    monkeypatch.setattr(run_module, "preprocess_case", preprocess)
    arguments = ["-d", "Phantom", "-w", str(workspace), "-a", "unet"]
    assert plan.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and shown.err.startswith("error: case phantom_002: out of memory")
    assert "5 of 6 cases" in shown.out and "next: autoseg_plan" in shown.out
    monkeypatch.undo()
    assert plan.main(arguments) == 0 and "next: autoseg_train" in capsys.readouterr().out


def test_killed_at_any_moment_the_next_call_makes_the_same_files(planned: Path, start: Any) -> None:
    """The process is killed when a random number of files has appeared, and a random moment later."""
    expected, moments = _files(planned), random.Random(0)
    arguments = ["-d", "Phantom", "-w", str(planned), "--from", "tiny", "--name", "seven", "-j", "2"]
    folder, killed = next(planned.glob("preprocessed/Phantom/*")), 0
    for _ in range(MOMENTS):
        for path in folder.iterdir():
            path.unlink()
        wanted = moments.randrange(1, 22)
        process = start("plan", *arguments, "--set", "training.seed=7", "--force")
        while process.poll() is None and len(list(folder.iterdir())) < wanted:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.005))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert plan.main([*arguments, "--set", "training.seed=7"]) == 0
        assert _files(planned) == expected
    assert killed >= MOMENTS // 2
