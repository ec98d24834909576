"""All values of a dataset's finished runs in one array, so that the statistics work on columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.compare.resampling import Numbers
from autoseg.compare.runs import Run, Runs
from autoseg.compare.summary import FOREGROUND, METRICS, PRIMARY

WORST = 0.0
"""What a failed case counts with, in metrics of which higher is better; for distances there is no worst value."""


@dataclass(frozen=True)
class Scores:
    """Values of every plan and case.

    Attributes:
        plans, cases, regions, metrics: what the axes of ``values`` stand for.
        values: (plans, cases, regions, metrics), NaN where undefined or not scored. A case that several folds
            scored has the mean of its values.
        scored: (plans, cases), whether the plan has the case; failed ones included.
        failed: (plans, cases), whether a finished fold should have scored the case and has not, though another plan
            has. Such a case counts as 0 in the scores of which higher is better, in the regions
            in which any other plan has a value.
    """

    plans: tuple[str, ...]
    cases: tuple[str, ...]
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    scored: NDArray[np.bool_]
    failed: NDArray[np.bool_]

    def column(self, plan: str, region: str, metric: str) -> Numbers:
        """Return one value a case; for ``mean of regions`` the mean over its defined regions."""
        return self._reduce(self._block(plan, metric), region)

    def own_column(self, plan: str, region: str, metric: str) -> Numbers:
        """Return the column without the cases that the plan does not have."""
        own: Numbers = self.column(plan, region, metric)[self.scored[self.plans.index(plan)]]
        return own

    def pair(self, first: str, second: str, region: str, metric: str) -> tuple[Numbers, Numbers]:
        """Return two plans' columns over the cases that both have; the mean is over the regions that are defined in
        both.
        """
        both = self.scored[self.plans.index(first)] & self.scored[self.plans.index(second)]
        mine, theirs = self._block(first, metric)[both], self._block(second, metric)[both]
        if region == FOREGROUND and len(self.regions) > 1:
            undefined = np.isnan(mine) | np.isnan(theirs)
            mine, theirs = np.where(undefined, np.nan, mine), np.where(undefined, np.nan, theirs)
        return self._reduce(mine, region), self._reduce(theirs, region)

    def common(self, plans: Sequence[str] | None = None) -> NDArray[np.int64]:
        """Return the places of the cases for which every plan (or each of ``plans``) has a mean foreground Dice."""
        if PRIMARY not in self.metrics or not self.plans:
            return np.zeros(0, dtype=np.int64)
        columns = [self.column(plan, FOREGROUND, PRIMARY) for plan in (self.plans if plans is None else plans)]
        return np.flatnonzero(~np.isnan(columns).any(axis=0))

    def matrix(self, plans: Sequence[str] | None = None) -> Numbers:
        """Return the mean foreground Dice (common cases, plans)."""
        chosen = self.plans if plans is None else plans
        places = self.common(chosen)
        return np.stack([self.column(plan, FOREGROUND, PRIMARY)[places] for plan in chosen], axis=1)

    def _block(self, plan: str, metric: str) -> Numbers:
        block: Numbers = self.values[self.plans.index(plan), :, :, self.metrics.index(metric)]
        return block

    def _reduce(self, block: Numbers, region: str) -> Numbers:
        return block[:, self.regions.index(region)] if region != FOREGROUND else mean_defined(block)


def mean_defined(block: Numbers) -> Numbers:
    """Return the mean of each row's defined values, NaN where a row has none."""
    defined = ~np.isnan(block)
    number, total = defined.sum(axis=1), np.where(defined, block, 0.0).sum(axis=1)
    found: Numbers = np.divide(total, number, out=np.full(len(block), np.nan), where=number > 0)
    return found


def gather_scores(runs: Runs) -> Scores:
    """Put the values of all finished runs into one table."""
    cases = tuple(
        dict.fromkeys(c for plan in runs.plans for run in runs.finished(plan) for c in (*run.cases, *run.missing))
    )
    regions, metrics = runs.regions, runs.metrics
    place = {case: index for index, case in enumerate(cases)}
    shape = (len(runs.plans), len(cases))
    values = np.full((*shape, len(regions), len(metrics)), np.nan)
    scored, failed = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for index, plan in enumerate(runs.plans):
        finished = runs.finished(plan)
        values[index] = _mean_of_folds([_fill(run, place, regions, metrics) for run in finished])
        for run in finished:
            scored[index, [place[case] for case in run.cases]] = True
            failed[index, [place[case] for case in run.missing]] = True
    failed &= ~scored & scored.any(axis=0)
    _count_failures(values, failed, metrics)
    return Scores(runs.plans, cases, regions, metrics, values, scored | failed, failed)


def _fill(run: Run, place: dict[str, int], regions: Sequence[str], metrics: Sequence[str]) -> Numbers:
    """Return one run's values (cases, regions, metrics)."""
    block = np.full((len(place), len(regions), len(metrics)), np.nan)
    for case, values in run.cases.items():
        block[place[case]] = [
            [np.nan if (v := values.get(r, {}).get(m)) is None else v for m in metrics] for r in regions
        ]
    return block


def _mean_of_folds(blocks: Sequence[Numbers]) -> Numbers:
    if len(blocks) == 1:
        return blocks[0]
    total, number = np.zeros_like(blocks[0]), np.zeros_like(blocks[0])
    for block in blocks:
        defined = ~np.isnan(block)
        total[defined] += block[defined]
        number += defined
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


def _count_failures(values: NDArray[np.float64], failed: NDArray[np.bool_], metrics: Sequence[str]) -> None:
    """Give failed cases the worst value where any plan has one; in place."""
    for metric, name in enumerate(metrics):
        if name in METRICS and METRICS[name].higher_is_better:
            block = values[..., metric]
            defined = ~np.isnan(block).all(axis=0)
            block[failed[:, :, None] & defined] = WORST
