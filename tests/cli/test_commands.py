"""Commands answer --help at once, and a user's mistake is one line and exit status 2."""

import errno
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import typer

from autoseg import __version__
from autoseg.cli._command import make_app
from autoseg.cli._completion import COMMANDS

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
    assert "Usage:" in finished.stdout and "Example" in finished.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_can_be_typed(name: str) -> None:
    command = getattr(importlib.import_module(f"autoseg.cli.{name}"), name)
    examples = re.findall(r"Example: (autoseg_.*)", inspect.getdoc(command) or "")
    assert examples
    for program, *arguments in map(shlex.split, examples):
        assert program == f"autoseg_{name}"
        typer.main.get_command(make_app(command)).make_context(program, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(name, "--version") == 0
    assert capsys.readouterr().out == f"autoseg {__version__}\n"


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


@pytest.mark.parametrize("below", ["", "folder"])
def test_predicting_into_a_file(workspace: Path, capsys: pytest.CaptureFixture[str], below: str) -> None:
    file = workspace / "file"
    file.write_text("")
    arguments = ["-d", "Phantom", "-a", "unet", "-i", str(workspace), "-o", str(file / below), "-w", str(workspace)]
    assert f"{file} is a file" in _refused(capsys, "predict", *arguments)


def test_unknown_device(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-d", "Phantom", "-a", "unet", "-i", ".", "-o", "out", "--device", "gpu7", "-w", str(workspace)]
    assert "gpu7" in _refused(capsys, "predict", *arguments)


def _plan(workspace: Path, *more: str) -> list[str]:
    return ["-d", "Phantom", "-w", str(workspace), *more]


@pytest.mark.parametrize(
    ("settings", "name", "words"),
    [
        ("training.epoch=2", "new", "did you mean 'epochs'?"),
        ("trainig.epochs=2", "new", "did you mean 'training'?"),
        ("training.epochs=two", "new", "training.epochs"),
        ("training.epochs=0", "new", "training.epochs"),
        ("training.loss.name=dise", "new", "dice"),
        ("training.patch_size=[17,32,32]", "new", "nearest are 16 and"),
        ("training.epochs=2", "../new", "name"),
        ("training.epochs=2", "splits", "reserved"),
        ("training.epochs=2", "tiny", "own name"),
        ("training.epochs=2", "nnunet", "--name nnunet"),
    ],
)
def test_mistakes_in_a_variant(
    planned: Path, capsys: pytest.CaptureFixture[str], settings: str, name: str, words: str
) -> None:
    capsys.readouterr()
    before = sorted(planned.rglob("*"))
    line = _refused(capsys, "plan", *_plan(planned, "--from", "tiny", "--set", settings, "--name", name))
    assert words in line
    assert sorted(planned.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "tiny", "-a", "unet", "--set", "training.epochs=2", "--name", "new"], "leave -a out"),
        (["--from", "tiny", "--name", "new"], "--set"),
        (["--set", "training.epochs=2", "--name", "unet"], "--name unet"),
        (["--memory", "much"], "--memory"),
        (["--memory", "-1"], "--memory"),
        (["-a", "unet", "-a", "no_such_package.net"], "PYTHONPATH"),
    ],
)
def test_mistakes_in_planning(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in _refused(capsys, "plan", *_plan(workspace, *arguments))
    assert [path.name for path in workspace.iterdir()] == ["raw"]


def _write_like(path: Path, shape: tuple[int, ...]) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones(shape, np.uint8)), str(path))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda raw: _write_like(raw / "labelsTr" / "phantom_002.nii.gz", (9, 9, 9)), ["phantom_002"]),
        (lambda raw: (raw / "imagesTr" / "phantom_002_0000.nii.gz").unlink(), ["phantom_002", "no image"]),
        (lambda raw: (raw / "labelsTr" / "phantom_002.nii.gz").unlink(), ["phantom_002", "no label"]),
        (lambda raw: (raw / "imagesTr" / "phantom_002_0000.nii.gz").write_bytes(b"no image"), ["phantom_002_0000"]),
        (lambda raw: (raw / "labelsTr" / "phantom_002.nii.gz").write_bytes(b""), ["labelsTr", "phantom_002"]),
        (lambda raw: (raw / "dataset.json").write_text("{"), ["dataset.json"]),
        (lambda raw: (raw / "dataset.json").write_text("{}"), ["dataset.json", "labels"]),
        (lambda raw: (raw / "dataset.json").unlink(), ["dataset.json"]),
    ],
    ids=["mask of another shape", "no image", "no label", "unreadable image", "empty label", "broken description",
         "empty description", "no description"],
)  # fmt: skip
def test_mistakes_in_a_dataset(
    workspace: Path,
    own_raw: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    words: list[str],
) -> None:
    damage(own_raw)
    line = _refused(capsys, "plan", *_plan(workspace))
    assert [word for word in words if word not in line] == []
    written = [path.name for path in workspace.rglob("*.json") if "raw" not in path.relative_to(workspace).parts]
    assert written in ([], ["problems.json"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-a", "tiny", "-f", "5"], "no fold 5; this dataset has the folds 0 to 4"),
        (["-a", "tiny", "-f", "-1"], "no fold -1"),
        (["-a", "tiny", "-f", "first"], "--fold"),
        (["-a", "tiny", "-f", "1.5"], "--fold"),
        (["-a", "tiny"], "--fold"),
        (["-a", "tinny", "-f", "0"], "did you mean 'tiny'?"),
        (["-a", "fingerprint", "-f", "0"], "no such plan"),
        (["-a", "tiny", "-f", "0", "--device", "cuda:99"], "--device cuda:99"),
        (["-a", "tiny", "-f", "0", "-j", "-2"], "--workers"),
    ],
)
def test_mistakes_in_training(
    planned: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    capsys.readouterr()
    assert words in _refused(capsys, "train", "-d", "Phantom", "-w", str(planned), *arguments)
    assert not (planned / "results").exists()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda content: content["training"].update(epoch=3), "did you mean 'epochs'?"),
        (lambda content: content["training"].pop("seed"), "'training.seed' is missing"),
        (lambda content: content["training"].update(epochs="3"), "training.epochs"),
        (lambda content: content["training"]["loss"].update(name="dize"), "dice"),
        (lambda content: content["network"]["config"].update(depth=3), "depth"),
        (lambda content: content.update(name="other"), "calls itself 'other'"),
        (lambda content: content.update(schema="autoseg.plan.9"), "autoseg.plan.1"),
    ],
    ids=["unknown", "missing", "type", "component", "network", "name", "schema"],
)
def test_mistakes_in_a_plan_edited_by_hand(
    planned: Path, capsys: pytest.CaptureFixture[str], edit: Callable[[dict[str, Any]], object], words: str
) -> None:
    path = planned / "plans" / "Phantom" / "tiny.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    capsys.readouterr()
    line = _refused(capsys, "train", "-d", "Phantom", "-w", str(planned), "-a", "tiny", "-f", "0")
    assert words in line and "tiny.json" in line
    assert not (planned / "results").exists()


