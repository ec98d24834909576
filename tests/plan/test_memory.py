"""The estimate against a network whose tensors can be counted by hand, and its behaviour on real ones."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoseg.documents import Document
from autoseg.networks import load_architecture
from autoseg.plan.memory import Workload, measure_cost
from autoseg.plan.trace import FAKE, autocast_as_cuda


class _OneConvolution:
    """An architecture of a single convolution of 8 channels and a head."""

    Config = Document

    def build(self, config: Any, in_channels: int, out_channels: int) -> nn.Module:
        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv3d(in_channels, 8, 3, padding=1, bias=False)
                self.head = nn.Conv3d(8, out_channels, 1, bias=False)

            def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
                return [self.head(self.conv(x))]

        return Network()


def _workload(architecture: Any, precision: str = "bf16", optimizer: str = "sgd") -> Workload:
    return Workload(architecture=architecture, in_channels=1, out_channels=2, precision=precision, optimizer=optimizer)


def test_operations_and_parameters_are_counted_exactly() -> None:
    cost = measure_cost(_workload(_OneConvolution()), Document(), (16, 16, 16), 2)
    voxels = 2 * 16**3
    first, head = 2 * 27 * 8 * voxels, 2 * 8 * 2 * voxels
    assert cost.parameters == 27 * 8 + 16
    assert cost.flops == 2 * first + 3 * head  # the gradient with respect to the image is not needed
    assert cost.num_outputs == 1


def test_memory_is_at_least_what_must_be_kept() -> None:
    voxels = 2 * 32**3
    cost = measure_cost(_workload(_OneConvolution(), "fp32"), Document(), (32, 32, 32), 2)
    kept = voxels * (4 + 2 + 8 * 4 + 2 * 4)  # image, classes, features, logits
    assert kept < cost.memory_bytes < 3 * kept


def test_memory_is_affine_in_the_batch_and_bf16_saves() -> None:
    nnunet = load_architecture("nnunet")
    config = nnunet.derive((1.0, 1.0, 1.0), (64, 64, 64))
    two, three, four = (measure_cost(_workload(nnunet), config, (64, 64, 64), n).memory_bytes for n in (2, 3, 4))
    assert four - three == pytest.approx(three - two, rel=0.02)
    full = measure_cost(_workload(nnunet, "fp32"), config, (64, 64, 64), 4).memory_bytes
    assert 1.5 * four < full < 2 * four


def test_casts_are_those_of_cuda() -> None:
    """CUDA's autocast normalises groups in fp32, and pools in bf16; the CPU's does neither."""
    norm, pool = nn.GroupNorm(4, 4), nn.AvgPool3d(2)
    with FAKE, autocast_as_cuda("bf16"):
        x = nn.functional.conv3d(torch.zeros(1, 1, 4, 4, 4), torch.zeros(4, 1, 1, 1, 1))
        seen = {"conv": x.dtype, "norm": norm(x).dtype, "pool": pool(x).dtype, "softmax": x.softmax(1).dtype}
    assert seen == {"conv": torch.bfloat16, "norm": torch.float32, "pool": torch.bfloat16, "softmax": torch.float32}
    with FAKE, autocast_as_cuda("fp32"):
        assert nn.functional.conv3d(torch.zeros(1, 1, 4, 4, 4), torch.zeros(4, 1, 1, 1, 1)).dtype == torch.float32


def test_constructors_that_read_values_can_be_traced() -> None:
    swin = load_architecture("swin_unetr")
    config = swin.derive((1.0, 1.0, 1.0), (32, 32, 64)).model_copy(update={"feature_size": 12})
    cost = measure_cost(_workload(swin), config, (32, 32, 64), 2)
    built = swin.build(config, 1, 2)
    assert cost.parameters == sum(p.numel() for p in built.parameters())
    assert cost.num_outputs == 1 and cost.flops > 0


def test_operations_are_those_of_torchs_own_counter() -> None:
    nnunet = load_architecture("nnunet")
    config = nnunet.derive((1.0, 1.0, 1.0), (16, 16, 16))
    network = nnunet.build(config, 1, 2)
    with FlopCounterMode(display=False) as counter:
        outputs = network(torch.zeros(2, 1, 16, 16, 16))
        torch.stack([output.sum() for output in outputs]).sum().backward()
    assert measure_cost(_workload(nnunet, "fp32"), config, (16, 16, 16), 2).flops == counter.get_total_flops()


def test_an_optimiser_with_two_moments_takes_one_more_copy_of_the_weights() -> None:
    nnunet = load_architecture("nnunet")
    config = nnunet.derive((1.0, 1.0, 1.0), (32, 32, 32))
    sgd, adamw = (measure_cost(_workload(nnunet, optimizer=name), config, (32, 32, 32), 2) for name in ("sgd", "adamw"))
    assert adamw.memory_bytes - sgd.memory_bytes == 4 * sgd.parameters


def test_nnunets_reference_network_takes_about_five_gigabytes() -> None:
    nnunet = load_architecture("nnunet")
    cost = measure_cost(_workload(nnunet), nnunet.derive((1.0, 1.0, 1.0), (128,) * 3), (128,) * 3, 2)
    assert 4.5e9 < cost.memory_bytes < 5.3e9  # another tracker measured 4.7 without deep supervision
    assert cost.flops == pytest.approx(5.72e12, rel=0.01)


def test_measuring_leaves_the_random_state_and_the_modes_alone() -> None:
    state = torch.get_rng_state()
    nnunet = load_architecture("nnunet")
    measure_cost(_workload(nnunet), nnunet.derive((1.0, 1.0, 1.0), (16, 16, 16)), (16, 16, 16), 2)
    assert torch.equal(state, torch.get_rng_state())
    assert type(torch.zeros(1)) is torch.Tensor and not torch.is_autocast_enabled("cpu")
