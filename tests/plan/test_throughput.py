"""Tests of the rough figure for an epoch's time."""

import pytest
import torch

from autoseg.plan import throughput


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rate_is_measured_in_the_precision_of_the_training(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    seen = []
    convolve = throughput.F.conv3d

    def watch(x: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
        y = convolve(x, weight, padding=padding)
        seen.append((y.dtype, x.is_contiguous(memory_format=torch.channels_last_3d)))
        return y

    monkeypatch.setattr(throughput, "EDGE", {"cpu": 4})
    monkeypatch.setattr(throughput.F, "conv3d", watch)
    assert throughput.measure_rate(torch.device("cpu"), dtype, torch.channels_last_3d) > 0
    assert set(seen) == {(dtype, True)}
    assert len(seen) == 1 + throughput.REPETITIONS["cpu"]
