"""The numbers of the report: scores, costs, differences to the baseline, ranks. No conclusions."""

from collections.abc import Callable, Sequence
from itertools import chain
from statistics import fmean, median
from typing import Any, Literal

import numpy as np

import autoseg
from autoseg.compare.groups import Keys, find_seeds, group_plans
from autoseg.compare.ranking import first_place_shares, rank_by_rules, significance_matrix
from autoseg.compare.resampling import Numbers
from autoseg.compare.runs import Run, Runs
from autoseg.compare.scores import Scores, gather_scores
from autoseg.compare.statistics import MIN_CASES, compare_paired, correct_holm, describe, judge, more_cases_needed
from autoseg.compare.summary import (
    FOREGROUND,
    METRICS,
    PRIMARY,
    VOLUME,
    Comparison,
    Cost,
    Group,
    PlanSummary,
    Rank,
    SeedGroup,
    Significance,
    SizeClass,
    Summary,
    UnfinishedRun,
)

COSTS = ("epoch_seconds", "training_seconds", "inference_seconds", "parameters", "memory", "energy_kwh")
KJ_PER_KWH = 3600.0
NUM_SIZE_CLASSES = 3
UNJUDGED = (
    "iou", "reference_volume_ml", "predicted_volume_ml", "volume_difference_ml",
    "reference_lesions", "predicted_lesions",
)  # fmt: skip
"""Metrics that are not compared: no scores, and the intersection over union, which says of a case what Dice says."""


def measure(runs: Runs, *, baseline: str = "unet", by: Sequence[str] = (), scores: Scores | None = None) -> Summary:
    """Compute all numbers, no conclusions; where ``baseline`` has no finished run, another plan stands in for it."""
    table = gather_scores(runs) if scores is None else scores
    chosen = baseline if baseline in runs.plans else _stand_in(runs, baseline)
    metrics = tuple(name for name in METRICS if name in runs.metrics)
    plans = _summarize_plans(runs, table, metrics)
    return Summary(
        autoseg=autoseg.__version__,
        dataset=runs.dataset,
        regions=runs.regions,
        metrics=metrics,
        skipped_metrics=tuple(name for name in runs.metrics if name not in (*METRICS, *UNJUDGED)),
        baseline=chosen,
        wanted_baseline=baseline,
        num_common_cases=len(table.common()),
        ranking=_rank(table),
        rules=rank_by_rules(table.matrix(), table.plans) if _can_rank(table) else (),
        significance=_significance(table) if _can_rank(table) else None,
        plans=plans,
        fronts={cost: front for cost in COSTS if (front := pareto_front(plans, cost))},
        comparisons=_compare_all(table, chosen, metrics),
        sizes=_compare_sizes(table),
        seeds=_measure_seeds(runs, table),
        groups=tuple(
            _measure_group(table, keys) for name in by for keys in group_plans(documents_of(runs), name, chosen)
        ),
        unfinished=tuple(
            UnfinishedRun(plan=r.plan, fold=r.fold, state=r.state, detail=r.detail) for r in runs.unfinished()
        ),
    )


def _stand_in(runs: Runs, baseline: str) -> str | None:
    """Return the first plan whose architecture has the baseline's name, as its variants do, or else the first."""
    documents = documents_of(runs)
    alike = [name for name in runs.plans if documents[name].get("network", {}).get("architecture") == baseline]
    return next(iter((*alike, *runs.plans)), None)


def shown_regions(regions: Sequence[str]) -> tuple[str, ...]:
    """Return the regions with their mean first; a single region is its own mean."""
    return (FOREGROUND, *regions) if len(regions) > 1 else (FOREGROUND,)


def documents_of(runs: Runs) -> dict[str, dict[str, Any]]:
    """Return the plan document of each plan that has a finished run."""
    return {plan: runs.finished(plan)[0].document for plan in runs.plans}


def cost_of(plan: PlanSummary, cost: str) -> float | None:
    """Return one of the ``COSTS``; memory is the device's as measured, else the host's, else as predicted."""
    if cost == "memory":
        return plan.cost.memory[0]
    found: float | None = getattr(plan.cost, cost)
    return found


