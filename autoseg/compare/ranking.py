"""The order of plans by three rules, and how it holds when the cases are drawn anew. Plain functions on numbers.

A matrix (cases, plans) holds a value for every case and plan; higher is better.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from autoseg.compare.resampling import Numbers, draw_counts
from autoseg.compare.statistics import SIGNIFICANCE
from autoseg.documents import Document

NUM_DRAWS = 1000
RULES = {
    "mean": "mean over cases",
    "mean rank": "mean of the ranks within each case",
    "test": "number of plans beaten in Holm-corrected tests",
}
Counts = NDArray[np.float64]


class RuleRanking(Document):
    """The plans ranked by one rule.

    Attributes:
        rule: ``mean``, ``mean rank`` or ``test``.
        plans: names, in the order of the other fields.
        scores: mean, mean rank, or number of plans beaten.
        ranks: 1 is first; equal scores share the smallest of their ranks.
        rank_shares: for each plan how often it has rank 1, 2, ... when the cases are drawn anew.
        tau, tau_low: Kendall's tau-b between the ranking and those of the draws, its mean and its 5th percentile;
            a draw in which all plans tie counts as 0. None where all plans tie in the ranking itself.
    """

    rule: str
    plans: tuple[str, ...]
    scores: tuple[float, ...]
    ranks: tuple[int, ...]
    rank_shares: tuple[tuple[float, ...], ...]
    tau: float | None
    tau_low: float | None


def rank_by_rules(matrix: Numbers, plans: Sequence[str], *, seed: int = 0) -> tuple[RuleRanking, ...]:
    """Rank the plans by each rule; ``matrix`` has one column a plan."""
    rankings = []
    for rule, score in _scores(matrix).items():
        observed = score(np.ones((1, len(matrix))))[0]
        drawn = np.concatenate([score(counts) for counts in draw_counts(len(matrix), NUM_DRAWS, seed)])
        ranks = rank_descending(drawn)
        taus = kendall_tau(drawn, observed)
        tied = not np.ptp(observed)
        rankings.append(
            RuleRanking(
                rule=rule,
                plans=tuple(plans),
                scores=tuple((-observed if rule == "mean rank" else observed).tolist()),
                ranks=tuple(rank_descending(observed[None])[0].tolist()),
                rank_shares=tuple(
                    tuple(float((column == place).mean()) for place in range(1, len(plans) + 1)) for column in ranks.T
                ),
                tau=None if tied else float(taus.mean()),
                tau_low=None if tied else float(np.quantile(taus, 0.05)),
            )
        )
    return tuple(rankings)


def first_place_shares(matrix: Numbers, *, seed: int = 0) -> list[float]:
    """Return how often each column has the largest mean of all when the cases are drawn anew; ties are shared."""
    total = np.zeros(matrix.shape[1])
    number = 0
    for counts in draw_counts(len(matrix), seed=seed):
        means = counts @ matrix
        first = means >= means.max(axis=1, keepdims=True) - 1e-9
        total += (first / first.sum(axis=1, keepdims=True)).sum(axis=0)
        number += len(counts)
    return [float(share) for share in total / number]


def significance_matrix(matrix: Numbers) -> Numbers:
    """Return p (plans, plans) that the row's plan is better than the column's: one-sided signed-rank tests with normal
    approximation, corrected by Holm's procedure over all ordered pairs; NaN on the diagonal.
    """
    number = matrix.shape[1]
    found = np.full((number, number), np.nan)
    found[~np.eye(number, dtype=bool)] = _corrected_p(matrix, np.ones((1, len(matrix))))[0]
    return found


def rank_descending(scores: Numbers) -> NDArray[np.int64]:
    """Return the ranks (draws, plans), 1 for the largest; equal scores share the smallest rank."""
    return np.asarray(1 + (scores[:, None, :] > scores[:, :, None]).sum(axis=2), dtype=np.int64)


def kendall_tau(scores: Numbers, reference: Numbers) -> Numbers:
    """Return Kendall's tau-b of each row of ``scores`` (draws, plans) with ``reference`` (plans,); 0 where a side has
    only ties.
    """
    pairs = np.array(list(combinations(range(len(reference)), 2))).reshape(-1, 2)
    mine = np.sign(scores[:, pairs[:, 0]] - scores[:, pairs[:, 1]])
    other = np.sign(reference[pairs[:, 0]] - reference[pairs[:, 1]])
    norm = np.sqrt((mine**2).sum(axis=1) * (other**2).sum())
    found: Numbers = np.divide((mine * other).sum(axis=1), norm, out=np.zeros(len(scores)), where=norm > 0)
    return found


def signed_rank_z(differences: Numbers, counts: Counts) -> Numbers:
    """Return the signed-rank test's normal deviate of ``differences`` (cases,) for each row of ``counts`` (draws,
    cases).

    A case counts as often as it was drawn. Pairs without a difference are discarded; ties share their mean rank, and
    the variance is the sum of the squared ranks, which corrects for ties. 0 where no pair differs.
    """
    order = np.argsort(np.abs(differences), kind="stable")
    order = order[differences[order] != 0]
    if not len(order):
        return np.zeros(len(counts))
    sizes = np.abs(differences[order])
    starts = np.flatnonzero(np.r_[True, sizes[1:] != sizes[:-1]])
    drawn = counts[:, order]
    number = np.add.reduceat(drawn, starts, axis=1)
    signed = np.add.reduceat(drawn * np.sign(differences[order]), starts, axis=1)
    ranks = np.cumsum(number, axis=1) - (number - 1) / 2
    variance = (number * ranks**2).sum(axis=1)
    total = (signed * ranks).sum(axis=1)
    found: Numbers = np.divide(total, np.sqrt(variance), out=np.zeros(len(counts)), where=variance > 0)
    return found


def _scores(matrix: Numbers) -> dict[str, Callable[[Counts], Numbers]]:
    """Return each rule's score, higher is better, as a function of the cases' counts (draws, cases)."""
    within = _mean_ranks(matrix)
    return {
        "mean": lambda counts: counts @ matrix / len(matrix),
        "mean rank": lambda counts: -counts @ within / len(matrix),
        "test": lambda counts: _num_beaten(matrix, counts),
    }


def _mean_ranks(matrix: Numbers) -> Numbers:
    """Return the rank of each plan within each case, 1 for the largest; ties share the mean of their ranks."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-matrix, axis=1), dtype=float)


