"""What every loss must hold to, with classes and with overlapping regions."""

import pytest
import torch
from torch import nn

from autoseg.data.labels import Labels, Region
from autoseg.losses import available_losses, load_loss
from autoseg.losses._outputs import Outputs

EXCLUSIVE = Labels.from_names({"background": 0, "liver": 1, "tumour": 2, "ignore": 3})
OVERLAPPING = Labels(
    labels={"background": 0, "oedema": 1, "core": 2},
    regions={"whole": Region(labels=(1, 2), value=1), "core": Region(labels=(2,), value=2)},
)
SHAPE = (2, 8, 9, 10)
SCHEMES = {"exclusive": EXCLUSIVE, "overlapping": OVERLAPPING}


@pytest.fixture(params=SCHEMES)
def labels(request: pytest.FixtureRequest) -> Labels:
    return SCHEMES[request.param]


@pytest.fixture(params=available_losses())
def loss(request: pytest.FixtureRequest, labels: Labels) -> nn.Module:
    module = load_loss(request.param)
    return module.build(module.Config(), Outputs(labels))


def make_classes(*, ignored: bool = False) -> torch.Tensor:
    classes = torch.zeros(SHAPE, dtype=torch.int16)
    classes[:, 2:6, 2:7, 3:8] = 1
    classes[:, 3:5, 3:5, 4:6] = 2
    if ignored:
        classes[:, :, 6:] = -1
    return classes


def make_logits(labels: Labels, seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE[0], labels.num_outputs, *SHAPE[1:], generator=torch.Generator().manual_seed(seed))


def make_perfect(labels: Labels, classes: torch.Tensor) -> torch.Tensor:
    if labels.overlapping:
        members = torch.from_numpy(labels.membership())[:, classes.long()].transpose(0, 1)
    else:
        members = nn.functional.one_hot(classes.long(), labels.num_outputs).movedim(-1, 1)
    return members * 40.0 - 20.0


def test_a_perfect_prediction_is_0_and_the_opposite_is_not(loss: nn.Module, labels: Labels) -> None:
    classes = make_classes()
    perfect = make_perfect(labels, classes)
    assert 0 <= loss(perfect, classes) < 1e-3
    assert loss(-perfect, classes) > 0.5


def test_is_a_scalar_in_float32(loss: nn.Module, labels: Labels) -> None:
    value = loss(make_logits(labels), make_classes())
    assert value.shape == ()
    assert value.dtype == torch.float32


def test_gradient_descent_finds_the_classes(loss: nn.Module, labels: Labels) -> None:
    classes = make_classes(ignored=True)
    logits = make_logits(labels).requires_grad_()
    before = loss(logits, classes)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        loss(logits, classes).backward()
        optimizer.step()
    assert loss(logits, classes) < 0.2 * before


def test_ignored_voxels_change_nothing(loss: nn.Module, labels: Labels) -> None:
    classes = make_classes(ignored=True)
    logits = make_logits(labels).requires_grad_()
    other = torch.where((classes == -1)[:, None], make_logits(labels, seed=1) * 30, logits)
    value = loss(logits, classes)
    torch.testing.assert_close(loss(other, classes), value)
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient.movedim(1, -1)[classes == -1] == 0).all()
    # and it is what the remaining voxels alone give
    kept = slice(0, 6)
    torch.testing.assert_close(loss(logits[:, :, :, kept], classes[:, :, kept]), value)


@pytest.mark.parametrize("number", [0, -1])
def test_batches_without_foreground_are_finite(loss: nn.Module, labels: Labels, number: int) -> None:
    logits = make_logits(labels).requires_grad_()
    value = loss(logits, torch.full(SHAPE, number, dtype=torch.int16))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_extreme_logits_are_finite(loss: nn.Module, labels: Labels) -> None:
    classes = make_classes()
    for sign in (1, -1):
        logits = (sign * 1e4 * make_perfect(labels, classes)).requires_grad_()
        value = loss(logits, classes)
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss: nn.Module, labels: Labels, dtype: torch.dtype) -> None:
    logits = (make_logits(labels) * 8).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, make_classes())
    torch.testing.assert_close(value, loss(logits.float(), make_classes()))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.int8])
def test_any_integers_and_any_memory_layout(loss: nn.Module, labels: Labels, dtype: torch.dtype) -> None:
    logits, classes = make_logits(labels), make_classes(ignored=True)
    value = loss(logits.contiguous(memory_format=torch.channels_last_3d), classes.to(dtype))
    torch.testing.assert_close(value, loss(logits, classes))


def test_gradient_is_that_of_finite_differences(loss: nn.Module, labels: Labels) -> None:
    classes = make_classes(ignored=True)[:, 2:5, 4:7, 3:5]
    logits = make_logits(labels).double()[:, :, 2:5, 4:7, 3:5].requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss(values, classes), logits)


def test_device_waits_for_nothing(loss: nn.Module, labels: Labels) -> None:
    """On the meta device whatever needs a value, or a shape that depends on values, is refused."""
    value = loss.to("meta")(make_logits(labels).to("meta"), make_classes().to("meta"))
    assert value.shape == ()
