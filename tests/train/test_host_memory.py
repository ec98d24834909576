"""The peak of the process's own memory, and that it can be measured anew where the system lets it."""

import sys
from pathlib import Path

import pytest

from autoseg.train import host_memory
from autoseg.train.host_memory import peak_host_memory_gb, reset_peak_host_memory

HELD = 400_000_000


def _peak() -> float:
    peak = peak_host_memory_gb()
    assert peak is not None
    return peak


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the peak be measured anew")
def test_the_peak_is_that_since_the_reset() -> None:
    reset_peak_host_memory()
    before = _peak()
    block = bytearray(HELD)
    block[::4096] = b"\1" * len(block[::4096])
    with_block = _peak()
    del block
    assert with_block > before + 0.9 * HELD / 1e9
    assert _peak() > before + 0.9 * HELD / 1e9
    reset_peak_host_memory()
    assert _peak() < with_block - 0.5 * HELD / 1e9


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells it elsewhere")
def test_systems_without_proc_tell_the_peak_of_the_whole_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = _peak()
    monkeypatch.setattr(host_memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(host_memory, "CLEAR", tmp_path / "no_folder" / "none")
    reset_peak_host_memory()
    assert _peak() == pytest.approx(told, rel=0.5)


def test_where_nobody_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(sys, "platform", "win32")
    assert peak_host_memory_gb() is None
