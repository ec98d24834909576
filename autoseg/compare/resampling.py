"""Chance by computer: bootstrap intervals and permutation tests, for many samples of one size at a time."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

LEVEL = 0.95
NUM_RESAMPLES = 9999
NUM_RESAMPLES_LARGE = 1999
LARGE_SAMPLE = 1000
"""Above this size 1,999 resamples do: the ends then waver by 0.06 standard errors, 3 % of the interval's half-width."""
MAX_EXACT = 13
"""Up to this size the permutation test goes through all 2^13 = 8192 signs instead of drawing some."""
DRAWN_AT_ONCE = 1_000_000
EQUAL = 1e-12


def bootstrap_intervals(
    samples: Sequence[Numbers], *, level: float = LEVEL, num_resamples: int | None = None, seed: int = 0
) -> list[tuple[float, float]]:
    """Return each sample's bias-corrected and accelerated (BCa) bootstrap interval of the mean (Efron, 1987).

    BCa and not the plain percentiles, since a few failed cases make Dice and its differences skewed: it corrects for
    that to second order, and equals the percentile interval where there is no skewness. Since a bootstrap of n values
    spreads too little, by sqrt((n - 1) / n) and by the normal in the t-distribution's place, the level is raised to
    that which undoes both (``expanded_level``; Hesterberg, 2015). Samples of one size share their draws, and so do all
    above 1,000 values, of which the shorter ones use the first part.
    """

    def intervals(matrix: Numbers, there: Numbers) -> Numbers:
        parts = [(counts @ matrix) / (counts @ there) for counts in draw_counts(len(matrix), num_resamples, seed)]
        return _bca(matrix, there, np.concatenate(parts), level)

    return [(float(low), float(high)) for low, high in _in_groups(samples, intervals)]


def expanded_level(level: float, num_cases: Numbers | int) -> Numbers:
    """Return the level at which a bootstrap interval of the mean of normal values has the width of the t-interval at
    ``level``.
    """
    from scipy.special import ndtr, stdtrit

    tail = stdtrit(num_cases - 1, (1 - level) / 2)
    return np.asarray(1 - 2 * ndtr(np.sqrt(num_cases / (num_cases - 1)) * tail))


def permutation_p_values(samples: Sequence[Numbers], *, num_resamples: int | None = None, seed: int = 0) -> list[float]:
    """Return each sample's two-sided p that its mean is zero, by flipping the signs of its values (Fisher, 1935).

    Exact up to 13 values; beyond, the share of drawn sign vectors, the observed one counted among them (Phipson and
    Smyth, 2010). Under the null hypothesis a paired difference is as likely as its negative.
    """

    def p_values(matrix: Numbers, there: Numbers) -> Numbers:
        observed = np.abs(matrix.sum(axis=0)) - EQUAL * np.abs(matrix).sum(axis=0)
        exact = len(matrix) <= MAX_EXACT
        hits, drawn = np.zeros(matrix.shape[1]), 0
        for signs in _all_signs(len(matrix)) if exact else _draw_signs(len(matrix), num_resamples, seed):
            hits += (np.abs(signs @ matrix) >= observed).sum(axis=0)
            drawn += len(signs)
        return hits / drawn if exact else (hits + 1) / (drawn + 1)

    return [float(p) for p in _in_groups(samples, p_values)]


def draw_counts(num_cases: int, num_resamples: int | None = None, seed: int = 0) -> Iterator[Numbers]:
    """Yield how often each case is drawn in each resample, as parts of (resamples, cases)."""
    generator = np.random.default_rng(seed)
    for size in _parts(num_cases, num_resamples):
        drawn = generator.integers(num_cases, size=(size, num_cases)) + np.arange(size)[:, None] * num_cases
        yield np.bincount(drawn.ravel(), minlength=size * num_cases).reshape(size, num_cases).astype(float)


def number_of_resamples(num_cases: int) -> int:
    """Return how many resamples a sample of this size gets."""
    return NUM_RESAMPLES if num_cases <= LARGE_SAMPLE else NUM_RESAMPLES_LARGE


def _parts(num_cases: int, num_resamples: int | None) -> Iterator[int]:
    left = number_of_resamples(num_cases) if num_resamples is None else num_resamples
    while left > 0:
        size = min(left, max(1, DRAWN_AT_ONCE // num_cases))
        yield size
        left -= size


def _draw_signs(num_cases: int, num_resamples: int | None, seed: int) -> Iterator[Numbers]:
    generator = np.random.default_rng(seed)
    for size in _parts(num_cases, num_resamples):
        yield np.where(generator.integers(2, size=(size, num_cases), dtype=np.int8), 1.0, -1.0)


def _all_signs(num_cases: int) -> Iterator[Numbers]:
    yield np.where(np.arange(2**num_cases)[:, None] >> np.arange(num_cases) & 1, 1.0, -1.0)


def _bca(matrix: Numbers, there: Numbers, means: Numbers, level: float) -> Numbers:
    """Return the intervals (columns, 2) of the columns of ``matrix`` (cases, columns) from their resampled means.

    ``there`` is 1 where a column has a value and 0 where it is filled up with zeros.
    """
    from scipy.special import ndtr, ndtri

    number = there.sum(axis=0)
    observed = matrix.sum(axis=0) / number
    centred = (matrix - observed) * there
    constant = np.abs(centred).max(axis=0) < EQUAL
    below = ((means < observed).mean(axis=0) + (means <= observed).mean(axis=0)) / 2
    bias = ndtri(np.where(constant, 0.5, below))
    spread = np.where(constant, 1.0, (centred**2).sum(axis=0))
    acceleration = (centred**3).sum(axis=0) / (6 * spread**1.5)  # the jackknife's, which is closed for a mean
    half = ndtri((1 + expanded_level(level, number)) / 2)
    ends = []
    for tails in (bias - half, bias + half):
        places = ndtr(bias + tails / (1 - acceleration * tails))
        ends.append([np.quantile(column, place) for column, place in zip(means.T, places)])
    return np.where(constant[:, None], observed[:, None], np.array(ends).T)


def _in_groups(samples: Sequence[Numbers], compute: Callable[[Numbers, Numbers], Numbers]) -> list[Numbers]:
    """Return ``compute`` of the samples, one result a sample.

    It is called once for all samples of a size, and once for all large ones, with the samples as columns filled up with
    zeros, and with an array that is 1 where a column has a value.
    """
    groups: dict[int, list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(min(len(sample), LARGE_SAMPLE + 1), []).append(place)
    results: list[Numbers] = [np.zeros(0)] * len(samples)
    for places in groups.values():
        matrix = np.zeros((max(len(samples[place]) for place in places), len(places)))
        there = np.zeros_like(matrix)
        for column, place in enumerate(places):
            matrix[: len(samples[place]), column] = samples[place]
            there[: len(samples[place]), column] = 1.0
        for place, result in zip(places, compute(matrix, there)):
            results[place] = result
    return results
