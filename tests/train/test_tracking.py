"""Telling a tracking service: in order, from a process of its own, and never at the cost of what is tracked."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.train import tracking
from autoseg.train.log import Beginning, EpochReport, make_record
from autoseg.train.tracking import TrackedTraining, Tracker, check_service, tracked

MakeTracker = Callable[[str], Tracker]

HEAD = "import json, os, pathlib, sys, time\nkept = pathlib.Path({kept!r}).open('a')\n"
KEEPS = """
print('seen at http://there', flush=True)
kept.write(sys.argv[1] + '\\n')
kept.write(json.dumps({name: os.environ.get(name) for name in ('RANK', 'CLEARML_PROC_MASTER_ID', 'OWN')}) + '\\n')
for line in sys.stdin:
    kept.write(line)
    kept.flush()
"""
REFUSES = "sys.exit('MissingConfigError: no server is known')\n"
HANGS = "print('seen at http://there', flush=True)\ntime.sleep(600)\n"
NEVER_ANSWERS = "time.sleep(600)\n"
DIES = "print('seen at http://there', flush=True)\nsys.stdin.readline()\nsys.exit('ConnectionError: lost')\n"


@pytest.fixture
def told() -> list[str]:
    """What the user was told."""
    return []


@pytest.fixture
def make_tracker(tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> MakeTracker:
    """Makes a tracker of a service that is the given program."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setitem(tracking.SERVICES, "clearml", "pretended_service")

    def make(program: str) -> Tracker:
        (tmp_path / "pretended_service.py").write_text(HEAD.format(kept=str(tmp_path / "kept")) + program)
        log = tmp_path / "logs" / "clearml.log"
        return Tracker("clearml", "Balls", "unet fold 0", kind="training", log=log, tell=told.append)

    return make


def _kept(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "kept").read_text().splitlines()]


def test_messages_arrive_in_order_and_the_service_says_where(
    make_tracker: MakeTracker, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("CLEARML_PROC_MASTER_ID", "1:another")
    monkeypatch.setenv("OWN", "kept")
    tracker = make_tracker(KEEPS)
    assert not tracker.begun
    (tmp_path / "report.html").write_text("")
    with tracked(tracker):
        tracker.add_scalars({"loss/training": 0.5}, 1)
        tracker.add_picture("patch", Image.new("RGB", (2, 2)), 1)
        tracker.add_values({"dice/ball": 0.9})
        tracker.attach([tmp_path / "report.html", tmp_path / "not there"])
    settings, environment, *messages = _kept(tmp_path)
    assert settings == {"project": "autoseg/Balls", "name": "unet fold 0", "kind": "training", "tags": ["autoseg"]}
    assert environment == {"RANK": None, "CLEARML_PROC_MASTER_ID": None, "OWN": "kept"}
    assert [message["do"] for message in messages] == ["scalars", "picture", "values", "attach", "end"]
    assert messages[0] == {"do": "scalars", "values": {"loss/training": 0.5}, "epoch": 1}
    assert messages[3] == {"do": "attach", "name": "report", "path": str(tmp_path / "report.html")}
    assert messages[4] == {"do": "end", "state": "finished", "reason": ""}
    assert told == ["clearml: seen at http://there"]


@pytest.mark.parametrize(
    ("error", "state"),
    [(KeyboardInterrupt("by SIGINT"), "stopped"), (ValueError("a\nbug"), "failed"), (LookupError("pruned"), "stopped")],
)
def test_what_ended_it_is_told(make_tracker: MakeTracker, tmp_path: Path, error: BaseException, state: str) -> None:
    tracker = make_tracker(KEEPS)
    with pytest.raises(type(error)), tracked(tracker, stops=(LookupError,)):
        tracker.add_values({"a": 1.0})
        raise error
    assert _kept(tmp_path)[-1] == {"do": "end", "state": state, "reason": " ".join(str(error).split())}


def test_nothing_is_begun_where_nothing_was_told(make_tracker: MakeTracker, tmp_path: Path) -> None:
    with tracked(make_tracker(KEEPS)), tracked(None):
        pass
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (REFUSES, "MissingConfigError: no server is known"),
        (DIES, "ConnectionError: lost"),
        (HANGS, "not all was taken after 1 s"),
        (NEVER_ANSWERS, "it does not answer"),
    ],
    ids=["refuses", "dies", "hangs", "never answers"],
)
def test_a_service_that_fails_ends_no_training_and_is_complained_of_once(
    make_plan: Callable[..., Plan], train: Callable[..., Path], make_tracker: MakeTracker, told: list[str],
    monkeypatch: pytest.MonkeyPatch, program: str, words: str, read_metrics: Any,
) -> None:  # fmt: skip
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(tracking, "CONNECTION_SECONDS", 8.0 if program != NEVER_ANSWERS else 1.0)
    tracker = make_tracker(program)
    with tracked(tracker):
        run_folder = train(make_plan(epochs=3), loggers=(TrackedTraining(tracker),))
        tracker.add_values({"x" * 100_000: 1.0})  # more than a pipe holds
    assert len(read_metrics(run_folder)) == 3
    complaints = [line for line in told if line.startswith("warning: nothing is told to clearml from here on: ")]
    assert len(complaints) == 1 and words in complaints[0] and "logs/clearml.log" in complaints[0]


def test_a_service_sees_the_end_of_what_was_killed(make_tracker: MakeTracker, tmp_path: Path) -> None:
    make_tracker(KEEPS + 'kept.write(\'{"do": "input ended"}\')\n')
    code = (
        "import time; from pathlib import Path; from autoseg.train import tracking\n"
        "tracking.SERVICES['clearml'] = 'pretended_service'\n"
        f"t = tracking.Tracker('clearml', 'a', 'b', kind='training', log=Path({str(tmp_path / 'log')!r}), tell=print)\n"
        "t.add_values({'a': 1.0}); time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    _wait_for(lambda: (tmp_path / "kept").exists() and '"values"' in (tmp_path / "kept").read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _wait_for(lambda: "input ended" in (tmp_path / "kept").read_text())
    assert [message["do"] for message in _kept(tmp_path)[2:]] == ["values", "input ended"]


def _wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_training_that_goes_on_tells_the_epochs_before_too(
    make_tracker: MakeTracker, tmp_path: Path, begin: Callable[..., Beginning], report: Callable[..., EpochReport]
) -> None:
    tracker = make_tracker(KEEPS)
    logger = TrackedTraining(tracker, {"searched.rate": "1"})
    with tracked(tracker):
        logger.begin(begin(tmp_path, [make_record(report(1)), make_record(report(2))]))
        logger.add_epoch(report(3))
    messages = _kept(tmp_path)[2:]
    assert [(m["do"], m.get("epoch"), m.get("name")) for m in messages] == [
        ("parameters", None, None), ("document", None, "plan"), ("document", None, "run"),
        ("scalars", 1, None), ("scalars", 2, None), ("scalars", 3, None), ("end", None, None),
    ]  # fmt: skip
    assert messages[0]["values"]["training.batch_size"] == 2 and messages[0]["values"]["searched.rate"] == "1"
    assert messages[3]["values"]["loss/training"] == 1.0 and messages[5]["values"]["dice/mean"] == 0.5


def test_a_missing_package_is_an_error_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    check_service(None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"clearml is not installed; run pip install 'autoseg\[clearml\]'"):
        check_service("clearml")
