"""Rankings against scipy and scikit-posthocs, and critical differences against the published table."""

import numpy as np
import pytest
import scikit_posthocs
from scipy import stats

from autoseg.compare.critical_difference import compare_datasets, find_cliques, friedman_p, nemenyi_difference
from autoseg.compare.ranking import (
    first_place_shares,
    kendall_tau,
    rank_by_rules,
    rank_descending,
    signed_rank_z,
    significance_matrix,
)
from autoseg.compare.statistics import correct_holm


@pytest.fixture
def matrix(rng: np.random.Generator) -> np.ndarray:
    """Sixty cases of four plans; the third is clearly best, the first two are alike."""
    base = rng.beta(12, 2, 60)[:, None]
    return base + np.array([0.0, 0.0, 0.05, -0.02]) + rng.normal(0, 0.03, (60, 4))


def test_kendall_is_scipys_with_and_without_ties(rng: np.random.Generator) -> None:
    reference = np.array([3.0, 1.0, 2.0, 2.0, 0.0])
    scores = rng.integers(0, 4, (30, 5)).astype(float)
    scores = scores[np.ptp(scores, axis=1) > 0]
    expected = [stats.kendalltau(row, reference).statistic for row in scores]
    assert kendall_tau(scores, reference) == pytest.approx(np.array(expected))
    assert kendall_tau(np.ones((1, 5)), reference) == [0.0]


@pytest.mark.parametrize("decimals", [8, 1])
def test_the_signed_rank_deviate_is_scipys_for_drawn_cases(rng: np.random.Generator, decimals: int) -> None:
    differences = np.round(rng.normal(0.1, 0.5, 80), decimals)  # one decimal: many ties, and zeros
    drawn = rng.integers(80, size=(5, 80))
    counts = np.stack([np.bincount(row, minlength=80) for row in drawn]).astype(float)
    found = signed_rank_z(differences, counts)
    for deviate, row in zip(found, drawn):
        values = differences[row]
        expected = stats.wilcoxon(values[values != 0], method="asymptotic", correction=False, alternative="greater")
        assert stats.norm.sf(deviate) == pytest.approx(expected.pvalue)
    assert signed_rank_z(np.zeros(4), np.ones((2, 4))).tolist() == [0.0, 0.0]


def test_the_significance_matrix_is_made_of_scipys_tests(matrix: np.ndarray) -> None:
    found = significance_matrix(matrix)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    single = [
        stats.wilcoxon(matrix[:, i], matrix[:, j], alternative="greater", method="asymptotic").pvalue for i, j in pairs
    ]
    assert [found[pair] for pair in pairs] == pytest.approx(correct_holm(single))
    assert np.isnan(np.diag(found)).all() and (found[2, [0, 1, 3]] < 0.05).all()


def test_the_rules_rank_by_what_they_say(matrix: np.ndarray) -> None:
    plans = ("a", "b", "c", "d")
    by_mean, by_rank, by_test = rank_by_rules(matrix, plans)
    assert [r.rule for r in (by_mean, by_rank, by_test)] == ["mean", "mean rank", "test"]
    assert by_mean.scores == pytest.approx(matrix.mean(axis=0).tolist())
    assert by_rank.scores == pytest.approx(stats.rankdata(-matrix, axis=1).mean(axis=0).tolist())
    assert by_test.scores == tuple((significance_matrix(matrix) < 0.05).sum(axis=1).tolist())
    for ranking in (by_mean, by_rank, by_test):
        assert ranking.ranks[2] == 1 and ranking.plans == plans
        assert ranking.tau is not None and ranking.tau_low is not None and ranking.tau_low <= ranking.tau <= 1
        assert all(sum(shares) == pytest.approx(1) for shares in ranking.rank_shares)
    assert by_mean.rank_shares[2][0] > 0.99 and by_mean.rank_shares[3][3] > 0.9


def test_a_clear_order_is_stable_and_chance_is_not(rng: np.random.Generator) -> None:
    clear = rng.normal(0, 0.01, (40, 4)) + np.arange(4)
    chance = rng.normal(0, 1, (40, 4))
    assert rank_by_rules(clear, "abcd")[0].tau == 1
    assert (rank_by_rules(chance, "abcd")[0].tau or 0) < 0.8
    alike = rank_by_rules(np.ones((10, 3)), "abc")
    assert all(ranking.tau is None and ranking.ranks == (1, 1, 1) for ranking in alike)


def test_equal_scores_share_the_smallest_rank() -> None:
    scores = np.array([[3.0, 1.0, 3.0, 0.0]])
    assert rank_descending(scores).tolist() == [stats.rankdata(-scores[0], method="min").astype(int).tolist()]


def test_first_places_are_shared_and_favour_the_better(rng: np.random.Generator) -> None:
    base = rng.normal(0.8, 0.05, 30)
    shares = first_place_shares(np.stack([base, base, base - 0.2], axis=1))
    assert shares == [pytest.approx(0.5), pytest.approx(0.5), 0.0]
    close = first_place_shares(np.stack([base, base + rng.normal(0.004, 0.02, 30)], axis=1))
    assert sum(close) == pytest.approx(1) and 0.5 < close[1] < 1


@pytest.mark.parametrize(
    ("plans", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_the_critical_difference_has_the_published_quantiles(plans: int, q: float) -> None:
    """Table 5 a of Demsar (2006), at 0.05."""
    assert nemenyi_difference(plans, 14) == pytest.approx(q * np.sqrt(plans * (plans + 1) / 84), rel=5e-4)


def test_plans_are_joined_exactly_where_nemenyis_test_finds_no_difference(rng: np.random.Generator) -> None:
    matrix = rng.normal(0, 1, (12, 5)) + np.array([0.0, 0.4, 1.0, 1.6, 3.0])
    scores = {f"d{i}": dict(zip("abcde", row.tolist())) for i, row in enumerate(matrix)}
    found = compare_datasets(scores)
    assert found is not None and found.plans[0] == "e" and found.datasets[0] == "d0"
    p_values = np.asarray(scikit_posthocs.posthoc_nemenyi_friedman(matrix))
    for i in range(5):
        for j in range(i + 1, 5):
            joined = any(first <= i and j <= last for first, last in found.cliques)
            assert joined == (p_values["abcde".index(found.plans[i]), "abcde".index(found.plans[j])] > 0.05)
    assert found.p_friedman == pytest.approx(stats.friedmanchisquare(*matrix.T).pvalue)
    assert found.mean_ranks == pytest.approx(sorted(stats.rankdata(-matrix, axis=1).mean(axis=0)))


def test_only_plans_that_every_dataset_has_are_ranked() -> None:
    found = compare_datasets({"x": {"a": 0.5, "b": 0.7, "c": 0.1}, "y": {"b": 0.2, "a": 0.2}})
    assert found is not None and found.plans == ("b", "a") and found.ranks == ((1.0, 1.5), (2.0, 1.5))
    assert found.p_friedman is None and found.cliques == ((0, 1),)
    assert compare_datasets({"x": {"a": 0.5, "b": 0.7}}) is None
    assert compare_datasets({"x": {"a": 0.5}, "y": {"a": 0.7}}) is None and compare_datasets({}) is None
    assert friedman_p(np.ones((4, 3))) == 1.0


def test_cliques_by_hand() -> None:
    assert find_cliques([1.0, 1.5, 2.4, 4.0], 1.2) == ((0, 1), (1, 2))
    assert find_cliques([1.0, 2.5], 1.2) == ()
