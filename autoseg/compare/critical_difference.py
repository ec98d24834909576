"""Several plans on several datasets: Friedman's test and Nemenyi's critical difference (Demsar, 2006)."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from autoseg.compare.resampling import Numbers
from autoseg.compare.statistics import SIGNIFICANCE
from autoseg.documents import Document

MIN_DATASETS = 5
"""Below this number the critical difference is so wide that next to nothing can reach it; the report says so."""


class CriticalDifference(Document):
    """How plans rank over datasets.

    Attributes:
        datasets: what was compared on. plans: names, best mean rank first.
        ranks: each plan's rank on each dataset, (plans, datasets), ties share their mean; 1 is best.
        mean_ranks: of each plan.
        p_friedman: that all plans are alike, None below three plans or two datasets.
        difference: mean ranks further apart than this differ at 0.05; None below two plans or datasets.
        cliques: the largest groups of neighbours that do not differ, as (first, last) places; a group has two or more.
    """

    datasets: tuple[str, ...]
    plans: tuple[str, ...]
    ranks: tuple[tuple[float, ...], ...]
    mean_ranks: tuple[float, ...]
    p_friedman: float | None
    difference: float | None
    cliques: tuple[tuple[int, int], ...]


def compare_datasets(scores: Mapping[str, Mapping[str, float]]) -> CriticalDifference | None:
    """Rank the plans that every dataset has; ``scores`` is dataset to plan to mean, higher is better.

    Returns None where fewer than two plans or two datasets are left.
    """
    plans = [plan for plan in next(iter(scores.values()), {}) if all(plan in row for row in scores.values())]
    if len(plans) < 2 or len(scores) < 2:
        return None
    from scipy.stats import rankdata

    matrix = np.array([[row[plan] for plan in plans] for row in scores.values()])
    ranks = rankdata(-matrix, axis=1)
    order = np.argsort(ranks.mean(axis=0), kind="stable").tolist()
    means = ranks.mean(axis=0)[order].tolist()
    width = nemenyi_difference(len(plans), len(scores))
    return CriticalDifference(
        datasets=tuple(scores),
        plans=tuple(plans[place] for place in order),
        ranks=tuple(tuple(ranks[:, place].tolist()) for place in order),
        mean_ranks=tuple(means),
        p_friedman=friedman_p(matrix) if len(plans) > 2 else None,
        difference=width,
        cliques=find_cliques(means, width),
    )


def friedman_p(matrix: Numbers) -> float:
    """Return the p of Friedman's test that all columns (plans) of ``matrix`` (datasets, plans) are alike; 1 if all
    tie.
    """
    if not np.ptp(matrix, axis=1).any():
        return 1.0
    from scipy.stats import friedmanchisquare

    return float(friedmanchisquare(*matrix.T).pvalue)


def nemenyi_difference(num_plans: int, num_datasets: int) -> float:
    """Return Nemenyi's critical difference of mean ranks at 0.05: q sqrt(k (k + 1) / 6 N), q the studentised range by
    sqrt 2.
    """
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(1 - SIGNIFICANCE, num_plans, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(num_plans * (num_plans + 1) / (6 * num_datasets)))


def find_cliques(mean_ranks: Sequence[float], width: float) -> tuple[tuple[int, int], ...]:
    """Return the largest runs (first, last) of sorted ``mean_ranks`` that span less than ``width``; single places are
    left out.
    """
    places = range(len(mean_ranks))
    runs = [(i, j) for i, j in combinations(places, 2) if mean_ranks[j] - mean_ranks[i] < width]
    return tuple((i, j) for i, j in runs if not any(a <= i and j <= b and (a, b) != (i, j) for a, b in runs))
