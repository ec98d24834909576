"""The numbers of the report as a document: scores, costs, differences to the baseline, and conclusions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, median
from typing import Any, Literal

import numpy as np
from pydantic import Field

import autoseg
from autoseg.compare.runs import Run, Runs, Values
from autoseg.compare.statistics import (
    Description,
    Difference,
    Verdict,
    compare_paired,
    correct_holm,
    describe,
    first_place_shares,
    judge,
)
from autoseg.documents import Document

FOREGROUND = "mean of regions"
PRIMARY = "dice"
MARGIN = 0.01


@dataclass(frozen=True)
class Metric:
    """How a metric is shown and judged; a difference up to ``margin`` does not matter, None where nobody can say so."""

    title: str
    unit: str
    higher_is_better: bool
    margin: float | None
    definition: str


METRICS = {
    "dice": Metric(
        "Dice", "", True, MARGIN,
        "Twice the common voxels over the voxels of both segmentations; undefined if both are empty",
    ),
    "surface_dice": Metric(
        "Surface Dice", "", True, MARGIN,
        "The part of both surfaces that lies within the tolerance of the other (Nikolov et al., 2018); "
        "0 if one is empty, undefined if both are",
    ),
    "hausdorff_95": Metric(
        "Hausdorff distance, 95 %", "mm", False, None,
        "The larger of the two 95th percentiles of the distances between the surfaces, weighted by area; "
        "the image's diagonal if one is empty, undefined if both are",
    ),
    "average_surface_distance": Metric(
        "Average surface distance", "mm", False, None,
        "Mean distance between the surfaces over the area of both; "
        "the image's diagonal if one is empty, undefined if both are",
    ),
}  # fmt: skip


class Cost(Document):
    """What a plan costs; None where it is not known.

    Attributes:
        parameters: trained weights.
        epochs, iterations: trained, of the longest fold.
        epoch_seconds: median over all epochs. training_seconds: mean over the folds.
        inference_seconds: mean over the cases.
        memory_predicted_gb, memory_measured_gb: device memory in training, 10^9 bytes.
        devices: names of what it was trained on.
    """

    parameters: int | None
    epochs: int
    iterations: int | None
    epoch_seconds: float | None
    training_seconds: float | None
    inference_seconds: float | None
    memory_predicted_gb: float | None
    memory_measured_gb: float | None
    devices: tuple[str, ...]


class PlanSummary(Document):
    """One plan, pooled by case over its finished folds; ``scores`` is region to metric to description."""

    name: str
    architecture: str
    folds: tuple[int, ...]
    num_cases: int
    scores: dict[str, dict[str, Description]]
    cost: Cost


class Comparison(Document):
    """A plan minus the baseline in one region and metric; ``p_holm`` is corrected within its family of comparisons."""

    plan: str
    region: str
    metric: str
    family: Literal["primary", "secondary"]
    difference: Difference
    p_holm: float | None
    verdict: Verdict


class Rank(Document):
    """A plan's place among all by mean foreground Dice on the cases that all of them have.

    Attributes:
        mean: on those cases. first_share: how often it is first when these cases are resampled.
        to_best: difference to the first plan, None for the first itself.
    """

    plan: str
    mean: float
    first_share: float
    to_best: Difference | None


class UnfinishedRun(Document):
    """A run that does not count, and why."""

    plan: str
    fold: int
    state: str
    detail: str


class Summary(Document):
    """summary.json: what the report says, without its pictures."""

    schema_: Literal["autoseg.summary.1"] = Field(default="autoseg.summary.1", alias="schema")
    autoseg: str
    dataset: str
    regions: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: str | None
    wanted_baseline: str
    num_common_cases: int
    ranking: tuple[Rank, ...]
    plans: tuple[PlanSummary, ...]
    comparisons: tuple[Comparison, ...]
    unfinished: tuple[UnfinishedRun, ...]
    headline: str = ""
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def plan(self, name: str) -> PlanSummary:
        """Return the summary of one plan."""
        return next(plan for plan in self.plans if plan.name == name)


def measure(runs: Runs, *, baseline: str = "unet") -> Summary:
    """Compute all numbers, no conclusions; ``baseline`` gives way to the first plan where it has no finished run."""
    chosen = baseline if baseline in runs.plans else next(iter(runs.plans), None)
    metrics = tuple(name for name in METRICS if name in runs.metrics)
    pooled = {plan: pool_cases(runs.finished(plan)) for plan in runs.plans}
    common = _common_cases(pooled)
    return Summary(
        autoseg=autoseg.__version__,
        dataset=runs.dataset,
        regions=runs.regions,
        metrics=metrics,
        baseline=chosen,
        wanted_baseline=baseline,
        num_common_cases=len(common),
        ranking=_rank(pooled, common),
        plans=tuple(
            _summarize_plan(runs.finished(p), pooled[p], shown_regions(runs.regions), metrics) for p in runs.plans
        ),
        comparisons=_compare_all(pooled, chosen, shown_regions(runs.regions), metrics),
        unfinished=tuple(
            UnfinishedRun(plan=r.plan, fold=r.fold, state=r.state, detail=r.detail) for r in runs.unfinished()
        ),
    )


def shown_regions(regions: Sequence[str]) -> tuple[str, ...]:
    """Return the regions with their mean first; a single region is its own mean."""
    return (FOREGROUND, *regions) if len(regions) > 1 else (FOREGROUND,)


def pool_cases(runs: Sequence[Run]) -> dict[str, Values]:
    """Return the values of each case over all folds; a case that several folds scored gets the mean of its values."""
    gathered: dict[str, list[Values]] = {}
    for run in runs:
        for case, values in run.cases.items():
            gathered.setdefault(case, []).append(values)
    return {case: several[0] if len(several) == 1 else _mean_values(several) for case, several in gathered.items()}


def value_of(values: Values, region: str, metric: str) -> float | None:
    """Return one value of a case; for ``mean of regions`` the mean over its defined regions."""
    if region != FOREGROUND:
        return values.get(region, {}).get(metric)
    defined = [score for scores in values.values() if (score := scores.get(metric)) is not None]
    return fmean(defined) if defined else None


def pair_of(first: Values, second: Values, region: str, metric: str) -> tuple[float | None, float | None]:
    """Return one case's values of two plans; the mean of regions is taken over the regions that are defined in both."""
    if region != FOREGROUND:
        return value_of(first, region, metric), value_of(second, region, metric)
    both = [r for r in first if value_of(first, r, metric) is not None and value_of(second, r, metric) is not None]
    one = value_of({r: first[r] for r in both}, FOREGROUND, metric)
    other = value_of({r: second[r] for r in both}, FOREGROUND, metric)
    return one, other


