"""The shell completes what stands in the workspace, and it does not wait for PyTorch."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.cli import _completion
from autoseg.plan.recipe import find_recipe

HEAVY = ("torch", "monai", "scipy", "SimpleITK", "numpy")  # pydantic is typer's own way to read a command line


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with two datasets, of which one has plans, and a third where nnU-Net keeps its own."""
    for folder in ("raw/Dataset004_Hippocampus", "raw/Lits", "nnunet/Dataset027_ACDC", "plans/Hippocampus"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("unet", "unet_short", "splits", "fingerprint", "problems", "dataset_fingerprint"):
        (tmp_path / "plans" / "Hippocampus" / f"{name}.json").write_text("{}")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnunet"))
    monkeypatch.setenv("AUTOSEG_WORKSPACE", str(tmp_path))
    return tmp_path


def _complete(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str = "bash"
) -> list[str]:
    """Return what the shell is offered for the last, perhaps empty, word of a command line."""
    words = line.split(" ")
    monkeypatch.setenv(f"_{words[0].upper()}_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"autoseg.cli.{words[0].removeprefix('autoseg_')}").main([])
    assert ended.value.code == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("autoseg_train -d ", ["ACDC", "Hippocampus", "Lits"]),
        ("autoseg_train -d H", ["Hippocampus"]),
        ("autoseg_evaluate -d Dataset0", ["Dataset004_Hippocampus", "Dataset027_ACDC"]),
        ("autoseg_train -d Hippocampus -a ", ["unet", "unet_short"]),
        ("autoseg_train -d 4 -a unet_", ["unet_short"]),
        ("autoseg_predict -d raw/Dataset004_Hippocampus -a unet_", ["unet_short"]),
        ("autoseg_compare --baseline ", ["unet", "unet_short"]),
        ("autoseg_plan --diff unet unet_", ["unet_short"]),
        ("autoseg_train -d Lits -a ", []),
        ("autoseg_train -w nowhere -d ", []),
        ("autoseg_plan -a unet", ["unet", "unetr"]),
        ("autoseg_run -d 4 -a unet", ["unet", "unet_short", "unetr"]),
        ("autoseg_run --table ", ["downsampling", "losses", "models", "optimizers", "schedules"]),
        ("autoseg_train --aug", ["--augment-device"]),
    ],
)
def test_completes(
    line: str,
    expected: list[str],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _complete(line, monkeypatch, capsys) == expected


def test_completes_in_zsh(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert '"Lits"' in " ".join(_complete("autoseg_train -d L", monkeypatch, capsys, shell="zsh"))


def test_offers_only_recipes_that_can_be_planned() -> None:
    names = [name for name in _completion._recipes() if name != "all"]
    assert len(names) > 10
    assert [find_recipe(name).name for name in names] == names


def test_completion_imports_nothing_heavy(place: Path) -> None:
    line = {"_AUTOSEG_PLAN_COMPLETE": "complete_bash", "COMP_WORDS": "autoseg_plan -a une", "COMP_CWORD": "2"}
    code = (
        "import sys; from autoseg.cli.plan import main\ntry: main([])\n"
        f"finally: print([module for module in {HEAVY!r} if module in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | line)
    assert (ended.returncode, ended.stdout.split()) == (0, ["unet", "unetr", "[]"]), ended.stderr


def test_installs_the_completion_of_all_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from autoseg.cli.train import main

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("typer._completion_shared._get_shell_name", lambda: "bash")
    assert main(["--install-completion"]) == 0
    assert f"completion of {len(_completion.COMMANDS)} commands for bash" in capsys.readouterr().out
    sourced = (tmp_path / ".bashrc").read_text()
    assert all(f"autoseg_{name}.sh" in sourced for name in _completion.COMMANDS)
    script = (tmp_path / ".bash_completions" / "autoseg_tune.sh").read_text()
    assert "_AUTOSEG_TUNE_COMPLETE" in script
