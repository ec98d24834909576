"""run.json: what is needed to know afterwards how a run came about."""

import getpass
import json
import platform
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.documents import read_document, write_document
from autoseg.plan.plan import Plan
from autoseg.train.interruption import TrainingInterrupted
from autoseg.train.log import EpochReport
from autoseg.train.record import Git, RunRecord, find_git, find_versions, keep_record, make_run_record, read_record

CPU = torch.device("cpu")

MakePlan = Callable[..., Plan]
Train = Callable[..., Path]
ReadMetrics = Callable[[Path], list[dict[str, Any]]]


def _record() -> RunRecord:
    network = torch.nn.Linear(3, 4)
    network.bias.requires_grad = False
    return make_run_record(CPU, "fp32", network, 5, seed=7)


def _git(folder: Path, *arguments: str) -> str:
    names = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    done = subprocess.run(["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_record_describes_machine_and_code_but_not_who_ran_it(tmp_path: Path) -> None:
    record = _record()
    assert (record.parameters, record.workers, record.threads) == (12, 5, torch.get_num_threads())
    assert (record.seed, record.processes) == (7, 1) and record.cpu and record.cores and record.cores >= 1
    assert record.versions["torch"] == torch.__version__
    assert {"python", "autoseg", "numpy", "monai", "blosc2"} <= record.versions.keys()
    write_document(tmp_path / "run.json", record)
    assert read_document(tmp_path / "run.json", RunRecord) == record
    assert getpass.getuser() not in (record.device, record.cpu, *record.versions.values())


def test_versions_name_cuda_only_where_torch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    assert (find_versions()["cuda"], find_versions()["cudnn"]) == ("12.8", "91002")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: None)
    assert not {"cuda", "cudnn"} & find_versions().keys()


def test_a_checkout_is_known_by_its_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    assert find_git(package) is None
    (package / "__init__.py").write_text("")
    (tmp_path / "notes.md").write_text("")
    _git(tmp_path, "init", "-q")
    assert find_git(package) is None  # an installed package in somebody else's checkout: the commit is not its own
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "one")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert find_git(package) == Git(commit=commit, dirty=False)
    (tmp_path / "notes.md").write_text("more")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as in a hook of another repository
    assert find_git(package) == Git(commit=commit, dirty=False)
    (package / "new_network.py").write_text("")
    assert find_git(package) == Git(commit=commit, dirty=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_git(package) is None


def test_sessions_begin_and_end(tmp_path: Path) -> None:
    history = [{"epoch": 1, "peak_memory_gb": 9.0, "peak_host_memory_gb": 9.0}]
    with keep_record(tmp_path, _record(), history):
        begun = read_record(tmp_path)
        assert begun is not None and begun.sessions[0].ended is None
        history.append({"epoch": 2, "peak_memory_gb": None, "peak_host_memory_gb": 1.5})
        history.append({"epoch": 3, "peak_memory_gb": None, "peak_host_memory_gb": 1.25})
    ended = read_record(tmp_path)
    assert ended is not None and len(ended.sessions) == 1
    session = ended.sessions[0]
    assert (session.first_epoch, session.last_epoch) == (2, 3)
    assert (session.peak_memory_gb, session.peak_host_memory_gb) == (None, 1.5)
    assert session.host == platform.node() and session.device == ended.device
    assert session.ended and datetime.fromisoformat(session.started) <= datetime.fromisoformat(session.ended)
    assert datetime.fromisoformat(session.started).tzinfo is not None


def test_a_full_disk_at_the_end_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(KeyError, match="own"), keep_record(tmp_path, _record(), []):
        monkeypatch.setattr("autoseg.train.record.write_document", full)
        raise KeyError("own")


def test_a_training_that_was_stopped_and_went_on_has_two_sessions(
    make_plan: MakePlan, train: Train, run_folder: Path, read_metrics: ReadMetrics
) -> None:
    def stop(event: object) -> None:
        if isinstance(event, EpochReport) and event.epoch == 2:
            raise TrainingInterrupted("enough")

    with pytest.raises(TrainingInterrupted):
        train(make_plan(epochs=3), on_event=stop)
    train(make_plan(epochs=3))
    record = read_record(run_folder)
    assert record is not None
    assert [(one.first_epoch, one.last_epoch) for one in record.sessions] == [(1, 2), (3, 3)]
    assert all(one.ended for one in record.sessions)
    peaks = [epoch["peak_host_memory_gb"] for epoch in read_metrics(run_folder)]
    assert [one.peak_host_memory_gb for one in record.sessions] == [max(peaks[:2]), peaks[2]]
    assert record.seed == 7


def test_a_record_of_before_there_were_sessions_is_read(tmp_path: Path) -> None:
    old = {"schema": "autoseg.run.1", "device": "d", "precision": "fp32", "parameters": 1, "threads": 1, "workers": 1,
           "augmented_on": "cpu", "versions": {"torch": "2.10"}}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(old))
    record = read_record(tmp_path)
    assert record is not None and record.augmented_on == "cpu" and record.sessions == ()
    (tmp_path / "run.json").write_text("{")
    assert read_record(tmp_path) is None
