"""Runs on a real Slurm of this machine, where Debian's slurm-wlm and munge are; and what needs none."""

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from autoseg.errors import WorkspaceError
from autoseg.launch.slurm import parse_minutes

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "slurm.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The benchmark script, which starts the daemons and runs the trial; skips where Slurm is absent."""
    if not os.environ.get("AUTOSEG_TEST_SLURM"):
        pytest.skip("takes minutes, mostly waiting for the scheduler; set AUTOSEG_TEST_SLURM=1 to run it")
    if sys.platform != "linux":
        pytest.skip("Slurm is for Linux")
    spec = importlib.util.spec_from_file_location("slurm_trial", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if missing := module.missing_programs():
        pytest.skip(f"{', '.join(missing)} not installed (Debian: slurm-wlm, munge)")
    pytest.importorskip("submitit")
    return module


def test_arrays_prepare_and_three_trainings_survive_what_a_cluster_does(script: ModuleType, tmp_path: Path) -> None:
    trial = script.exercise(tmp_path)
    text = "\n".join(trial.lines)
    for fold in script.FOLDS:
        assert trial.epochs(fold) == list(range(1, script.EPOCHS + 1))
    endings = [[line for line in script.attempts(trial, fold) if line.startswith("ended")] for fold in script.FOLDS]
    assert all(len(each) == 2 and each[1] == "ended: finished" for each in endings)
    assert endings[0][0].startswith("ended: killed by SIGKILL")
    assert all(each[0].startswith("ended: stopped by SIGTERM") for each in endings[1:])
    assert trial.same, "the arrays have left other files than one process"
    assert re.search(r"Phantom: submitted measuring as job \d+, then planning as job \d+, then preprocessing as", text)
    broken = trial.root / "plans" / "Broken"
    assert [path.name for path in broken.glob("*.json")] == ["problems.json"]
    assert not (trial.root / "preprocessed" / "Broken").exists() and "phantom_003" in text
    assert "submitted 3 runs as job" in text and re.search(r"[123] runs are in the queue already", text)
    assert "running on node for" in text and "0 of 3 runs to do" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("12:00:00", 720), ("2-12", 3600), ("2-12:30", 3630), ("0-00:00:05", 1)],
)
def test_time_limits_in_slurms_forms(text: str, minutes: int) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "two days", "1:2:3:4", "-5", "1-", "0-0"])
def test_what_is_no_time_limit_is_refused(text: str) -> None:
    with pytest.raises(WorkspaceError, match="--time"):
        parse_minutes(text)
