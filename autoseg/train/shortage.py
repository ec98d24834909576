"""What to do when memory runs out while training: what the plan expected, what is there, and a plan that fits."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from autoseg.errors import TrainingError
from autoseg.plan.plan import Plan
from autoseg.plan.variant import measure_plan
from autoseg.train.processes import Processes

CPU_ALLOCATOR = re.compile(r"DefaultCPUAllocator|not enough memory|can't allocate memory", re.IGNORECASE)
"""How torch says that the system gives no more memory; it has no exception of its own for that."""


@contextmanager
def explain_shortage(plan: Plan, device: torch.device, processes: Processes) -> Iterator[None]:
    """Turn running out of the device's memory, or of the system's, into one line that says which plan would fit.

    Raises:
        TrainingError: memory ran out.
    """
    try:
        yield
        return
    except torch.OutOfMemoryError:
        pass
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not CPU_ALLOCATOR.search(str(error)):
            raise
    # outside of the handler, which would keep the tensors of the failed step alive through its traceback
    raise TrainingError(_advise(plan, device, processes, find_available_gb(device)))


def find_available_gb(device: torch.device) -> float | None:
    """Return the memory, in 10^9 bytes, that this process could have in all: what it holds and what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return (free + torch.cuda.memory_reserved(device)) / 1e9
    return _system_gb() if device.type == "cpu" else None


def choose_batch_size(plan: Plan, available_gb: float | None, num_processes: int = 1) -> int | None:
    """Return the largest smaller batch whose measured memory is available, or None if there is none.

    Processes that share the batch need memory for their own part of it only.
    """
    for batch_size in range(plan.training.batch_size - 1, num_processes - 1, -1):
        part = -(-batch_size // num_processes)
        if part == -(-plan.training.batch_size // num_processes):
            continue  # this is what has just failed
        if available_gb is None or measure_plan(plan, part).memory_gb <= available_gb:
            return batch_size
    return None


def _advise(plan: Plan, device: torch.device, processes: Processes, available_gb: float | None) -> str:
    room = "" if available_gb is None else f", and {available_gb:.1f} GB are there for this process"
    what = (
        f"plan {plan.name}: out of memory on {device}; its batch of {plan.training.batch_size} is estimated at "
        f"{plan.estimate.memory_gb:.1f} GB for {plan.budget.memory_gb:g} GB{room}"
    )
    kept = "finished epochs are kept"
    batch_size = choose_batch_size(plan, available_gb, processes.count)
    data = plan.dataset.name
    if batch_size is None:
        gb = "GB" if available_gb is None else f"{available_gb:.0f}"
        return (
            f"{what}; {kept}; no smaller batch fits, so plan for less: autoseg_plan -d {data} "
            f"-a {plan.network.architecture} --memory {gb} --name {plan.name}_small; or end what else uses the device"
        )
    return (
        f"{what}; {kept}; end what else uses the device, or train a smaller batch: autoseg_plan -d {data} "
        f"--from {plan.name} --set training.batch_size={batch_size} --name {plan.name}_b{batch_size}"
    )


def _system_gb() -> float | None:
    """Return the memory that Linux says could still be had, or None where it does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 / 1e9 if found else None