def _mean_values(several: Sequence[Values]) -> Values:
    keys = dict.fromkeys((region, metric) for values in several for region in values for metric in values[region])
    result: Values = {}
    for region, metric in keys:
        defined = [v for values in several if (v := values.get(region, {}).get(metric)) is not None]
        result.setdefault(region, {})[metric] = fmean(defined) if defined else None
    return result


def _common_cases(pooled: dict[str, dict[str, Values]]) -> list[str]:
    """Return the cases for which every plan has a mean foreground Dice."""
    first = next(iter(pooled.values()), {})
    return [
        case
        for case in first
        if all(case in cases and value_of(cases[case], FOREGROUND, PRIMARY) is not None for cases in pooled.values())
    ]


def _rank(pooled: dict[str, dict[str, Values]], common: Sequence[str]) -> tuple[Rank, ...]:
    """Rank the plans on their common cases; without any there is no fair order."""
    if not common:
        return ()
    names = list(pooled)
    matrix = np.array(
        [[value_of(pooled[name][case], FOREGROUND, PRIMARY) for name in names] for case in common], dtype=float
    )
    shares = first_place_shares(matrix)
    order = np.argsort(-matrix.mean(axis=0), kind="stable").tolist()
    best = matrix[:, order[0]]
    ranks = []
    for column in order:
        to_best = compare_paired(list(zip(matrix[:, column].tolist(), best.tolist()))) if column != order[0] else None
        mean = float(matrix[:, column].mean())
        ranks.append(Rank(plan=names[column], mean=mean, first_share=shares[column], to_best=to_best))
    return tuple(ranks)


