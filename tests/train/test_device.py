"""What is asked of a device: the precision that it is quick in, and what it is called."""

from pathlib import Path

import pytest
import torch

from autoseg.train import device as device_module
from autoseg.train.device import (
    Precision,
    choose_memory_format,
    choose_precision,
    cudnn_settings,
    name_device,
    peak_memory_gb,
    reset_peak_memory,
)

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize(
    ("device", "quick", "expected"),
    [
        (CPU, True, {"bf16": "bf16", "fp16": "bf16", "fp32": "fp32"}),
        (CPU, False, {"bf16": "fp32", "fp16": "fp32", "fp32": "fp32"}),
        (CUDA, True, {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32"}),
        (CUDA, False, {"bf16": "fp16", "fp16": "fp16", "fp32": "fp32"}),
        (MPS, True, {"bf16": "fp32", "fp16": "fp32", "fp32": "fp32"}),
    ],
    ids=["cpu with bf16", "cpu without", "cuda with bf16", "cuda without", "mps"],
)
def test_precision_is_the_plans_where_the_device_is_quick_at_it(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, quick: bool, expected: dict[Precision, Precision]
) -> None:
    monkeypatch.setattr(device_module, "_cpu_has_bf16", lambda: quick)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: quick)
    assert {wanted: choose_precision(wanted, device) for wanted in expected} == expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"bf16": True}, True), ({"avx2": True}, False)],
)
def test_bf16_of_a_cpu(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert device_module._cpu_has_bf16() is expected


def test_a_torch_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert device_module._cpu_has_bf16() is False


def test_channels_last_on_a_cpu_only() -> None:
    assert choose_memory_format(CPU) is torch.channels_last_3d
    assert choose_memory_format(CUDA) is torch.contiguous_format


def test_cudnn_is_repeatable_while_training_on_cuda() -> None:
    def flags() -> tuple[bool, bool]:
        return torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic

    before = flags()
    with cudnn_settings(CPU):
        assert flags() == before
    with pytest.raises(KeyError), cudnn_settings(CUDA):
        assert flags() == (False, True)
        raise KeyError
    assert flags() == before


def test_a_cpu_has_no_memory_of_its_own() -> None:
    reset_peak_memory(CPU)
    assert peak_memory_gb(CPU) is None


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_device(CPU)
    assert name_device(MPS) == "mps"
    monkeypatch.setattr(Path, "read_text", _no_such_file)
    assert name_device(CPU)


def _no_such_file(*_: object, **__: object) -> str:
    raise FileNotFoundError
