"""Energy from counters as Linux and NVML show them; neither is at hand on every machine, so both are made here."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autoseg.train import energy
from autoseg.train.energy import energy_kj, read_counters

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two processors, the cores of one, and the whole board, as Linux shows them."""
    zones = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}
    for folder, name in zones.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "max_energy_range_uj").write_text("1000000000\n")
        (tmp_path / folder / "energy_uj").write_text("900000000\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    return tmp_path


def show(powercap: Path, zone: str, joules: int) -> None:
    (powercap / zone / "energy_uj").write_text(f"{joules * 10**6}\n")


def test_processors_are_added_and_counters_begin_anew(powercap: Path) -> None:
    before = read_counters(CPU)
    show(powercap, "intel-rapl:0", 950)  # 50 J
    show(powercap, "intel-rapl:1", 30)  # 100 J to the end of its range, then 30
    show(powercap, "intel-rapl:0:0", 990)  # a part of the first
    show(powercap, "intel-rapl:2", 999)  # the whole board
    assert energy_kj(before, read_counters(CPU), CPU) == pytest.approx(0.18)


def test_what_cannot_be_read_is_not_known(powercap: Path) -> None:
    before = read_counters(CPU)
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert energy_kj(before, read_counters(CPU), CPU) is None
    assert energy_kj({}, {}, CPU) is None
    assert energy_kj(before, before, GPU) is None  # processors alone are not what a training on a GPU takes


def test_a_gpu_is_added(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = iter([4_000_000, 5_000_000, 5_000_000, 7_500_000])  # mJ, each reading tries the counter first
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(shown) if handle == "GPU-12-ab" else None,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-ab"))
    before = read_counters(GPU)
    show(powercap, "intel-rapl:0", 1000)
    assert energy_kj(before, read_counters(GPU), GPU) == pytest.approx(2.5 + 0.1)


def test_a_gpu_without_a_counter(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_kj(read_counters(GPU), read_counters(GPU), GPU) is None
