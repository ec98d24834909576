"""Every bad input of ``tests/benchmarks/bad_input.py`` is refused in one line, and nothing half-written is left."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "bad_input.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bad_input", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bad_input"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bad_input = _load()


@pytest.mark.parametrize("trial", bad_input.TRIALS)
def test_it_is_one_clear_line_as_the_page_says(
    trial: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench").mkdir()
    answer = bad_input.play(trial, trained, tmp_path / "bench")
    expected = bad_input.TRIALS[trial][1]
    assert answer.status == expected, answer
    assert [line.startswith("error: ") for line in answer.told] == [True] * (expected > 0)
    kept = {0: {"one.nii.gz"}, 1: {"one.nii.gz", "two.nii.gz"}, 2: set()}[expected]
    left = {Path(name).name for name in answer.left} - {"prediction.json"}
    assert left <= kept and bool(left) == bool(kept) and (expected < 2 or not answer.left)
    assert not list(tmp_path.rglob("HACKED"))
    row = next(line for line in bad_input.PAGE.read_text().splitlines() if line.startswith(f"| {trial} |"))
    for line in answer.told:
        for word in re.findall(r"[A-Za-z]{4,}", line):
            assert word in row