def test_a_plan_that_is_no_json(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = planned / "plans" / "Phantom" / "tiny.json"
    path.write_text(path.read_text()[:-20])
    capsys.readouterr()
    assert str(path) in _refused(capsys, "train", "-d", "Phantom", "-w", str(planned), "-a", "tiny", "-f", "0")


@pytest.mark.parametrize("command", ["train", "predict", "compare"])
def test_the_wrong_workspace(planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    more = {"train": ["-a", "tiny", "-f", "0"], "predict": ["-a", "tiny", "-i", ".", "-o", "out"], "compare": []}
    line = _refused(capsys, command, "-d", "Phantom", "-w", str(tmp_path / "empty"), *more[command])
    assert "Phantom" in line and str(tmp_path / "empty") in line
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_workspace_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "no such folder" in _refused(capsys, "train", "-d", "x", "-a", "x", "-f", "0", "-w", str(tmp_path / "file"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_file_that_cannot_be_written_is_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(path: Path, document: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("autoseg.launch.measuring.write_document", fail)
    line = _refused(capsys, "plan", *_plan(workspace))
    assert os.strerror(number) in line and "problems.json" in line


def test_a_bug_keeps_its_traceback(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise OSError(errno.EBADF, "a bug")

    monkeypatch.setattr("autoseg.launch.measuring.measure", bug)
    with pytest.raises(OSError, match="a bug"):
        _main("plan", *_plan(workspace))


def test_a_command_within_a_command_passes_its_status_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autoseg.launch.measuring.measure", interrupted)
    monkeypatch.setattr("autoseg.cli.demo.NUM_CASES", 2)
    assert _main("demo", "-w", str(tmp_path / "demo")) == 130
    assert capsys.readouterr().err.splitlines() == ["interrupted; the same command goes on from there"]
