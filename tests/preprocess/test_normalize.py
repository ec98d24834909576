"""Normalisation against formulas written out with numpy in float64."""

import numpy as np
import pytest

from autoseg.errors import PlanError
from autoseg.plan.plan import Normalization
from autoseg.preprocess.normalize import PART_SIZE, normalize


def _scheme(name: str, *, use_mask: bool = False, **values: float) -> Normalization:
    numbers = {key: values.get(key) for key in ("lower", "upper", "mean", "std")}
    return Normalization(scheme=name, use_mask=use_mask, **numbers)


@pytest.fixture
def image(rng):
    return (rng.standard_normal((1, 6, 7, 8)) * 300 + 1000).astype(np.float32)


def test_zscore(image):
    expected = (image.astype(float) - image.mean(dtype=float)) / image.std(dtype=float)
    normalize(image, [_scheme("zscore")], None)
    np.testing.assert_allclose(image, expected, atol=1e-5)


def test_zscore_of_more_voxels_than_are_summed_at_a_time(rng):
    image = (rng.standard_normal((1, 3, 1, PART_SIZE)) * 5 + 1e4).astype(np.float32)
    expected = (image.astype(float) - image.mean(dtype=float)) / image.std(dtype=float)
    normalize(image, [_scheme("zscore")], None)
    np.testing.assert_allclose(image, expected, atol=1e-3)


def test_zscore_within_a_mask_leaves_zero_outside(image, rng):
    mask = rng.random(image.shape[1:]) < 0.4
    image[:, ~mask] = 0
    inside = image[0][mask].astype(float)
    expected = (inside - inside.mean()) / inside.std()
    normalize(image, [_scheme("zscore", use_mask=True)], mask)
    np.testing.assert_allclose(image[0][mask], expected, atol=1e-5)
    assert not image[:, ~mask].any()


def test_a_mask_is_only_used_by_channels_that_ask_for_it(image):
    both = np.concatenate([image, image])
    mask = np.zeros(image.shape[1:], dtype=bool)
    mask[:3] = True
    normalize(both, [_scheme("zscore"), _scheme("zscore", use_mask=True)], mask)
    assert abs(both[0].mean()) < 1e-5 < abs(both[1].mean())
    assert abs(both[1][mask].mean()) < 1e-5


def test_ct(image):
    expected = (np.clip(image, 800, 1200) - 990) / 120
    normalize(image, [_scheme("ct", lower=800.0, upper=1200.0, mean=990.0, std=120.0)], None)
    np.testing.assert_allclose(image, expected, atol=1e-5)


def test_rescale_rgb_and_none(image):
    image = np.concatenate([image] * 3)
    expected = (image[0] - image[0].min()) / np.ptp(image[0]), image[1] / 255, image[2].copy()
    normalize(image, [_scheme("rescale"), _scheme("rgb"), _scheme("none")], None)
    np.testing.assert_allclose(image, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["zscore", "rescale"])
def test_a_constant_image_becomes_zero(name):
    image = np.full((1, 4, 4, 4), 0.1, dtype=np.float32)
    normalize(image, [_scheme(name)], None)
    np.testing.assert_array_equal(image, 0)


def test_an_empty_mask_changes_nothing():
    image = np.zeros((1, 4, 4, 4), dtype=np.float32)
    normalize(image, [_scheme("zscore", use_mask=True)], np.zeros((4, 4, 4), dtype=bool))
    np.testing.assert_array_equal(image, 0)


def test_ct_without_its_values_is_refused(image):
    with pytest.raises(PlanError, match="'ct' needs lower"):
        normalize(image, [_scheme("ct")], None)


def test_another_number_of_channels_is_refused(image):
    with pytest.raises(PlanError, match="1 channel, the plan normalises 2"):
        normalize(image, [_scheme("none")] * 2, None)
