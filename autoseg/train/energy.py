"""The energy that a training takes, where the machine counts it.

A GPU counts its own, which NVML tells (package nvidia-ml-py, extra ``energy``); processors count theirs by RAPL, which
Linux shows to the superuser, and to others where the administrator lets it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")

Counters = Mapping[str, tuple[float, float | None]]
"""Name of a counter to what it shows and what it goes up to before it begins at 0 again (None: never), both in J."""


def read_counters(device: torch.device) -> Counters:
    """Return the counters of the processors and of the device, as far as they can be read."""
    return _read_processors() | (_read_gpu(device) if device.type == "cuda" else {})


def energy_kj(before: Counters, after: Counters, device: torch.device) -> float | None:
    """Return the energy between two readings in kJ, of processors and device together; None where one is not counted.

    What else the machine does counts too, and for a training of several processes only the first one's device.
    """
    wanted = "gpu" if device.type == "cuda" else "package"
    if not any(name.startswith(wanted) for name in before):
        return None
    joules = 0.0
    for name, (start, _) in before.items():
        end, limit = after.get(name, (None, None))
        if end is None:
            return None
        joules += end - start if end >= start or limit is None else end - start + limit
    return joules / 1e3


def _read_processors() -> dict[str, tuple[float, float | None]]:
    found: dict[str, tuple[float, float | None]] = {}
    for zone in sorted(POWERCAP.glob("*rapl:*")):
        try:
            name = (zone / "name").read_text(encoding="ascii").strip()
            used, limit = (int((zone / file).read_text()) / 1e6 for file in ("energy_uj", "max_energy_range_uj"))
        except (OSError, ValueError):
            continue
        if name.startswith("package"):  # cores, uncore and memory lie below it, or are no part of the processor
            found[name] = used, limit
    return found


def _read_gpu(device: torch.device) -> dict[str, tuple[float, float | None]]:
    tell = _find_gpu_counter(device)
    return {} if tell is None else {"gpu": (tell() / 1e3, None)}


def _find_gpu_counter(device: torch.device) -> Callable[[], float] | None:
    """Return what tells the device's energy since the driver was loaded in mJ; None without NVML or on older GPUs."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # NVML's errors share no class that exists without it; nothing here may end a training
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
