"""Statistics against scipy, against hand-made numbers, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from autoseg.compare.statistics import (
    MIN_CASES,
    Difference,
    bootstrap_interval,
    compare_paired,
    correct_holm,
    describe,
    first_place_shares,
    judge,
    signed_rank_p,
)


def _skewed(rng: np.random.Generator, number: int) -> np.ndarray:
    return rng.gamma(1.0, 0.02, number) - 0.015


@pytest.mark.parametrize("number", [8, 40, 260])
def test_the_interval_is_scipys_bca(rng: np.random.Generator, number: int) -> None:
    values = _skewed(rng, number)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=30000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    low, high = bootstrap_interval(values, num_resamples=30000)
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.02 * width)
    assert high == pytest.approx(expected.high, abs=0.02 * width)


def test_the_interval_of_a_skewed_sample_reaches_further_into_the_tail(rng: np.random.Generator) -> None:
    values = rng.gamma(0.5, 1.0, 30)
    low, high = bootstrap_interval(values)
    assert high - values.mean() > 1.15 * (values.mean() - low)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(300):
        low, high = bootstrap_interval(rng.normal(0.3, 1.0, 40), num_resamples=999)
        covered.append(low <= 0.3 <= high)
    assert 0.91 <= np.mean(covered) <= 0.98


def test_equal_values_have_an_interval_without_width() -> None:
    assert bootstrap_interval(np.full(10, 0.7)) == pytest.approx((0.7, 0.7))


def test_the_same_seed_gives_the_same_interval(rng: np.random.Generator) -> None:
    values = _skewed(rng, 20)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_description_by_hand() -> None:
    found = describe([1.0, None, 2.0, 6.0])
    assert (found.num, found.num_undefined, found.mean, found.median) == (3, 1, 3.0, 2.0)
    assert found.std == pytest.approx(7**0.5)
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize(("values", "mean"), [([], None), ([None], None), ([0.5], 0.5)])
def test_description_of_next_to_nothing(values: list[float | None], mean: float | None) -> None:
    found = describe(values)
    assert (found.mean, found.std) == (mean, None)


def test_pairs_with_one_value_are_counted_and_left_out() -> None:
    found = compare_paired([(0.9, 0.8), (None, 0.0), (0.5, None), (None, None), (0.7, 0.4)])
    assert (found.num, found.num_one_sided) == (2, 2)
    assert found.mean == pytest.approx(0.2)
    assert found.p_value is None and found.low is None


def test_signed_rank_is_scipys_and_survives_equal_pairs(rng: np.random.Generator) -> None:
    values = _skewed(rng, 25)
    assert signed_rank_p(values) == stats.wilcoxon(values).pvalue
    assert signed_rank_p(np.append(values, [0.0, 0.0])) == stats.wilcoxon(values).pvalue
    assert signed_rank_p(np.zeros(9)) == 1.0


def test_six_pairs_are_the_fewest_that_can_be_significant() -> None:
    assert signed_rank_p(np.arange(1.0, MIN_CASES + 1)) < 0.05 <= signed_rank_p(np.arange(1.0, MIN_CASES))


def test_holm_by_hand() -> None:
    assert correct_holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert correct_holm([0.9, 0.8]) == [1.0, 1.0]
    assert correct_holm([]) == []


def test_first_places_are_shared_and_favour_the_better(rng: np.random.Generator) -> None:
    base = rng.normal(0.8, 0.05, 30)
    shares = first_place_shares(np.stack([base, base, base - 0.2], axis=1))
    assert shares == [pytest.approx(0.5), pytest.approx(0.5), 0.0]
    close = first_place_shares(np.stack([base, base + rng.normal(0.004, 0.02, 30)], axis=1))
    assert sum(close) == pytest.approx(1) and 0.5 < close[1] < 1


def _difference(mean: float, low: float | None, high: float | None) -> Difference:
    return Difference(num=30, num_one_sided=0, mean=mean, low=low, high=high, p_value=0.01)


@pytest.mark.parametrize(
    ("mean", "low", "high", "p", "verdict"),
    [
        (0.03, 0.01, 0.05, 0.001, "better"),
        (-0.03, -0.05, -0.01, 0.001, "worse"),
        (0.004, 0.001, 0.008, 0.001, "equal"),
        (0.0, -0.01, 0.01, 0.9, "equal"),
        (0.03, 0.01, 0.05, 0.06, "undecided"),
        (0.01, -0.005, 0.025, 0.001, "undecided"),
        (0.03, None, None, 0.001, "undecided"),
        (0.03, 0.01, 0.05, None, "undecided"),
    ],
)
def test_verdicts(mean: float, low: float | None, high: float | None, p: float | None, verdict: str) -> None:
    assert judge(_difference(mean, low, high), p, margin=0.01, higher_is_better=True) == verdict


def test_verdicts_of_a_distance_are_turned_round_and_never_equal() -> None:
    assert judge(_difference(-0.3, -0.5, -0.1), 0.001, margin=None, higher_is_better=False) == "better"
    assert judge(_difference(0.3, 0.1, 0.5), 0.001, margin=None, higher_is_better=False) == "worse"
    assert judge(_difference(0.0, -0.001, 0.001), 0.9, margin=None, higher_is_better=False) == "undecided"


def test_without_a_difference_a_verdict_is_seldom_wrong() -> None:
    """Three plans that differ from the baseline by chance only: rarely is any of them called better or worse."""
    rng = np.random.default_rng(11)
    wrong = 0
    for trial in range(150):
        base = rng.beta(12, 2, 30)
        others = base[:, None] + rng.normal(0, 0.06, (30, 3))
        found = [compare_paired(list(zip(others[:, k].tolist(), base.tolist())), seed=trial) for k in range(3)]
        corrected = correct_holm([difference.p_value for difference in found])
        verdicts = [judge(d, p, margin=0.01, higher_is_better=True) for d, p in zip(found, corrected)]
        wrong += any(verdict in ("better", "worse") for verdict in verdicts)
    assert wrong / 150 <= 0.08


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(2)
    base = rng.beta(12, 2, 60)
    found = compare_paired(list(zip((base + rng.normal(0.03, 0.03, 60)).tolist(), base.tolist())))
    assert judge(found, found.p_value, margin=0.01, higher_is_better=True) == "better"
