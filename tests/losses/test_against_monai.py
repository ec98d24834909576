"""Losses against MONAI's and PyTorch's, or against their formula written out."""

import itertools
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from autoseg.data.labels import Labels, Region
from autoseg.losses import (
    available_losses,
    boundary,
    dice,
    dice_ce,
    dice_focal,
    dice_topk,
    focal,
    focal_tversky,
    generalized_dice,
    tversky,
)
from autoseg.losses._deep_supervision import build_loss
from autoseg.losses._outputs import Outputs

losses = pytest.importorskip("monai.losses")

LABELS = Labels.from_names({"background": 0, "a": 1, "b": 2, "c": 3})
REGIONS = Labels(
    labels={"background": 0, "a": 1, "b": 2},
    regions={"both": Region(labels=(1, 2), value=1), "b": Region(labels=(2,), value=2)},
)
COMMON = {"to_onehot_y": True, "softmax": True}


def make_batch(*, ignored: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(-1 if ignored else 0, 4, (3, 6, 7, 8), generator=generator)
    return torch.randn(3, 4, 6, 7, 8, generator=generator) * 2, classes.short()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return make_batch()


def check(ours: torch.nn.Module, theirs: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, classes = batch[0].clone().requires_grad_(), batch[1]
    found, expected = ours(logits, classes), theirs(logits, classes[:, None].long())
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("batch_dice", [False, True])
class TestAgainstMonai:
    def test_dice(self, batch: tuple[torch.Tensor, torch.Tensor], batch_dice: bool) -> None:
        ours = dice.build(dice.Config(batch_dice=batch_dice), Outputs(LABELS))
        check(ours, losses.DiceLoss(include_background=False, batch=batch_dice, **COMMON), batch)

    def test_dice_ce(self, batch: tuple[torch.Tensor, torch.Tensor], batch_dice: bool) -> None:
        ours = dice_ce.build(dice_ce.Config(batch_dice=batch_dice, weight_dice=0.7, weight_ce=1.3), Outputs(LABELS))
        theirs = losses.DiceCELoss(include_background=False, batch=batch_dice, lambda_dice=0.7, lambda_ce=1.3, **COMMON)
        check(ours, theirs, batch)

    def test_tversky(self, batch: tuple[torch.Tensor, torch.Tensor], batch_dice: bool) -> None:
        ours = tversky.build(tversky.Config(alpha=0.2, beta=0.8, batch_dice=batch_dice), Outputs(LABELS))
        theirs = losses.TverskyLoss(include_background=False, alpha=0.2, beta=0.8, batch=batch_dice, **COMMON)
        check(ours, theirs, batch)

    @pytest.mark.parametrize("absent", [None, 2])
    def test_generalized_dice(
        self, batch: tuple[torch.Tensor, torch.Tensor], batch_dice: bool, absent: int | None
    ) -> None:
        classes = torch.where(batch[1] == absent, 0, batch[1]) if absent else batch[1]
        ours = generalized_dice.build(generalized_dice.Config(batch_dice=batch_dice, smooth=0.0), Outputs(LABELS))
        theirs = losses.GeneralizedDiceLoss(batch=batch_dice, smooth_nr=0, smooth_dr=0, **COMMON)
        check(ours, theirs, (batch[0], classes))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(batch: tuple[torch.Tensor, torch.Tensor], gamma: float) -> None:
    """MONAI averages over the classes too, of which all but one are 0."""
    theirs = losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma)
    ours = focal.build(focal.Config(gamma=gamma), Outputs(LABELS))
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
    torch.testing.assert_close(dice_ce.build(dice_ce.Config(), Outputs(REGIONS))(logits, classes), expected)


def test_focal_of_regions(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, classes = batch[0][:, :2], batch[1].clamp_max(2)
    expected = losses.FocalLoss(gamma=2.0)(logits, make_regions(classes).float())
    torch.testing.assert_close(focal.build(focal.Config(), Outputs(REGIONS))(logits, classes), expected)


@pytest.mark.parametrize("scheme", ["exclusive", "overlapping"])
def test_dice_topk_is_the_mean_of_the_hardest_voxels(scheme: str) -> None:
    """Voxels sorted by hand; those ignored do not count into the share."""
    labels, (logits, classes) = {"exclusive": LABELS, "overlapping": REGIONS}[scheme], make_batch(ignored=True)
    logits, classes = logits[:, : labels.num_outputs], classes.clamp_max(labels.num_classes - 1)
    config = dice_topk.Config(weight_dice=0.0, share=0.2)
    known = classes >= 0
    if labels.overlapping:
        entropy = F.binary_cross_entropy_with_logits(logits, make_regions(classes).float(), reduction="none")
        values = entropy.movedim(1, -1)[known].flatten()
    else:
        values = F.cross_entropy(logits, classes.clamp_min(0).long(), reduction="none")[known]
    number = math.ceil(0.2 * len(values))
    expected = values.sort(descending=True).values[:number].mean()
    torch.testing.assert_close(dice_topk.build(config, Outputs(labels))(logits, classes), expected)


def test_focal_tversky_is_a_power_of_monais_tversky(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    theirs = losses.TverskyLoss(include_background=False, alpha=0.3, beta=0.7, reduction="none", **COMMON)
    logits, classes = batch
    found = focal_tversky.build(focal_tversky.Config(exponent=0.75), Outputs(LABELS))(logits, classes)
    torch.testing.assert_close(found, theirs(logits, classes[:, None].long()).pow(0.75).mean())


def test_dice_focal(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    parts = losses.DiceLoss(include_background=False, **COMMON), losses.FocalLoss(to_onehot_y=True, use_softmax=True)
    ours = dice_focal.build(dice_focal.Config(weight_dice=0.6, weight_focal=1.7), Outputs(LABELS))
    check(ours, lambda logits, classes: 0.6 * parts[0](logits, classes) + 4 * 1.7 * parts[1](logits, classes), batch)  # type: ignore[arg-type]


@pytest.mark.parametrize("reach", [2, 20])
def test_boundary_distances_are_scipys(reach: int) -> None:
    """scipy measures to voxel centres; from there on half a voxel less."""
    generator = torch.Generator().manual_seed(0)
    seeds = torch.rand(2, 2, 9, 12, 10, generator=generator) > 0.98
    seeds[1, 1] = False
    found = boundary.find_distance(seeds, reach)
    for sample, output in itertools.product(range(2), range(2)):
        mask = seeds[sample, output]
        distance = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
        expected = torch.from_numpy(np.clip((distance - 0.5) / reach, 0, 1)).float()
        torch.testing.assert_close(found[sample, output], expected)


def test_boundary_is_the_papers_but_for_a_constant() -> None:
    """Mean of probability times signed distance; the constant does not depend on the network."""
    logits, classes = make_batch()
    ours = boundary.build(boundary.Config(weight_dice=0.0, weight_ce=0.0, reach=64), Outputs(LABELS))
    signed = torch.zeros(len(classes), 3, *classes.shape[1:])
    for sample, label in itertools.product(range(len(classes)), range(1, 4)):
        mask = classes[sample] == label
        outside, inside = (ndimage.distance_transform_edt(part) for part in (~mask, mask))
        signed[sample, label - 1] = torch.from_numpy(np.where(mask, 0.5 - inside, outside - 0.5)) / 64
    papers = [(values.softmax(1)[:, 1:] * signed).mean() for values in (logits, logits.flip(1))]
    found = [ours(values, classes) for values in (logits, logits.flip(1))]
    torch.testing.assert_close(found[0] - found[1], papers[0] - papers[1])


class TestClassWeights:
    """The mean over outputs, or over voxels by their class, with ``class_weights``."""

    WEIGHTS: ClassVar = {"background": 0.2, "b": 3.0}

    def test_cross_entropy_is_pytorchs(self) -> None:
        logits, classes = make_batch(ignored=True)
        config = dice_ce.Config(weight_dice=0.0)
        weight = torch.tensor([0.2, 1.0, 3.0, 1.0])
        expected = F.cross_entropy(logits, classes.long(), weight=weight, ignore_index=-1)
        torch.testing.assert_close(dice_ce.build(config, Outputs(LABELS, self.WEIGHTS))(logits, classes), expected)

    def test_binary_cross_entropy_of_regions(self) -> None:
        logits, classes = make_batch()
        logits, classes = logits[:, :2], classes.clamp_max(2)
        entropy = F.binary_cross_entropy_with_logits(logits, make_regions(classes).float(), reduction="none")
        expected = (entropy[:, 0].mean() + 3 * entropy[:, 1].mean()) / 4
        ours = dice_ce.build(dice_ce.Config(weight_dice=0.0), Outputs(REGIONS, {"b": 3.0}))
        torch.testing.assert_close(ours(logits, classes), expected)

    def test_dice_is_the_weighted_mean_of_monais(self) -> None:
        logits, classes = make_batch()
        each = losses.DiceLoss(include_background=False, reduction="none", **COMMON)(logits, classes[:, None].long())
        expected = (each.flatten(1).mean(0) * torch.tensor([1.0, 3.0, 1.0])).sum() / 5
        found = dice.build(dice.Config(), Outputs(LABELS, self.WEIGHTS))(logits, classes)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", available_losses())
    @pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["exclusive", "overlapping"])
    def test_reach_every_loss(self, name: str, labels: Labels) -> None:
        logits, classes = make_batch()
        logits, classes = logits[:, : labels.num_outputs], classes.clamp_max(labels.num_classes - 1)
        plain, equal, weighted = (
            build_loss(name, {}, labels, deep_supervision=False, class_weights=weights)([logits], classes)
            for weights in ({}, {one: 1.0 for one in labels.output_names}, {"b": 5.0})
        )
        torch.testing.assert_close(plain, equal)
        assert not torch.isclose(plain, weighted, rtol=1e-3)
