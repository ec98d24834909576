"""2,000 drawn parameter sets of nnU-Net's recipe and of DA5, against the distributions that nnU-Net documents."""

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.transform import Rotation

from autoseg.augment import Parameters, load_augmentation
from autoseg.documents import parse_document
from autoseg.plan.augmentation import Setting, make_recipe

COUNT = 2000
SHAPE = (COUNT, 2, 64, 64, 64)
LEAST_P_VALUE = 1e-3
"""With fixed seeds a test passes or fails for good; about 50 numbers are tested at this level."""


def draw(word: str, place: int, setting: Setting | None = None) -> Parameters:
    entry = make_recipe(word, setting or Setting(SHAPE[2:]))[place]
    module = load_augmentation(entry["name"])
    text = json.dumps({key: value for key, value in entry.items() if key != "name"})
    config = parse_document(text, module.Config, where=entry["name"])
    return module.sample(config, SHAPE, torch.Generator().manual_seed(100 + place))


def check_rate(flags: torch.Tensor, probability: float) -> None:
    found = stats.binomtest(int(flags.sum()), flags.numel(), probability)
    assert found.pvalue > LEAST_P_VALUE, f"{flags.double().mean():.4f} instead of {probability}"


def check_uniform(values: torch.Tensor, low: float, high: float) -> None:
    check(values, stats.uniform(low, high - low).cdf)


def check(values: torch.Tensor, cdf: Callable[[Any], Any]) -> None:
    assert len(values) > 200
    assert stats.kstest(values.double().numpy(), cdf).pvalue > LEAST_P_VALUE


def two_sided(low: float, high: float, middle: tuple[float, float] = (1.0, 1.0)) -> Callable[[Any], Any]:
    """Half of the numbers uniform from ``low`` to the first of ``middle``, half from the second to ``high``."""
    lower, upper = stats.uniform(low, middle[0] - low), stats.uniform(middle[1], high - middle[1])
    return lambda x: (lower.cdf(x) + upper.cdf(x)) / 2


class TestDefault:
    def test_spatial(self) -> None:
        drawn = draw("nnunet", 0)
        matrix = drawn["matrix"].double()
        factor = matrix.det().abs().pow(1 / 3)
        scaled = (factor - 1).abs() > 1e-5
        angles = recover_angles(matrix / factor[:, None, None])
        rotated = (angles.abs() > 1e-3).any(1)
        check_rate(rotated, 0.2)
        check_rate(scaled, 0.2)
        check_rate(rotated & scaled, 0.04)
        check_rate(drawn["applied"], 1 - 0.8 * 0.8)
        check_uniform(factor[scaled], 0.7, 1.4)
        for axis in range(3):
            check_uniform(angles[rotated, axis], -30, 30)
        assert not drawn["deformed"].any()

    def test_flat_patches(self) -> None:
        drawn = draw("nnunet", 0, Setting((16, 64, 64)))
        matrix = drawn["matrix"].double()
        assert (matrix[:, 0] == torch.tensor([1.0, 0.0, 0.0])).all()
        angle = torch.rad2deg(torch.atan2(matrix[:, 2, 1], matrix[:, 1, 1]))
        check_uniform(angle[angle != 0], -180, 180)

    def test_noise(self) -> None:
        drawn = draw("nnunet", 1)
        check_rate(drawn["applied"], 0.1)
        check_uniform(drawn["sigma"], 0.0, 0.1)
        assert len(drawn["seed"].unique()) == COUNT

    def test_blur(self) -> None:
        drawn = draw("nnunet", 2)
        check_rate(drawn["applied"].any(1), 0.2 * 0.75)
        check_rate(drawn["applied"][:, 0], 0.2 * 0.5)
        for axis in range(3):
            check_uniform(drawn["sigma"][:, 0, axis], 0.5, 1.0)
        assert abs(np.corrcoef(drawn["sigma"].flatten(1).T.numpy())[0, 1:]).max() < 0.08

    @pytest.mark.parametrize("place", [3, 4])
    def test_brightness_and_contrast(self, place: int) -> None:
        drawn = draw("nnunet", place)
        check_rate(drawn["applied"].view(COUNT, -1)[:, 0], 0.15)
        for channel in range(2):
            check(drawn["factor"][:, channel], two_sided(0.75, 1.25))

    def test_low_resolution(self) -> None:
        drawn = draw("nnunet", 5)
        check_rate(drawn["applied"].any(1), 0.25 * 0.75)
        check_uniform(drawn["scale"][:, 1, 0], 0.5, 1.0)
        assert (drawn["scale"] == drawn["scale"][..., :1]).all()

    @pytest.mark.parametrize(("place", "probability", "sign"), [(6, 0.1, -1), (7, 0.3, 1)])
    def test_gamma(self, place: int, probability: float, sign: int) -> None:
        drawn = draw("nnunet", place)
        check_rate(drawn["applied"], probability)
        check(drawn["gamma"][:, 0], two_sided(0.7, 1.5))
        assert set(drawn["sign"].tolist()) == {sign}

    def test_mirror(self) -> None:
        mirrored = draw("nnunet", 8)["mirrored"]
        for axis in range(3):
            check_rate(mirrored[:, axis], 0.5)
        check_rate(mirrored.all(1), 1 / 8)