def _num_beaten(matrix: Numbers, counts: Counts) -> Numbers:
    number = matrix.shape[1]
    beaten = np.zeros((len(counts), number, number))
    beaten[:, ~np.eye(number, dtype=bool)] = _corrected_p(matrix, counts) < SIGNIFICANCE
    return np.asarray(beaten.sum(axis=2))


def _corrected_p(matrix: Numbers, counts: Counts) -> Numbers:
    """Return Holm-corrected one-sided p (draws, ordered pairs) that the first of a pair is better than the second."""
    from scipy.special import ndtr

    number = matrix.shape[1]
    deviates = np.zeros((len(counts), number, number))
    for first, second in combinations(range(number), 2):
        deviates[:, first, second] = signed_rank_z(matrix[:, first] - matrix[:, second], counts)
        deviates[:, second, first] = -deviates[:, first, second]
    p_values = ndtr(-deviates[:, ~np.eye(number, dtype=bool)])
    order = np.argsort(p_values, axis=1)
    scaled = np.take_along_axis(p_values, order, axis=1) * np.arange(p_values.shape[1], 0, -1)
    stepped = np.minimum(np.maximum.accumulate(scaled, axis=1), 1.0)
    corrected = np.empty_like(stepped)
    np.put_along_axis(corrected, order, stepped, axis=1)
    return corrected
