"""Weights and reduced classes of a loss at several resolutions."""

import pytest
import torch
from torch.nn import functional as F

from autoseg.data.labels import Labels
from autoseg.errors import DocumentError, PlanError
from autoseg.losses import dice_ce
from autoseg.losses._deep_supervision import build_loss, reduce_classes, weigh_resolutions
from autoseg.losses._outputs import Outputs

LABELS = Labels.from_names({"background": 0, "a": 1, "b": 2})


def make_heads(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, *shape, generator=generator).requires_grad_() for shape in shapes]


def make_classes(*shape: int) -> torch.Tensor:
    return torch.randint(-1, 3, (2, *shape), generator=torch.Generator().manual_seed(1)).short()


@pytest.mark.parametrize("shape", [(8, 12, 6), (4, 12, 3), (2, 4, 2), (1, 1, 1), (5, 7, 6), (3, 12, 4)])
def test_classes_are_reduced_like_nearest_exact(shape: tuple[int, ...]) -> None:
    classes = make_classes(8, 12, 6)
    expected = F.interpolate(classes[:, None].float(), shape, mode="nearest-exact")[:, 0]
    found = reduce_classes(classes, shape)
    assert found.dtype == classes.dtype
    assert torch.equal(found.float(), expected)


def test_weights_are_nnunets() -> None:
    assert weigh_resolutions(1) == [1.0]
    assert weigh_resolutions(2) == [1.0, 0.0]
    torch.testing.assert_close(weigh_resolutions(4), [4 / 7, 2 / 7, 1 / 7, 0.0])


def test_is_the_weighted_sum() -> None:
    heads, classes = make_heads((8, 12, 8), (4, 6, 8), (2, 3, 4)), make_classes(8, 12, 8)
    single = dice_ce.build(dice_ce.Config(), Outputs(LABELS))
    expected = 2 / 3 * single(heads[0], classes) + 1 / 3 * single(heads[1], classes[:, 1::2, 1::2])
    loss = build_loss("dice_ce", {}, LABELS, deep_supervision=True)
    value = loss(heads, classes)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert heads[0].grad is not None and heads[1].grad is not None
    assert heads[2].grad is None


def test_only_the_finest_counts_without_deep_supervision() -> None:
    heads, classes = make_heads((8, 12, 8), (4, 6, 8)), make_classes(8, 12, 8)
    expected = dice_ce.build(dice_ce.Config(), Outputs(LABELS))(heads[0], classes)
    torch.testing.assert_close(build_loss("dice_ce", {}, LABELS, deep_supervision=False)(heads, classes), expected)


def test_network_with_one_output_has_its_whole_weight() -> None:
    heads, classes = make_heads((8, 12, 8)), make_classes(8, 12, 8)
    values = [build_loss("dice", {}, LABELS, deep_supervision=flag)(heads, classes) for flag in (True, False)]
    torch.testing.assert_close(*values)


def test_has_no_state_to_be_saved() -> None:
    assert not build_loss("dice_ce", {}, LABELS, deep_supervision=True).state_dict()


def test_mistakes_are_told() -> None:
    with pytest.raises(PlanError, match="did you mean 'tversky'"):
        build_loss("tverski", {}, LABELS, deep_supervision=True)
    with pytest.raises(DocumentError, match=r"training\.loss \(dice\): .*did you mean 'smooth'"):
        build_loss("dice", {"smoth": 1.0}, LABELS, deep_supervision=True)
