"""Means, paired differences, and how sure they are. Plain functions on numbers; nothing knows of plans or files.

Values are arrays with one place a case, NaN where undefined.
"""

from collections.abc import Sequence
from math import ceil, isfinite
from typing import Literal

import numpy as np

from autoseg.compare.resampling import Numbers, bootstrap_intervals, permutation_p_values
from autoseg.documents import Document

Verdict = Literal["better", "worse", "equal", "undecided"]

SIGNIFICANCE = 0.05
POWER = 0.8
MIN_CASES = 6
"""Fewer pairs cannot reach p < 0.05 in a two-sided signed-rank test (2 / 2^5 = 0.0625): no interval, no verdict."""
FEW_CASES = 20
"""Below this number of cases bootstrap intervals are noticeably too narrow; the report says so."""
WILCOXON_EFFICIENCY = 3 / np.pi
"""Of the signed-rank test against the t-test on normal differences (Lehmann, 1975)."""


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
        mean: mean difference. std: its standard deviation over cases, None below two pairs.
        low, high: 95 % interval of the mean, None below six pairs.
        p_value: two-sided Wilcoxon signed-rank test, None below six pairs.
        p_permutation: two-sided sign-flip permutation test of the mean, None below six pairs.
        effect_size: Cohen's d of paired values, mean by standard deviation; None where that is zero or unknown.
        rank_biserial: share of the signed ranks that favour the first minus that which favour the second, -1 to 1
            (Kerby, 2014); None without a pair that differs.
    """

    num: int
    num_one_sided: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_permutation: float | None
    effect_size: float | None
    rank_biserial: float | None


def describe(samples: Sequence[Numbers], *, seed: int = 0) -> list[Description]:
    """Describe samples; NaN counts as undefined."""
    defined = [sample[~np.isnan(sample)] for sample in samples]
    enough = [place for place, values in enumerate(defined) if len(values) >= MIN_CASES]
    intervals = dict(zip(enough, bootstrap_intervals([defined[place] for place in enough], seed=seed)))
    return [
        Description(
            num=len(values),
            num_undefined=len(sample) - len(values),
            mean=float(values.mean()) if len(values) else None,
            std=float(values.std(ddof=1)) if len(values) > 1 else None,
            median=float(np.median(values)) if len(values) else None,
            low=intervals[place][0] if place in intervals else None,
            high=intervals[place][1] if place in intervals else None,
        )
        for place, (sample, values) in enumerate(zip(samples, defined))
    ]


def compare_paired(pairs: Sequence[tuple[Numbers, Numbers]], *, seed: int = 0) -> list[Difference]:
    """Compare pairs of samples over the same cases, first minus second, over the cases that have both."""
    differences = [first - second for first, second in pairs]
    defined = [values[~np.isnan(values)] for values in differences]
    enough = [values for values in defined if len(values) >= MIN_CASES]
    intervals = iter(bootstrap_intervals(enough, seed=seed))
    permuted = iter(permutation_p_values(enough, seed=seed))
    return [
        _difference(
            values, num_one_sided(*pair), *((next(intervals), next(permuted)) if len(values) >= MIN_CASES else ())
        )
        for values, pair in zip(defined, pairs)
    ]


def _difference(
    values: Numbers, one_sided: int, interval: tuple[float, float] | None = None, permuted: float | None = None
) -> Difference:
    mean = float(values.mean()) if len(values) else None
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return Difference(
        num=len(values),
        num_one_sided=one_sided,
        mean=mean,
        std=std,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        p_value=signed_rank_p(values) if interval else None,
        p_permutation=permuted,
        effect_size=mean / std if mean is not None and std else None,
        rank_biserial=rank_biserial(values),
    )


def num_one_sided(first: Numbers, second: Numbers) -> int:
    """Return the number of cases that only one of two samples has a value for."""
    return int((np.isnan(first) != np.isnan(second)).sum())


def signed_rank_p(differences: Numbers) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; equal pairs are discarded, 1 if there are no others."""
    if not np.any(differences):
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences[differences != 0]).pvalue)


def rank_biserial(differences: Numbers) -> float | None:
    """Return the matched-pairs rank-biserial correlation (Kerby, 2014); equal pairs are discarded, None without
    others.
    """
    from scipy.stats import rankdata

    unequal = differences[differences != 0]
    if not len(unequal):
        return None
    ranks = rankdata(np.abs(unequal))
    return float((ranks * np.sign(unequal)).sum() / ranks.sum())


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
    difference: Difference,
    p_values: tuple[float | None, float | None],
    *,
    margin: float | None,
    higher_is_better: bool,
) -> Verdict:
    """Say what a difference means.

    ``equal``: the whole interval lies within ``margin`` of zero (never without a margin). ``better`` or ``worse``: it
    does not, it leaves out zero, and both corrected ``p_values``, of the signed-rank and of the permutation test, are
    below 0.05: the former alone would take skewness for a difference, since it speaks of ranks and not of the mean.
    Else ``undecided``.
    """
    known = [p for p in p_values if p is not None]
    if difference.mean is None or difference.low is None or difference.high is None or len(known) < len(p_values):
        return "undecided"
    if margin is not None and -margin <= difference.low and difference.high <= margin:
        return "equal"
    if difference.low <= 0 <= difference.high or max(known) >= SIGNIFICANCE:
        return "undecided"
    return "better" if (difference.mean > 0) == higher_is_better else "worse"


def more_cases_needed(difference: Difference, *, margin: float | None, num_comparisons: int = 1) -> int | None:
    """Return how many more cases would give a verdict in four of five such studies, were the difference as it looks
    now.

    The smaller of two numbers: for a difference, that of the t-test (Guenther, 1981) at 0.05 / ``num_comparisons``
    over the efficiency of the signed-rank test; for equality, that which brings the whole interval within ``margin``
    (two one-sided tests, the error shared between both sides). None where neither can be told.
    """
    from scipy.special import ndtri

    if difference.mean is None or not difference.std:
        return None
    power, tail = ndtri(POWER), -ndtri(SIGNIFICANCE / 2 / num_comparisons)
    needed = []
    if difference.mean:
        needed.append((((tail + power) * difference.std / difference.mean) ** 2 + tail**2 / 2) / WILCOXON_EFFICIENCY)
    if margin is not None and (room := margin - abs(difference.mean)) > 0:
        width = -ndtri(SIGNIFICANCE / 2) + ndtri((1 + POWER) / 2)
        needed.append((width * difference.std / room) ** 2)
    finite = [number for number in needed if isfinite(number)]
    return max(1, ceil(min(finite)) - difference.num) if finite else None