def _summarize_plan(
    runs: Sequence[Run], cases: dict[str, Values], regions: Sequence[str], metrics: Sequence[str]
) -> PlanSummary:
    scores = {
        region: {
            metric: describe([value_of(values, region, metric) for values in cases.values()]) for metric in metrics
        }
        for region in regions
    }
    return PlanSummary(
        name=runs[0].plan,
        architecture=str(runs[0].document.get("network", {}).get("architecture", "unknown")),
        folds=tuple(run.fold for run in runs),
        num_cases=len(cases),
        scores=scores,
        cost=_measure_cost(runs),
    )


def _measure_cost(runs: Sequence[Run]) -> Cost:
    document, longest = runs[0].document, max(len(run.epochs) for run in runs)
    per_epoch = document.get("training", {}).get("iterations_per_epoch")
    estimate = document.get("estimate", {})
    trained = [sum(_numbers(run.epochs, "seconds")) for run in runs if run.epochs]
    inference = list(chain.from_iterable(run.seconds.values() for run in runs))
    peaks = list(chain.from_iterable(_numbers(run.epochs, "peak_memory_gb") for run in runs))
    epochs = list(chain.from_iterable(_numbers(run.epochs, "seconds") for run in runs))
    return Cost(
        parameters=runs[0].record.get("parameters", estimate.get("parameters")),
        epochs=longest,
        iterations=longest * per_epoch if per_epoch else None,
        epoch_seconds=median(epochs) if epochs else None,
        training_seconds=fmean(trained) if trained else None,
        inference_seconds=fmean(inference) if inference else None,
        memory_predicted_gb=estimate.get("memory_gb"),
        memory_measured_gb=max(peaks, default=None),
        devices=tuple(dict.fromkeys(str(run.record["device"]) for run in runs if run.record.get("device"))),
    )


def _numbers(records: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [float(record[key]) for record in records if record.get(key) is not None]


def _compare_all(
    pooled: dict[str, dict[str, Values]], baseline: str | None, regions: Sequence[str], metrics: Sequence[str]
) -> tuple[Comparison, ...]:
    """Compare every plan with the baseline. The mean Dice of each is one family of tests, all else together another."""
    wanted = [(p, r, m) for m in metrics for r in regions for p in pooled if p != baseline and baseline is not None]
    primary = [key for key in wanted if key[1:] == (FOREGROUND, PRIMARY)]
    secondary = [key for key in wanted if key[1:] != (FOREGROUND, PRIMARY)]
    return (
        *_compare_family(pooled, baseline, primary, "primary"),
        *_compare_family(pooled, baseline, secondary, "secondary"),
    )


def _compare_family(
    pooled: dict[str, dict[str, Values]],
    baseline: str | None,
    keys: Sequence[tuple[str, str, str]],
    family: Literal["primary", "secondary"],
) -> list[Comparison]:
    base = pooled.get(baseline or "", {})
    differences = []
    for plan, region, metric in keys:
        both = [(values, base[case]) for case, values in pooled[plan].items() if case in base]
        differences.append(compare_paired([pair_of(mine, theirs, region, metric) for mine, theirs in both]))
    corrected = correct_holm([difference.p_value for difference in differences])
    return [
        Comparison(
            plan=plan,
            region=region,
            metric=metric,
            family=family,
            difference=difference,
            p_holm=p,
            verdict=judge(
                difference, p, margin=METRICS[metric].margin, higher_is_better=METRICS[metric].higher_is_better
            ),
        )
        for (plan, region, metric), difference, p in zip(keys, differences, corrected)
    ]
