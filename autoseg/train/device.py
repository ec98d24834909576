"""What a training asks of the device it runs on."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["bf16", "fp16", "fp32"]

DTYPES: dict[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def choose_precision(wanted: Precision, device: torch.device) -> Precision:
    """Return what the device computes in: the plan's precision where the device is quick at it, else what it has.

    CUDA devices without bf16 of their own get fp16, whose loss is then scaled. On a CPU both mean bf16, since it
    convolves in no fp16; without bf16 instructions it would be slower in bf16 than in fp32.
    """
    if wanted == "fp32":
        return "fp32"
    if device.type == "cuda":
        quick = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if quick and wanted == "bf16" else "fp16"
    if device.type == "cpu" and _cpu_has_bf16():
        return "bf16"
    return "fp32"


def choose_memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout of volumes that the device's convolutions are quickest in.

    On a CPU a training step with channels last takes about four fifths of the time (oneDNN convolves in that layout).
    """
    return torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format


def place_network(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Bring a network to the device, the weights of its convolutions in the layout that they are quickest in there.

    A network in 2-D has weights of four axes, for which that layout has another name.
    """
    network = network.to(device)
    if choose_memory_format(device) is torch.channels_last_3d:
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        for weights in network.parameters():
            if weights.dim() in formats:
                weights.data = weights.data.contiguous(memory_format=formats[weights.dim()])
    return network


@contextmanager
def cudnn_settings(device: torch.device) -> Iterator[None]:
    """Let cuDNN take only repeatable algorithms while training, so that a seed gives the same losses again."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        yield


def reset_peak_memory(device: torch.device) -> None:
    """Begin to measure the peak of device memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gb(device: torch.device) -> float | None:
    """Return the largest device memory allocated since the reset, in 10^9 bytes; None without memory of its own."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def name_device(device: torch.device) -> str:
    """Return the name that the maker gave the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return name_cpu()
    return device.type


def name_cpu() -> str:
    """Return the processor's name; Linux tells it in /proc only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies in bf16 itself: AVX-512 BF16, AMX, or ARM's BF16."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # torch tells it since 2.10
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