class TestDA5:
    def test_spatial(self) -> None:
        drawn = draw("da5", 0)
        matrix = drawn["matrix"].double()
        factors = matrix.square().sum(1).sqrt()  # the lengths of the columns, since scaling comes first
        angles = recover_angles(matrix / factors[:, None])
        scaled = ((factors - 1).abs() > 1e-5).any(1)
        check_rate(scaled, 0.2)
        for axis in range(3):
            check_uniform(factors[scaled, axis], 0.7, 1.43)
            turned = angles[:, axis].abs() > 1e-3
            check_rate(turned, 0.4 * 0.5)
            check_uniform(angles[turned, axis], -30, 30)
        check_rate((angles.abs() > 1e-3).any(1), 0.4 * (1 - 0.5**3))

    def test_quarter_turns_and_exchanges(self) -> None:
        drawn = draw("da5", 1)
        check_rate(drawn["turns"] > 0, 0.5 * 0.75)
        for value in range(3):
            check_rate(drawn["plane"] == value, 1 / 3)
            check_rate(drawn["turns"] == value + 1, 0.5 / 4)
        orders = draw("da5", 2)["order"]
        check_rate((orders == torch.arange(3)).all(1), 0.5 + 0.5 / 6)
        check_rate((orders == torch.tensor([2, 0, 1])).all(1), 0.5 / 6)

    def test_median_or_blur(self) -> None:
        drawn = draw("da5", 3)
        check_rate(drawn["choice"] == 0, 0.1)
        check_rate(drawn["choice"] == 1, 0.1)
        check_rate(drawn["0/median_filter/applied"][:, 0], 0.5)
        for size in range(2, 8):
            check_rate(drawn["0/median_filter/size"][:, 0] == size, 1 / 6)
        sigma = drawn["1/gaussian_blur/sigma"]
        check_uniform(sigma[:, 0, 0], 0.3, 1.5)
        assert (sigma == sigma[..., :1]).all()

    def test_additive_brightness(self) -> None:
        drawn = draw("da5", 5)
        check_rate(drawn["applied"][:, 0], 0.1 * 0.5)
        check(drawn["shift"][:, 1], stats.norm(0, 0.5).cdf)

    def test_contrast(self) -> None:
        drawn = draw("da5", 6)
        check_rate(drawn["choice"] >= 0, 0.2)
        assert drawn["0/contrast/preserved"].all() and not drawn["1/contrast/preserved"].any()
        check_rate(drawn["0/contrast/applied"][:, 0], 0.5)
        check(drawn["1/contrast/factor"][:, 0], two_sided(0.5, 2.0))

    def test_blank_rectangles(self) -> None:
        drawn = draw("da5", 11)
        check_rate(drawn["applied"][:, 0], 0.4 * 0.5)
        there = (drawn["size"] > 0).all(-1)
        counts = there.sum(-1)[drawn["applied"]]
        for count in range(1, 5):
            check_rate(counts == count, 0.25)
        size, start = drawn["size"][there], drawn["start"][there]
        assert (size.min(), size.max()) == (6, 20)  # from 64 // 10, below 64 // 3
        for value in (6, 13, 20):
            check_rate(size[:, 0] == value, 1 / 15)
        assert (start >= 0).all() and (start + size <= 64).all()
        share = (start + torch.rand(start.shape, generator=torch.Generator().manual_seed(0))) / (65 - size)
        check_uniform(share[:, 1], 0, 1)

    @pytest.mark.parametrize("place", [12, 13])
    def test_bumps(self, place: int) -> None:
        drawn = draw("da5", place)
        check_rate(drawn["applied"][:, 0], 0.3 * 0.5)
        for axis in range(3):
            check_uniform(drawn["centre"][:, 0, axis] / 64, -0.5, 1.5)
            check_uniform(drawn["width"][:, 1, axis].log(), math.log(64 // 6), math.log(64))

    def test_gradients_and_local_gamma(self) -> None:
        check(draw("da5", 12)["height"][:, 0], two_sided(-5, 5, middle=(-1, 1)))
        check(draw("da5", 13)["gamma"][:, 0], two_sided(0.01, 4.0, middle=(0.8, 1.5)))

    def test_sharpening(self) -> None:
        drawn = draw("da5", 14)
        check_rate(drawn["applied"][:, 0], 0.2 * 0.5)
        check_uniform(drawn["strength"][:, 0], 0.1, 1.0)


def recover_angles(rotation: torch.Tensor) -> torch.Tensor:
    """Return the angles (N, 3) in degrees about z, y and x of rotations by z first, then y, then x."""
    return torch.from_numpy(Rotation.from_matrix(rotation.numpy()).as_euler("xyz", degrees=True))


def test_the_check_itself_can_fail() -> None:
    with pytest.raises(AssertionError):
        check_uniform(torch.linspace(0, 1, COUNT).square(), 0, 1)
    with pytest.raises(AssertionError):
        check_rate(torch.arange(COUNT) % 5 == 0, 0.25)


class TestWhatAPreviousStageFound:
    SETTING = Setting(SHAPE[2:], num_found=3)

    @pytest.mark.parametrize(("word", "share"), [("nnunet", 0.5), ("da5", 1.0)])
    def test_morphology(self, word: str, share: float) -> None:
        drawn = draw(word, -2, self.SETTING)
        samples = drawn["applied"].any(1)
        check_rate(samples, 0.4 * (1 - (1 - share) ** 3))
        check_rate(drawn["applied"], 0.4 * share)
        for name, values in (("operator", range(4)), ("radius", range(1, 9))):
            counts = [int((drawn[name] == value).sum()) for value in values]
            assert sum(counts) == 3 * COUNT and stats.chisquare(counts).pvalue > LEAST_P_VALUE
        self.check_orders(drawn["order"])

    def test_components(self) -> None:
        drawn = draw("nnunet", -1, self.SETTING)
        check_rate(drawn["applied"], 0.2 * 0.5)
        check_uniform(drawn["place"].flatten(), 0, 1)
        assert not drawn["other"].any()
        assert drawn["most"].unique().tolist() == [pytest.approx(0.15 * 64**3)]
        self.check_orders(drawn["order"])
        config = load_augmentation("previous_component").Config(probability_other=1.0, num_labels=3)
        swapped = load_augmentation("previous_component").sample(config, SHAPE, torch.Generator().manual_seed(0))
        pairs = torch.stack([swapped["order"].flatten(), swapped["other"].flatten()])
        counts = [int((pairs == torch.tensor([[a], [b]])).all(0).sum()) for a in (1, 2, 3) for b in (1, 2, 3) if a != b]
        assert sum(counts) == 3 * COUNT and stats.chisquare(counts).pvalue > LEAST_P_VALUE

    def check_orders(self, order: torch.Tensor) -> None:
        found = [tuple(row) for row in order.tolist()]
        counts = [found.count(one) for one in itertools.permutations((1, 2, 3))]
        assert sum(counts) == COUNT and stats.chisquare(counts).pvalue > LEAST_P_VALUE
