"""autoseg_plan in parts: what they leave is what a whole run leaves, whatever ends or doubles one of them."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from autoseg.cli import plan

Captured = pytest.CaptureFixture[str]
TINY = ["--set", "training.epochs=3", "--name", "short"]
PLANS = ["-a", "unet", "-a", "nnunet"]


def _files(root: Path) -> dict[str, bytes]:
    """Return the content of all files under plans/ and preprocessed/; measurements keep no bytes the same in zip."""
    found = [path for name in ("plans", "preprocessed") for path in (root / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in found if path.parent.name != "measured"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path) -> dict[str, bytes]:
    """The files that one unsplit run leaves."""
    root = tmp_path_factory.mktemp("whole")
    (root / "raw").symlink_to(phantom_folder.parent)
    assert plan.main(["-d", "Phantom", "-w", str(root), *PLANS, *TINY]) == 0
    return _files(root)


def _plan(root: Path, *more: str) -> int:
    return plan.main(["-d", "Phantom", "-w", str(root), "-j", "1", *more])


def test_parts_in_any_order_leave_what_one_run_leaves(
    workspace: Path, whole: dict[str, bytes], capsys: Captured
) -> None:
    for part in ("2/3", "3/3", "1/3"):
        assert _plan(workspace, "--part", part) == 0
    assert not (workspace / "plans" / "Phantom" / "fingerprint.json").exists()
    assert _plan(workspace, *PLANS, *TINY, "--no-preprocess") == 0
    assert not (workspace / "preprocessed").exists()
    for done, part in enumerate(("3/4", "1/4", "4/4", "2/4"), start=1):
        capsys.readouterr()
        assert _plan(workspace, *PLANS, *TINY, "--only-preprocess", "--part", part) == 0
        shown = capsys.readouterr().out
        assert f"of part {part}" in shown and ("6 of all 6" in shown) == ("next: autoseg_train" in shown) == (done == 4)
    assert _files(workspace) == whole


def test_the_whole_run_makes_what_a_part_that_died_has_left(workspace: Path, whole: dict[str, bytes]) -> None:
    assert _plan(workspace, *PLANS, *TINY, "--no-preprocess") == 0
    assert _plan(workspace, *PLANS, *TINY, "--only-preprocess", "--part", "1/2") == 0
    assert _plan(workspace, *PLANS, *TINY) == 0
    assert _files(workspace) == whole


def test_parts_at_the_same_time_and_one_killed_and_typed_again(
    workspace: Path, start: Any, whole: dict[str, bytes]
) -> None:
    """Two processes make the same part at once, another is killed in the middle of its own and then typed again."""
    assert _plan(workspace, *PLANS, *TINY, "--no-preprocess") == 0
    words = ["-d", "Phantom", "-w", str(workspace), "-j", "1", *PLANS, *TINY, "--only-preprocess", "--force", "--part"]
    twins, killed = [start("plan", *words, "1/2") for _ in "ab"], start("plan", *words, "2/2")
    while killed.poll() is None and not list((workspace / "preprocessed").rglob("phantom_002*")):
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert [one.wait() for one in twins] == [0, 0]
    assert _plan(workspace, *PLANS, *TINY, "--only-preprocess", "--part", "2/2") == 0
    found = _files(workspace)
    assert {name: content for name, content in found.items() if ".partial-" not in name} == whole


def test_only_preprocess_takes_any_plan_and_its_first_stage(workspace: Path, planned: Path, capsys: Captured) -> None:
    shutil.copytree(planned / "plans", workspace / "plans")
    assert (
        _plan(workspace, "--from", "tiny", "--set", "previous_stage=unet", "--name", "second", "--no-preprocess") == 2
    )
    first = ["-a", "unet", "--downsample", "2", "--name", "first", "--no-preprocess"]
    assert _plan(workspace, *first) == 0
    assert (
        _plan(workspace, "--from", "tiny", "--set", "previous_stage=first", "--name", "second", "--no-preprocess") == 0
    )
    assert _plan(workspace, "--only-preprocess", "-a", "second", "-a", "unetr") == 0  # unetr: a recipe without a plan
    assert len(list((workspace / "preprocessed" / "Phantom").iterdir())) == 2
    assert "6 of all 6" in capsys.readouterr().out


MISTAKES = [
    (["--part", "0/3"], "no part of the dataset"),
    (["--part", "3/2"], "no part of the dataset"),
    (["--part", "1/7"], "at most the number of cases, 6"),
    (["--part", "two"], "e.g. --part 1/4"),
    (["--only-preprocess", "--part", "1/7"], "at most the number of cases, 6"),
    (["--only-preprocess", "-a", "tony"], "did you mean 'tiny'"),
    (["--only-preprocess", "-a", "unetr"], "no plan unetr is made yet"),
    (["--only-preprocess", "--no-preprocess"], "exclude each other"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES)
def test_a_mistake_is_one_line(planned: Path, capsys: Captured, words: list[str], said: str) -> None:
    before = _files(planned)
    assert _plan(planned, *words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("error: ")
    assert _files(planned) == before


def test_preprocessing_before_measuring_is_refused(workspace: Path, capsys: Captured) -> None:
    assert _plan(workspace, "--only-preprocess", "--part", "1/2") == 2
    assert "not measured yet" in capsys.readouterr().err
    assert not (workspace / "preprocessed").exists()
