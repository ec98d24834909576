"""Commands answer --help at once, and a user's mistake is one line and exit status 2."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("plan", "train", "predict", "evaluate", "compare", "demo")
HEAVY = ("torch", "monai", "scipy", "SimpleITK", "pydantic", "numpy")


def _main(name: str, *arguments: str) -> int:
    status: int = importlib.import_module(f"autoseg.cli.{name}").main(list(arguments))
    return status


def _refused(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> str:
    """Run a command that must fail; return its only line on standard error."""
    assert _main(name, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    code = (
        f"import sys; from autoseg.cli.{name} import main; status = main(['--help']); "
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]; sys.exit(f'imported {{heavy}}' if heavy else status)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "Usage:" in finished.stdout and "Example" in finished.stdout or name == "demo"


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_option_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--banana" in _refused(capsys, name, "--banana")


def test_unknown_dataset_names_those_that_are_there(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(capsys, "plan", "-d", "Fantom", "-w", str(workspace))
    assert "Fantom" in line and "Phantom" in line


def test_unknown_architecture_names_the_nearest(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(capsys, "plan", "-d", "Phantom", "-a", "atention_unet", "-w", str(workspace))
    assert "did you mean 'attention_unet'" in line
    assert not (workspace / "plans").exists()


def test_missing_workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(capsys, "plan", "-d", "Phantom", "-w", str(tmp_path / "nowhere"))
    assert "nowhere" in line and "-w" in line


def test_variant_needs_a_name(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(capsys, "plan", "-d", "Phantom", "--set", "training.epochs=2", "-w", str(workspace))
    assert "--name" in line


def test_training_before_planning(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(capsys, "train", "-d", "Phantom", "-a", "unet", "-f", "0", "-w", str(workspace))
    assert "autoseg_plan" in line
    assert not (workspace / "results").exists()


def test_comparing_before_training(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = _refused(capsys, "compare", "-d", "Phantom", "-w", str(workspace))
    assert "autoseg_train" in line
    assert not (workspace / "reports").exists()


def test_predicting_before_training(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["-d", "Phantom", "-a", "unet", "-i", str(workspace), "-o", str(out), "-w", str(workspace)]
    assert "autoseg_train" in _refused(capsys, "predict", *arguments)
    assert not out.exists()


def test_unknown_device(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-d", "Phantom", "-a", "unet", "-i", ".", "-o", "out", "--device", "gpu7", "-w", str(workspace)]
    assert "gpu7" in _refused(capsys, "predict", *arguments)
