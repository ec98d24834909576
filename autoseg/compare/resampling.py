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
    that which undoes both (``expanded_level``; Hesterberg, 2015). Samples of one size share their draws, so a sample's
    interval depends on nothing but itself and ``seed``.
    """

    def intervals(matrix: Numbers) -> Numbers:
        means = resample_means(matrix, num_resamples=num_resamples, seed=seed)
        return _bca(matrix, means, expanded_level(level, len(matrix)))

    return [(float(low), float(high)) for low, high in _by_size(samples, intervals)]


def expanded_level(level: float, num_cases: int) -> float:
    """Return the level at which a bootstrap interval of the mean of normal values has the width of the t-interval at
    ``level``.
    """
    from scipy.special import ndtr, stdtrit

    return float(1 - 2 * ndtr(np.sqrt(num_cases / (num_cases - 1)) * stdtrit(num_cases - 1, (1 - level) / 2)))


def permutation_p_values(samples: Sequence[Numbers], *, num_resamples: int | None = None, seed: int = 0) -> list[float]:
    """Return each sample's two-sided p that its mean is zero, by flipping the signs of its values (Fisher, 1935).

    Exact up to 13 values; beyond, the share of drawn sign vectors, the observed one counted among them (Phipson and
    Smyth, 2010). Under the null hypothesis a paired difference is as likely as its negative.
    """

    def p_values(matrix: Numbers) -> Numbers:
        observed = np.abs(matrix.sum(axis=0)) - EQUAL * np.abs(matrix).sum(axis=0)
        exact = len(matrix) <= MAX_EXACT
        hits, drawn = np.zeros(matrix.shape[1]), 0
        for signs in _all_signs(len(matrix)) if exact else _draw_signs(len(matrix), num_resamples, seed):
            hits += (np.abs(signs @ matrix) >= observed).sum(axis=0)
            drawn += len(signs)
        return hits / drawn if exact else (hits + 1) / (drawn + 1)

    return [float(p) for p in _by_size(samples, p_values)]


def resample_means(matrix: Numbers, *, num_resamples: int | None = None, seed: int = 0) -> Numbers:
    """Draw rows of ``matrix`` (cases, columns) with replacement; return each draw's means (resamples, columns)."""
    return np.concatenate([counts @ matrix for counts in draw_counts(len(matrix), num_resamples, seed)]) / len(matrix)


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


def _bca(matrix: Numbers, means: Numbers, level: float) -> Numbers:
    """Return the intervals (columns, 2) of the columns of ``matrix`` (cases, columns) from their resampled means."""
    from scipy.special import ndtr, ndtri

    observed = matrix.mean(axis=0)
    constant = np.ptp(matrix, axis=0) < EQUAL
    below = ((means < observed).mean(axis=0) + (means <= observed).mean(axis=0)) / 2
    bias = ndtri(np.where(constant, 0.5, below))
    centred = matrix - observed
    spread = np.where(constant, 1.0, (centred**2).sum(axis=0))
    acceleration = (centred**3).sum(axis=0) / (6 * spread**1.5)  # the jackknife's, which is closed for a mean
    tails = bias[:, None] + ndtri([(1 - level) / 2, (1 + level) / 2])
    places = ndtr(bias[:, None] + tails / (1 - acceleration[:, None] * tails))
    return np.array(
        [
            (mean, mean) if same else np.quantile(column, place)
            for mean, same, column, place in zip(observed, constant, means.T, places)
        ]
    )


def _by_size(samples: Sequence[Numbers], compute: Callable[[Numbers], Numbers]) -> list[Numbers]:
    """Return ``compute`` of the samples, called once with all samples of a size as columns; one result a column."""
    results: list[Numbers] = [np.zeros(0)] * len(samples)
    for size in {len(sample) for sample in samples}:
        places = [place for place, sample in enumerate(samples) if len(sample) == size]
        for place, result in zip(places, compute(np.stack([samples[place] for place in places], axis=1))):
            results[place] = result
    return results
