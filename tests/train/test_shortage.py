"""Where memory runs out, one line says what was expected, what is there, and which plan fits."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.plan.variant import make_variant, measure_plan
from autoseg.train import loop, shortage
from autoseg.train.processes import Processes
from autoseg.train.shortage import choose_batch_size, explain_shortage, find_available_gb

CPU = torch.device("cpu")
MakePlan = Callable[..., Plan]
Train = Callable[..., Path]

SHORTAGES = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "numpy": MemoryError("Unable to allocate 3.00 TiB for an array"),
}


@pytest.mark.parametrize("kind", SHORTAGES)
def test_a_training_out_of_memory(
    make_plan: MakePlan, train: Train, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def run_out(*_: Any) -> None:
        raise SHORTAGES[kind]

    plan = make_plan(batch_size=4)
    available = measure_plan(plan, 2).memory_gb + 1e-6
    monkeypatch.setattr(loop, "train_step", run_out)
    monkeypatch.setattr(shortage, "find_available_gb", lambda device: available)
    with pytest.raises(TrainingError) as caught:
        train(plan)
    told = str(caught.value)
    assert "\n" not in told
    assert "out of memory on cpu; its batch of 4 is estimated at 0.1 GB" in told
    assert f"{available:.1f} GB are there" in told
    command = re.search(r"autoseg_plan -d Balls --from tiny --set (\S+) --name (\S+)$", told)
    assert command is not None
    variant = make_variant(plan, command.group(2), [command.group(1)])
    assert (variant.name, variant.training.batch_size) == ("tiny_b2", 2)
    assert variant.estimate.memory_gb <= available + 1e-3


def test_it_trains_in_less(make_plan: MakePlan) -> None:
    """The oracle counts up: the largest batch below the plan's that is measured to fit."""
    plan = make_plan(batch_size=6)
    sizes = {size: measure_plan(plan, size).memory_gb for size in range(1, 6)}
    assert list(sizes.values()) == sorted(sizes.values())
    for available in (sizes[1] - 1e-6, sizes[1], sizes[3] + 1e-6, 100.0):
        fitting = [size for size, memory in sizes.items() if memory <= available]
        assert choose_batch_size(plan, available) == max(fitting, default=None)
    assert choose_batch_size(plan, None) == 5


def test_processes_need_their_own_part_only(make_plan: MakePlan) -> None:
    plan = make_plan(batch_size=6)
    assert choose_batch_size(plan, measure_plan(plan, 2).memory_gb, num_processes=2) == 4
    assert choose_batch_size(plan, None, num_processes=4) == 4
    assert choose_batch_size(plan, None, num_processes=6) is None


def test_where_no_batch_fits(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortage, "find_available_gb", lambda device: 0.0)
    with pytest.raises(TrainingError, match="no smaller batch fits"), explain_shortage(make_plan(), CPU, Processes()):
        raise MemoryError


def test_other_errors_stay(make_plan: MakePlan) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explain_shortage(make_plan(), CPU, Processes()):
        raise RuntimeError("shapes differ")


def test_what_the_system_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2000000 kB\n", encoding="utf-8")
    monkeypatch.setattr(shortage, "Path", lambda _: tmp_path / "meminfo")
    assert find_available_gb(CPU) == pytest.approx(2.048)
    (tmp_path / "meminfo").unlink()
    assert find_available_gb(CPU) is None


def test_what_a_gpu_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 10**9, 8 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * 10**9)
    assert find_available_gb(torch.device("cuda")) == pytest.approx(5.0)
