"""Means, paired differences, and how sure they are. Plain functions on numbers; nothing knows of plans or files."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoseg.documents import Document

Verdict = Literal["better", "worse", "equal", "undecided"]
Numbers = NDArray[np.float64]

LEVEL = 0.95
NUM_RESAMPLES = 9999
RESAMPLES_AT_ONCE = 500
SIGNIFICANCE = 0.05
EQUAL = 1e-12
MIN_CASES = 6
"""Fewer pairs cannot reach p < 0.05 in a two-sided signed-rank test (2 / 2^5 = 0.0625): no interval, no verdict."""
FEW_CASES = 20
"""Below this number of cases bootstrap intervals are noticeably too narrow; the report says so."""


class Description(Document):
    """A sample of values.

    Attributes:
        num: number of defined values. num_undefined: number of the others, which all figures leave out.
        mean, median: None without values. std: sample standard deviation (n - 1), None below two values.
        low, high: 95 % interval of the mean, None below six values.
    """

    num: int
    num_undefined: int
    mean: float | None
    std: float | None
    median: float | None
    low: float | None
    high: float | None


class Difference(Document):
    """A paired difference, first minus second.

    Attributes:
        num: number of pairs. num_one_sided: number of cases with a value on one side only; they are left out.
        mean: mean difference. low, high: its 95 % interval, None below six pairs.
        p_value: two-sided Wilcoxon signed-rank test, None below six pairs.
    """

    num: int
    num_one_sided: int
    mean: float | None
    low: float | None
    high: float | None
    p_value: float | None


def describe(values: Sequence[float | None], *, seed: int = 0) -> Description:
    """Describe a sample; None counts as undefined."""
    defined = np.array([value for value in values if value is not None], dtype=float)
    low, high = bootstrap_interval(defined, seed=seed) if len(defined) >= MIN_CASES else (None, None)
    return Description(
        num=len(defined),
        num_undefined=len(values) - len(defined),
        mean=float(defined.mean()) if len(defined) else None,
        std=float(defined.std(ddof=1)) if len(defined) > 1 else None,
        median=float(np.median(defined)) if len(defined) else None,
        low=low,
        high=high,
    )


def compare_paired(pairs: Sequence[tuple[float | None, float | None]], *, seed: int = 0) -> Difference:
    """Compare two values a case, first minus second, over the cases that have both."""
    differences = np.array([a - b for a, b in pairs if a is not None and b is not None], dtype=float)
    enough = len(differences) >= MIN_CASES
    low, high = bootstrap_interval(differences, seed=seed) if enough else (None, None)
    return Difference(
        num=len(differences),
        num_one_sided=sum((a is None) != (b is None) for a, b in pairs),
        mean=float(differences.mean()) if len(differences) else None,
        low=low,
        high=high,
        p_value=signed_rank_p(differences) if enough else None,
    )


def bootstrap_interval(
    values: Numbers, *, level: float = LEVEL, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated (BCa) bootstrap interval of the mean (Efron, 1987).

    BCa and not the plain percentiles, since a few failed cases make Dice and its differences skewed: it corrects for
    that to second order, and equals the percentile interval where there is no skewness. ``seed`` fixes it.
    """
    if np.ptp(values) < EQUAL:
        return float(values.mean()), float(values.mean())
    from scipy.special import ndtr, ndtri

    means = resample_means(values[:, None], num_resamples=num_resamples, seed=seed)[:, 0]
    observed = values.mean()
    bias = ndtri(((means < observed).mean() + (means <= observed).mean()) / 2)
    centred = values - observed
    acceleration = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)  # the jackknife's, which is closed for a mean
    tails = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, ndtr(bias + tails / (1 - acceleration * tails)))
    return float(low), float(high)


def resample_means(matrix: Numbers, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Numbers:
    """Draw rows of ``matrix`` (cases, columns) with replacement; return each draw's means (resamples, columns)."""
    generator = np.random.default_rng(seed)
    cases, parts = len(matrix), []
    for start in range(0, num_resamples, RESAMPLES_AT_ONCE):
        size = min(RESAMPLES_AT_ONCE, num_resamples - start)
        parts.append(matrix[generator.integers(cases, size=(size, cases))].mean(axis=1))
    return np.concatenate(parts)


def first_place_shares(matrix: Numbers, *, seed: int = 0) -> list[float]:
    """Return how often each column of ``matrix`` (cases, plans) has the largest mean of all; ties are shared."""
    means = resample_means(matrix, seed=seed)
    first = means == means.max(axis=1, keepdims=True)
    return [float(share) for share in (first / first.sum(axis=1, keepdims=True)).mean(axis=0)]


def signed_rank_p(differences: Numbers) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; equal pairs are discarded, 1 if there are no others."""
    if not np.any(differences):
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences[differences != 0]).pvalue)


def correct_holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number by Holm's step-down procedure (1979); None does not count."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[index] = largest
    return corrected


def judge(
    difference: Difference, p_corrected: float | None, *, margin: float | None, higher_is_better: bool
) -> Verdict:
    """Say what a difference means.

    ``equal``: the whole interval lies within ``margin`` of zero (never without a margin). ``better`` or ``worse``: it
    does not, it leaves out zero, and the corrected p is below 0.05. Else ``undecided``.
    """
    if difference.mean is None or difference.low is None or difference.high is None or p_corrected is None:
        return "undecided"
    if margin is not None and -margin <= difference.low and difference.high <= margin:
        return "equal"
    if difference.low <= 0 <= difference.high or p_corrected >= SIGNIFICANCE:
        return "undecided"
    return "better" if (difference.mean > 0) == higher_is_better else "worse"
