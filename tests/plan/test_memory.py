"""The estimate against a network whose tensors can be counted by hand, and its behaviour on real ones."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoseg.documents import Document
from autoseg.networks import load_architecture
from autoseg.plan.memory import Workload, _loss, measure_cost
from autoseg.plan.trace import Tracker, autocast_as_cuda, build_without_values


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
    """CUDA's autocast convolves in low precision, normalises groups in fp32, and pools what comes as it comes."""
    norm, pool, conv = (module.to("meta") for module in (nn.GroupNorm(4, 4), nn.AvgPool3d(2), nn.Conv3d(1, 4, 1)))
    image = torch.zeros(1, 1, 4, 4, 4, device="meta")
    with autocast_as_cuda("bf16"):
        x = conv(image)
        found = [y.dtype for y in (x, norm(x), pool(x), x.softmax(1), x @ torch.zeros(4, 2, device="meta"))]
    assert found == [torch.bfloat16, torch.float32, torch.bfloat16, torch.float32, torch.bfloat16]
    with autocast_as_cuda("fp32"):
        assert conv(image).dtype == torch.float32


@pytest.mark.parametrize("name", ["unet", "attention_unet", "mednext", "unetr"])
def test_results_by_shape_are_counted_as_torchs_own(name: str) -> None:
    architecture = load_architecture(name)
    config = architecture.derive((1.0, 1.0, 1.0), (32, 32, 32))
    peaks = []
    for with_rules in (True, False):
        network = build_without_values(architecture.build, config, 1, 2)
        tracker = Tracker(with_rules=with_rules)
        with tracker, autocast_as_cuda("bf16"):
            outputs = network(torch.empty(2, 1, 32, 32, 32, device="meta"))
            torch.stack([output.float().sum() for output in outputs]).sum().backward()
        peaks.append((tracker.peak, tracker.flops))
    assert peaks[0] == peaks[1]


def test_the_trace_counts_what_a_real_iteration_has() -> None:
    nnunet = load_architecture("nnunet")
    config = nnunet.derive((1.0, 1.0, 1.0), (16, 16, 16))
    network, tracker = nnunet.build(config, 1, 2), Tracker(with_rules=False)
    for weights in network.parameters():
        tracker.add(weights)
    with tracker:
        images, classes = torch.zeros(2, 1, 16, 16, 16), torch.zeros(2, 16, 16, 16, dtype=torch.int16)
        outputs = network(images)
        losses = [_loss(logits, classes) for logits in outputs]
        del outputs
        torch.stack(losses).sum().backward()
    foreseen = measure_cost(_workload(nnunet, "fp32"), config, (16, 16, 16), 2)
    assert foreseen.memory_bytes - 4 * foreseen.parameters == pytest.approx(tracker.peak, rel=0.01)


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
