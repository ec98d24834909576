"""Losses against MONAI's, and Dice with cross-entropy against nnU-Net's formula written out."""

import pytest
import torch

from autoseg.data.labels import Labels, Region
from autoseg.losses import dice, dice_ce, focal, generalized_dice, tversky

losses = pytest.importorskip("monai.losses")

LABELS = Labels.from_names({"background": 0, "a": 1, "b": 2, "c": 3})
REGIONS = Labels(
    labels={"background": 0, "a": 1, "b": 2},
    regions={"both": Region(labels=(1, 2), value=1), "b": Region(labels=(2,), value=2)},
)
COMMON = {"to_onehot_y": True, "softmax": True}


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 4, (3, 6, 7, 8), generator=generator)
    return torch.randn(3, 4, 6, 7, 8, generator=generator) * 2, classes.short()


def check(ours: torch.nn.Module, theirs: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, classes = batch[0].clone().requires_grad_(), batch[1]
    found, expected = ours(logits, classes), theirs(logits, classes[:, None].long())
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("batch_dice", [False, True])
class TestAgainstMonai:
    def test_dice(self, batch: tuple[torch.Tensor, torch.Tensor], batch_dice: bool) -> None:
        ours = dice.build(dice.Config(batch_dice=batch_dice), LABELS)
        check(ours, losses.DiceLoss(include_background=False, batch=batch_dice, **COMMON), batch)

    def test_dice_ce(self, batch: tuple[torch.Tensor, torch.Tensor], batch_dice: bool) -> None:
        ours = dice_ce.build(dice_ce.Config(batch_dice=batch_dice, weight_dice=0.7, weight_ce=1.3), LABELS)
        theirs = losses.DiceCELoss(include_background=False, batch=batch_dice, lambda_dice=0.7, lambda_ce=1.3, **COMMON)
        check(ours, theirs, batch)

    def test_tversky(self, batch: tuple[torch.Tensor, torch.Tensor], batch_dice: bool) -> None:
        ours = tversky.build(tversky.Config(alpha=0.2, beta=0.8, batch_dice=batch_dice), LABELS)
        theirs = losses.TverskyLoss(include_background=False, alpha=0.2, beta=0.8, batch=batch_dice, **COMMON)
        check(ours, theirs, batch)

    @pytest.mark.parametrize("absent", [None, 2])
    def test_generalized_dice(
        self, batch: tuple[torch.Tensor, torch.Tensor], batch_dice: bool, absent: int | None
    ) -> None:
        classes = torch.where(batch[1] == absent, 0, batch[1]) if absent else batch[1]
        ours = generalized_dice.build(generalized_dice.Config(batch_dice=batch_dice, smooth=0.0), LABELS)
        theirs = losses.GeneralizedDiceLoss(batch=batch_dice, smooth_nr=0, smooth_dr=0, **COMMON)
        check(ours, theirs, (batch[0], classes))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(batch: tuple[torch.Tensor, torch.Tensor], gamma: float) -> None:
    """MONAI averages over the classes too, of which all but one are 0."""
    theirs = losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma)
    ours = focal.build(focal.Config(gamma=gamma), LABELS)
    check(ours, lambda logits, classes: 4 * theirs(logits, classes), batch)  # type: ignore[arg-type]


def make_regions(classes: torch.Tensor) -> torch.Tensor:
    return torch.stack([classes >= 1, classes == 2], dim=1)


@pytest.mark.parametrize("ignored", [False, True])
def test_dice_ce_of_regions_is_nnunets(ignored: bool) -> None:
    """Dice of all regions with sigmoids, plus binary cross-entropy; written out voxel set by voxel set."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 5, 6, 7, generator=generator)
    classes = torch.randint(-1 if ignored else 0, 3, (2, 5, 6, 7), generator=generator)
    known, truth = classes >= 0, make_regions(classes)
    probabilities = logits.sigmoid()
    ratios, entropies = [], []
    for sample in range(2):
        for region in range(2):
            p = probabilities[sample, region][known[sample]]
            t = truth[sample, region][known[sample]].float()
            ratios.append((2 * (p * t).sum() + 1e-5) / (t.sum() + p.sum() + 1e-5))
            entropies.append(torch.nn.functional.binary_cross_entropy(p, t, reduction="none"))
    expected = 1 - torch.stack(ratios).mean() + torch.cat(entropies).mean()
    torch.testing.assert_close(dice_ce.build(dice_ce.Config(), REGIONS)(logits, classes), expected)


def test_focal_of_regions(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, classes = batch[0][:, :2], batch[1].clamp_max(2)
    expected = losses.FocalLoss(gamma=2.0)(logits, make_regions(classes).float())
    torch.testing.assert_close(focal.build(focal.Config(), REGIONS)(logits, classes), expected)
