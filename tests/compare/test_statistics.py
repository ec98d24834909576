"""Statistics against scipy and statsmodels, against hand-made numbers, and by simulation."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from autoseg.compare.resampling import bootstrap_intervals, expanded_level, number_of_resamples, permutation_p_values
from autoseg.compare.statistics import (
    MIN_CASES,
    Difference,
    compare_paired,
    correct_holm,
    describe,
    judge,
    more_cases_needed,
    rank_biserial,
    signed_rank_p,
)

NAN = float("nan")


def _skewed(rng: np.random.Generator, number: int) -> np.ndarray:
    return rng.gamma(1.0, 0.02, number) - 0.015


def _compare(first: list[float], second: list[float]) -> Difference:
    return compare_paired([(np.array(first), np.array(second))])[0]


@pytest.mark.parametrize("number", [8, 40, 260])
def test_the_interval_is_scipys_bca(rng: np.random.Generator, number: int) -> None:
    values = _skewed(rng, number)
    level, generator = expanded_level(0.95, number), np.random.default_rng(1)
    expected = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=30000, rng=generator
    ).confidence_interval
    ((low, high),) = bootstrap_intervals([values], num_resamples=30000)
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.02 * width)
    assert high == pytest.approx(expected.high, abs=0.02 * width)


@pytest.mark.parametrize("number", [6, 20, 100])
def test_the_expanded_interval_of_normal_values_is_as_wide_as_that_of_the_t_test(number: int) -> None:
    bootstrap = stats.norm(scale=np.sqrt((number - 1) / number)).interval(expanded_level(0.95, number))
    assert bootstrap == pytest.approx(stats.t(number - 1).interval(0.95))


def test_the_interval_of_a_large_sample_is_scipys_too(rng: np.random.Generator) -> None:
    values = _skewed(rng, 3000)
    assert number_of_resamples(3000) < number_of_resamples(1000)
    expected = stats.bootstrap((values,), np.mean, n_resamples=9999, rng=np.random.default_rng(1)).confidence_interval
    ((low, high),) = bootstrap_intervals([values])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.08 * (expected.high - expected.low))


def test_large_samples_share_draws_and_keep_their_intervals(rng: np.random.Generator) -> None:
    samples = [_skewed(rng, number) for number in (1001, 3000, 2500)]
    for sample, together in zip(samples, bootstrap_intervals(samples)):
        ((low, high),) = bootstrap_intervals([sample])
        assert together == pytest.approx((low, high), abs=0.1 * (high - low))


def test_a_sample_has_the_same_interval_alone_and_among_others(rng: np.random.Generator) -> None:
    samples = [_skewed(rng, number) for number in (20, 31, 20)]
    together = bootstrap_intervals(samples)
    assert together == [pytest.approx(bootstrap_intervals([sample])[0]) for sample in samples]
    assert permutation_p_values(samples) == [permutation_p_values([sample])[0] for sample in samples]


def test_the_interval_of_a_skewed_sample_reaches_further_into_the_tail(rng: np.random.Generator) -> None:
    values = rng.gamma(0.5, 1.0, 30)
    ((low, high),) = bootstrap_intervals([values])
    assert high - values.mean() > 1.15 * (values.mean() - low)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    samples = np.random.default_rng(5).normal(0.3, 1.0, (300, 40))
    found = np.array([bootstrap_intervals([sample], num_resamples=999, seed=k)[0] for k, sample in enumerate(samples)])
    assert 0.92 <= np.mean((found[:, 0] <= 0.3) & (found[:, 1] >= 0.3)) <= 0.98


def test_equal_values_have_an_interval_without_width() -> None:
    assert bootstrap_intervals([np.full(10, 0.7)]) == [pytest.approx((0.7, 0.7))]


def test_the_same_seed_gives_the_same_interval(rng: np.random.Generator) -> None:
    values = _skewed(rng, 20)
    assert bootstrap_intervals([values], seed=3) == bootstrap_intervals([values], seed=3)
    assert bootstrap_intervals([values], seed=3) != bootstrap_intervals([values], seed=4)


@pytest.mark.parametrize(("number", "tolerance"), [(7, 1e-12), (13, 1e-12), (40, 0.02)])
def test_the_permutation_test_is_scipys(rng: np.random.Generator, number: int, tolerance: float) -> None:
    values = rng.normal(0.25, 1.0, number)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20000, rng=np.random.default_rng(2)
    ).pvalue
    assert permutation_p_values([values]) == [pytest.approx(expected, abs=tolerance)]


def test_the_permutation_test_of_nothing_and_of_much() -> None:
    assert permutation_p_values([np.zeros(8), np.zeros(50)]) == [1.0, 1.0]
    assert permutation_p_values([np.full(50, 0.1)]) == [1 / 10000]


def test_description_by_hand() -> None:
    found = describe([np.array([1.0, NAN, 2.0, 6.0])])[0]
    assert (found.num, found.num_undefined, found.mean, found.median) == (3, 1, 3.0, 2.0)
    assert found.std == pytest.approx(7**0.5)
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize(("values", "mean"), [([], None), ([NAN], None), ([0.5], 0.5)])
def test_description_of_next_to_nothing(values: list[float], mean: float | None) -> None:
    found = describe([np.array(values)])[0]
    assert (found.mean, found.std) == (mean, None)


def test_pairs_with_one_value_are_counted_and_left_out() -> None:
    found = _compare([0.9, NAN, 0.5, NAN, 0.7], [0.8, 0.0, NAN, NAN, 0.4])
    assert (found.num, found.num_one_sided) == (2, 2)
    assert found.mean == pytest.approx(0.2)
    assert found.p_value is None and found.low is None and found.p_permutation is None


def test_signed_rank_is_scipys_and_survives_equal_pairs(rng: np.random.Generator) -> None:
    values = _skewed(rng, 25)
    assert signed_rank_p(values) == stats.wilcoxon(values).pvalue
    assert signed_rank_p(np.append(values, [0.0, 0.0])) == stats.wilcoxon(values).pvalue
    assert signed_rank_p(np.zeros(9)) == 1.0


def test_six_pairs_are_the_fewest_that_can_be_significant() -> None:
    assert signed_rank_p(np.arange(1.0, MIN_CASES + 1)) < 0.05 <= signed_rank_p(np.arange(1.0, MIN_CASES))


def test_effect_sizes_are_those_of_their_definitions(rng: np.random.Generator) -> None:
    values = np.append(_skewed(rng, 30), 0.0)
    found = _compare(values.tolist(), [0.0] * 31)
    statistic = stats.ttest_1samp(values, 0).statistic
    assert found.effect_size == pytest.approx(statistic / np.sqrt(31))
    unequal = values[values != 0]
    positive = stats.wilcoxon(unequal, alternative="greater").statistic
    assert found.rank_biserial == pytest.approx(2 * positive / (30 * 31 / 2) - 1)
    assert rank_biserial(np.array([1.0, 2.0, 3.0])) == 1.0 and rank_biserial(np.zeros(4)) is None
    assert _compare([0.5] * 8, [0.5] * 8).effect_size is None


def test_holm_is_statsmodels(rng: np.random.Generator) -> None:
    p_values = (rng.random(40) ** 3).tolist()
    assert correct_holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_by_hand() -> None:
    assert correct_holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert correct_holm([0.9, 0.8]) == [1.0, 1.0]
    assert correct_holm([]) == []


def _difference(mean: float, low: float | None, high: float | None, std: float = 0.1, num: int = 30) -> Difference:
    return Difference(
        num=num, num_one_sided=0, mean=mean, std=std, low=low, high=high,
        p_value=0.01, p_permutation=0.01, effect_size=None, rank_biserial=None,
    )  # fmt: skip


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
    assert judge(_difference(mean, low, high), (p, 0.0), margin=0.01, higher_is_better=True) == verdict
    assert judge(_difference(mean, low, high), (0.0, p), margin=0.01, higher_is_better=True) == verdict


def test_verdicts_of_a_distance_are_turned_round_and_never_equal() -> None:
    assert judge(_difference(-0.3, -0.5, -0.1), (0.001, 0.001), margin=None, higher_is_better=False) == "better"
    assert judge(_difference(0.3, 0.1, 0.5), (0.001, 0.001), margin=None, higher_is_better=False) == "worse"
    assert judge(_difference(0.0, -0.001, 0.001), (0.9, 0.9), margin=None, higher_is_better=False) == "undecided"


def test_the_cases_needed_for_a_difference_are_those_of_a_t_test_by_its_efficiency() -> None:
    difference = _difference(0.02, -0.01, 0.05)
    for comparisons in (1, 5):
        expected = TTestPower().solve_power(effect_size=0.2, power=0.8, alpha=0.05 / comparisons) * np.pi / 3
        needed = more_cases_needed(difference, margin=None, num_comparisons=comparisons)
        assert needed is not None and needed + 30 == pytest.approx(expected, rel=0.01)


def test_the_cases_needed_for_equality_bring_the_interval_within_the_margin(rng: np.random.Generator) -> None:
    needed = more_cases_needed(_difference(0.0, -0.03, 0.03, std=0.05), margin=0.01)
    assert needed is not None
    means = rng.normal(0, 0.05 / np.sqrt(needed + 30), 20000)
    half = 1.96 * 0.05 / np.sqrt(needed + 30)
    assert np.mean(np.abs(means) + half <= 0.01) == pytest.approx(0.8, abs=0.02)


def test_cases_needed_where_nothing_can_be_told() -> None:
    assert more_cases_needed(_difference(0.0, -0.1, 0.1), margin=None) is None
    assert more_cases_needed(_difference(0.01, -0.1, 0.1, std=0.0), margin=0.01) is None
    assert more_cases_needed(_difference(0.5, 0.4, 0.6, num=400), margin=0.01) == 1


def test_without_a_difference_a_verdict_is_seldom_wrong() -> None:
    """Three plans that differ from the baseline by chance only: rarely is any of them called better or worse."""
    rng = np.random.default_rng(11)
    wrong = 0
    for trial in range(150):
        base = rng.beta(12, 2, 30)
        others = base + rng.normal(0, 0.06, (3, 30))
        found = compare_paired([(other, base) for other in others], seed=trial)
        corrected = zip(
            correct_holm([difference.p_value for difference in found]),
            correct_holm([difference.p_permutation for difference in found]),
        )
        verdicts = [judge(d, p, margin=0.01, higher_is_better=True) for d, p in zip(found, corrected)]
        wrong += any(verdict in ("better", "worse") for verdict in verdicts)
    assert wrong / 150 <= 0.08


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(2)
    base = rng.beta(12, 2, 60)
    found = compare_paired([(base + rng.normal(0.03, 0.03, 60), base)])[0]
    assert judge(found, (found.p_value, found.p_permutation), margin=0.01, higher_is_better=True) == "better"