def pareto_front(plans: Sequence[PlanSummary], cost: str) -> tuple[str, ...]:
    """Return the plans that no other beats in both ``cost`` and mean Dice, cheapest first."""
    points = []
    for plan in plans:
        spent, score = cost_of(plan, cost), plan.scores[FOREGROUND].get(PRIMARY)
        if spent is not None and score is not None and score.mean is not None:
            points.append((spent, -score.mean, plan.name))
    front: list[tuple[float, float, str]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return tuple(name for _, _, name in front)


def _can_rank(table: Scores) -> bool:
    return len(table.plans) > 1 and len(table.common()) >= MIN_CASES


def _rank(table: Scores) -> tuple[Rank, ...]:
    """Rank the plans on their common cases; without any there is no fair order."""
    if not len(table.common()):
        return ()
    matrix = table.matrix()
    shares = first_place_shares(matrix)
    order = np.argsort(-matrix.mean(axis=0), kind="stable").tolist()
    to_best = compare_paired([(matrix[:, column], matrix[:, order[0]]) for column in order])
    return tuple(
        Rank(
            plan=table.plans[column],
            mean=float(matrix[:, column].mean()),
            first_share=shares[column],
            to_best=to_best[place] if place else None,
        )
        for place, column in enumerate(order)
    )


def _significance(table: Scores) -> Significance:
    matrix = table.matrix()
    order = np.argsort(-matrix.mean(axis=0), kind="stable")
    found = significance_matrix(matrix[:, order])
    rows = tuple(tuple(None if np.isnan(p) else float(p) for p in row) for row in found)
    return Significance(plans=tuple(table.plans[place] for place in order), p_values=rows)


def _summarize_plans(runs: Runs, table: Scores, metrics: Sequence[str]) -> tuple[PlanSummary, ...]:
    regions = shown_regions(runs.regions)
    keys = [(plan, region, metric) for plan in runs.plans for region in regions for metric in metrics]
    found = dict(zip(keys, describe([table.own_column(*key) for key in keys])))
    return tuple(
        PlanSummary(
            name=plan,
            architecture=str(runs.finished(plan)[0].document.get("network", {}).get("architecture", "unknown")),
            folds=tuple(run.fold for run in runs.finished(plan)),
            num_cases=int(table.scored[index].sum()),
            num_failed=int(table.failed[index].sum()),
            scores={region: {metric: found[plan, region, metric] for metric in metrics} for region in regions},
            cost=_cost_of_stages(runs, plan),
        )
        for index, plan in enumerate(runs.plans)
    )


def _cost_of_stages(runs: Runs, plan: str) -> Cost:
    """Return what a plan costs; of a cascade, both stages: see ``Cost``."""
    own, first = _cost_of_trainings(runs, runs.finished(plan)), runs.first_stage(plan)
    if first is None:
        return own
    other = _cost_of_trainings(runs, first) if first else None
    added = {
        name: _combine(sum, getattr(own, name), getattr(other, name, None))
        for name in ("parameters", "training_seconds", "inference_seconds", "energy_kwh")
    }
    largest = {
        name: _combine(max, getattr(own, name), getattr(other, name, None))
        for name in ("memory_predicted_gb", "memory_measured_gb", "memory_host_gb")
    }
    return own.model_copy(update=added | largest)


def _cost_of_trainings(runs: Runs, chosen: Sequence[Run], known: frozenset[str] = frozenset()) -> Cost:
    """Return what runs of a plan cost; to train, with those whose weights they started from: see ``Cost``."""
    own, before = _measure_cost(chosen), runs.started_from(chosen)
    if before is None or chosen[0].plan in known:  # documents edited by hand may go round in a circle
        return own
    other = _cost_of_trainings(runs, before, known | {chosen[0].plan}) if before else None
    added = {
        name: _combine(sum, getattr(own, name), getattr(other, name, None))
        for name in ("training_seconds", "energy_kwh")
    }
    return own.model_copy(update=added)


def _combine(rule: Callable[[list[float]], float], *values: float | None) -> float | None:
    """Return the sum or the like of the values; None if one is not known."""
    known = [value for value in values if value is not None]
    return rule(known) if len(known) == len(values) else None


def _measure_cost(runs: Sequence[Run]) -> Cost:
    document, longest = runs[0].document, max(len(run.epochs) for run in runs)
    per_epoch = document.get("training", {}).get("iterations_per_epoch")
    estimate = document.get("estimate", {})
    trained = [sum(_numbers(run.epochs, "seconds")) for run in runs if run.epochs]
    inference = list(chain.from_iterable(run.seconds.values() for run in runs))
    peaks, host_peaks = (
        list(chain.from_iterable(_numbers(run.epochs, key) for run in runs))
        for key in ("peak_memory_gb", "peak_host_memory_gb")
    )
    epochs = list(chain.from_iterable(_numbers(run.epochs, "seconds") for run in runs))
    energies = [sum(_numbers(run.epochs, "energy_kj")) for run in runs if _tells_all(run, "energy_kj")]
    return Cost(
        parameters=runs[0].record.get("parameters", estimate.get("parameters")),
        flops_per_iteration=estimate.get("flops_per_iteration"),
        epochs=longest,
        iterations=longest * per_epoch if per_epoch and longest else None,
        epoch_seconds=median(epochs) if epochs else None,
        training_seconds=fmean(trained) if trained else None,
        inference_seconds=fmean(inference) if inference else None,
        memory_predicted_gb=estimate.get("memory_gb"),
        memory_measured_gb=max(peaks, default=None),
        memory_host_gb=max(host_peaks, default=None),
        devices=tuple(dict.fromkeys(str(run.record["device"]) for run in runs if run.record.get("device"))),
        energy_kwh=fmean(energies) / KJ_PER_KWH if energies else None,
    )


def _tells_all(run: Run, key: str) -> bool:
    return bool(run.epochs) and len(_numbers(run.epochs, key)) == len(run.epochs)


def _numbers(records: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [float(record[key]) for record in records if record.get(key) is not None]


def _compare_all(table: Scores, baseline: str | None, metrics: Sequence[str]) -> tuple[Comparison, ...]:
    """Compare every plan with the baseline. The mean Dice of each is one family of tests, all else together another."""
    if baseline is None:
        return ()
    wanted = [(p, r, m) for m in metrics for r in shown_regions(table.regions) for p in table.plans if p != baseline]
    primary = [key for key in wanted if key[1:] == (FOREGROUND, PRIMARY)]
    secondary = [key for key in wanted if key[1:] != (FOREGROUND, PRIMARY)]
    return (
        *compare_family(table, baseline, primary, "primary"),
        *compare_family(table, baseline, secondary, "secondary"),
    )


def compare_family(
    table: Scores, baseline: str, keys: Sequence[tuple[str, str, str]], family: Literal["primary", "secondary"]
) -> list[Comparison]:
    """Compare (plan, region, metric) of ``keys`` with the baseline; the tests are corrected for their number."""
    differences = compare_paired([table.pair(plan, baseline, region, metric) for plan, region, metric in keys])
    corrected = correct_holm([difference.p_value for difference in differences])
    permuted = correct_holm([difference.p_permutation for difference in differences])
    comparisons = []
    for (plan, region, metric), difference, p, p_permuted in zip(keys, differences, corrected, permuted):
        known = METRICS[metric]
        verdict = judge(difference, (p, p_permuted), margin=known.margin, higher_is_better=known.higher_is_better)
        more = more_cases_needed(difference, margin=known.margin, num_comparisons=len(keys))
        comparisons.append(
            Comparison(
                plan=plan,
                baseline=baseline,
                region=region,
                metric=metric,
                family=family,
                difference=difference,
                p_holm=p,
                p_permutation_holm=p_permuted,
                verdict=verdict,
                more_cases=more if verdict == "undecided" and p is not None else None,
            )  # fmt: skip
        )
    return comparisons


def _compare_sizes(table: Scores) -> tuple[SizeClass, ...]:
    """Describe each plan's Dice in thirds of the cases by the volume of the region in the reference."""
    if (
        VOLUME not in table.metrics
        or PRIMARY not in table.metrics
        or len(table.common()) < NUM_SIZE_CLASSES * MIN_CASES
    ):
        return ()
    found = []
    for index, region in enumerate(table.regions):
        volumes = mean_volume(table, index)
        places = [place for place in table.common() if volumes[place] > 0]
        places.sort(key=lambda place: volumes[place])
        for part in np.array_split(np.array(places, dtype=int), NUM_SIZE_CLASSES):
            if len(part):
                described = describe([table.column(plan, region, PRIMARY)[part] for plan in table.plans])
                low, high = float(volumes[part[0]]), float(volumes[part[-1]])
                found.append(
                    SizeClass(region=region, low_ml=low, high_ml=high, scores=dict(zip(table.plans, described)))
                )
    return tuple(found)


def mean_volume(table: Scores, region: int) -> Numbers:
    """Return the reference volume of a region in each case (cases,), in ml; 0 where unknown."""
    block = table.values[:, :, region, table.metrics.index(VOLUME)]
    largest: Numbers = np.nan_to_num(np.where(np.isnan(block), -np.inf, block).max(axis=0), neginf=0.0)
    return largest


def _measure_seeds(runs: Runs, table: Scores) -> tuple[SeedGroup, ...]:
    groups = []
    for plans in find_seeds(documents_of(runs)):
        if len(table.common(plans)):
            means = table.matrix(plans).mean(axis=0)
            spread, largest = float(means.std(ddof=1)), float(np.ptp(means))
            groups.append(SeedGroup(plans=plans, means=tuple(means.tolist()), spread=spread, largest=largest))
    return tuple(groups)


def _measure_group(table: Scores, keys: Keys) -> Group:
    reference = keys.plans[0]
    compared = [(plan, FOREGROUND, PRIMARY) for plan in keys.plans[1:]]
    comparisons = compare_family(table, reference, compared, "primary") if PRIMARY in table.metrics else []
    return Group(by=keys.by, reference=reference, plans=keys.plans, values=keys.values, comparisons=tuple(comparisons))
