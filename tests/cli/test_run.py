"""autoseg_run: every run of a table is finished once, whatever ends the command or one of its trainings in between."""

import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from autoseg.cli import run

LOSSES = ("unet", "unet_dice", "unet_focal", "unet_tversky", "unet_generalized_dice")
EPOCHS = 8
TINY = (
    "training.patch_size=[16,16,16]",
    'network.config={"strides":[[1,1,1],[2,2,2]],"kernel_sizes":[[3,3,3],[3,3,3]],"features_per_stage":[4,8],'
    '"blocks_per_stage_encoder":[1,1],"blocks_per_stage_decoder":[1]}',
    "training.batch_size=2",
    f"training.epochs={EPOCHS}",
    "training.iterations_per_epoch=4",
    "training.validation_iterations=1",
    "prediction.mirror_axes=[]",
)
SABOTAGE = """
import os, pathlib, sys
plan = sys.orig_argv[sys.orig_argv.index("-a") + 1] if "-a" in sys.orig_argv else ""
flag = pathlib.Path(os.environ["FLAG_FOLDER"], f"{plan}.flag")
if plan == "unet_dice_tiny" or plan == "unet_tiny" and not flag.exists():
    flag.touch()
    os.kill(os.getpid(), 9)
if plan == "unet_focal_tiny":
    sys.stderr.write("error: this is a mistake\\n")
    sys.stderr.flush()
    os._exit(2)
"""
SET = [word for text in TINY for word in ("--set", text)]


def _arguments(root: Path, *more: str) -> list[str]:
    return ["-d", "Phantom", "-w", str(root), "-j", "1", "--device", "cpu", *SET, "--name", "tiny", *more]


def _folders(root: Path) -> list[Path]:
    return [root / "results" / "Phantom" / f"{name}_tiny" / "fold_0" for name in LOSSES]


def _num_finished(root: Path) -> int:
    return len(list((root / "results").glob("*/*/fold_*/validation/metrics.json")))


def _endings(folder: Path) -> list[str]:
    text = (folder / "logs" / "run.log").read_text(encoding="utf-8")
    return re.findall(r"^\S+ \S+  ended: (.*)$", text, flags=re.MULTILINE)


def _assert_finished_once(folder: Path) -> None:
    records = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, EPOCHS + 1))
    assert (folder / "logs" / "train.log").read_text().count("  finished\n") == 1
    assert json.loads((folder / "validation" / "metrics.json").read_text())["cases"]
    assert _endings(folder).count("finished") == 1
    assert not list(folder.rglob(".partial*"))


@pytest.fixture
def planned_root(workspace: Path, planned_once: Path) -> Path:
    """A workspace of its own, measured and preprocessed already."""
    for name in ("plans", "preprocessed"):
        shutil.copytree(planned_once / name, workspace / name)
    return workspace


def _wait_until_training(process: Any, root: Path, num_finished: int) -> int:
    """Wait until so many runs are finished and another one has trained for an epoch; return the id of its process."""
    while True:
        assert process.poll() is None, process.communicate()
        finished = _num_finished(root)  # counted first, so that none of them is taken for busy below
        logs = [path.parents[1] for path in (root / "results").glob("*/*/fold_*/logs/metrics.jsonl")]
        busy = [path for path in logs if not (path / "validation" / "metrics.json").exists()]
        if finished >= num_finished and busy and (busy[0] / "logs" / "metrics.jsonl").read_text():
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if children:
                return int(children[0])
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which trainings run")
def test_killed_twice_and_started_again(planned_root: Path, start: Any) -> None:
    """SIGKILL leaves a training without its parent; it ends too, and no run is lost or done twice."""
    arguments = _arguments(planned_root, "--table", "losses", "-a", "unet", "-a", "unet_dice", "-f", "0")
    for num_finished in (0, 1):
        process = start("run", *arguments)
        child = _wait_until_training(process, planned_root, num_finished)
        process.send_signal(signal.SIGKILL)
        process.wait()
        limit = time.monotonic() + 60
        while _is_alive(child):
            assert time.monotonic() < limit, "the training outlives the command that started it"
            time.sleep(0.05)
    before = {path: path.stat().st_mtime_ns for path in (planned_root / "results").rglob("validation/metrics.json")}
    assert len(before) == 1
    process = start("run", *arguments)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    folders = [path for path in _folders(planned_root) if path.parent.name in ("unet_tiny", "unet_dice_tiny")]
    for folder in folders:
        _assert_finished_once(folder)
    assert sorted((planned_root / "results" / "Phantom").glob("*/fold_*")) == sorted(folders)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert out.count(" finished ") == 1 + 2  # the one that was left, and the table at the end
    assert "2 plans x 1 fold" in out and "by loss" in out and "unet_dice_tiny fold 0" in out
    assert (planned_root / "reports" / "Phantom" / "report.html").is_file()


def _is_alive(number: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which trainings run")
def test_ctrl_c_stops_the_trainings_and_says_what_is_done(planned_root: Path, start: Any) -> None:
    arguments = _arguments(planned_root, "-a", "unet", "-f", "0")
    process = start("run", *arguments)
    child = _wait_until_training(process, planned_root, 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, (out, err)
    assert err == (
        "stopped; 0 of 1 run finished, the others are kept as far as they are; the same command goes on from there\n"
    )
    assert not _is_alive(child)
    assert "stopped by SIGTERM" in _endings(_folders(planned_root)[0])[-1]
    assert run.main(arguments) == 0
    _assert_finished_once(_folders(planned_root)[0])


def test_one_that_dies_is_tried_again_and_one_that_cannot_run_is_not(
    planned_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """unet dies once at its start; unet_dice always; unet_focal is refused; the others go on; the status is 1."""
    site = planned_root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("FLAG_FOLDER", str(planned_root))
    assert run.main(_arguments(planned_root, "--table", "losses", "-f", "0", "--retries", "1")) == 1
    out, err = capsys.readouterr()
    unet, dice, focal, *others = _folders(planned_root)
    for folder in (unet, *others):
        _assert_finished_once(folder)
    assert [ending.split(":")[0] for ending in _endings(unet)] == ["killed by SIGKILL (out of memory?)", "finished"]
    assert len(_endings(dice)) == 2
    assert _endings(focal) == ["this is a mistake"]
    assert "failed unet_focal_tiny fold 0: this is a mistake" in out and "by loss" in out
    assert err.splitlines()[-1].startswith("2 of 5 runs failed, e.g. unet_dice_tiny fold 0: killed by SIGKILL")
