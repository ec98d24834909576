"""Several datasets together: which differences to the baseline survive, and how the plans rank over all datasets."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

import autoseg
from autoseg.compare.critical_difference import MIN_DATASETS, CriticalDifference, compare_datasets
from autoseg.compare.statistics import SIGNIFICANCE, Verdict, correct_holm, judge
from autoseg.compare.summary import FOREGROUND, METRICS, PRIMARY, Comparison, Summary
from autoseg.compare.words import format_signed, join
from autoseg.documents import Document
from autoseg.plurals import count


class DatasetComparison(Document):
    """A plan minus the baseline on one dataset, in mean Dice; p is Holm-corrected over all plans and datasets."""

    dataset: str
    comparison: Comparison


class Overview(Document):
    """datasets.json.

    Attributes:
        means: dataset to plan to mean Dice over its cases.
        baselines: dataset to the plan that the others are compared with.
        critical: None where fewer than two plans are on all datasets.
    """

    schema_: Literal["autoseg.overview.1"] = Field(default="autoseg.overview.1", alias="schema")
    autoseg: str
    datasets: tuple[str, ...]
    plans: tuple[str, ...]
    baselines: dict[str, str | None]
    means: dict[str, dict[str, float]]
    num_cases: dict[str, int]
    comparisons: tuple[DatasetComparison, ...]
    critical: CriticalDifference | None
    headline: str
    sentences: tuple[str, ...]

    def comparison(self, dataset: str, plan: str) -> Comparison | None:
        """Return the comparison of a plan on a dataset, None where there is none."""
        return next(
            (c.comparison for c in self.comparisons if c.dataset == dataset and c.comparison.plan == plan), None
        )


def compare_over_datasets(summaries: Sequence[Summary]) -> Overview:
    """Put the summaries of two or more datasets together; all tests of mean Dice are one family."""
    plans = tuple(dict.fromkeys(plan.name for summary in summaries for plan in summary.plans))
    means = {
        summary.dataset: {p.name: m for p in summary.plans if (m := _mean(summary, p.name)) is not None}
        for summary in summaries
    }
    comparisons = _correct_together(summaries)
    critical = compare_datasets(means)
    return Overview(
        autoseg=autoseg.__version__,
        datasets=tuple(summary.dataset for summary in summaries),
        plans=plans,
        baselines={summary.dataset: summary.baseline for summary in summaries},
        means=means,
        num_cases={summary.dataset: summary.num_common_cases for summary in summaries},
        comparisons=comparisons,
        critical=critical,
        headline=_headline(critical),
        sentences=tuple(sentence for sentence in (_survivors(comparisons), *_critical_sentences(critical)) if sentence),
    )


def _mean(summary: Summary, plan: str) -> float | None:
    score = summary.plan(plan).scores[FOREGROUND].get(PRIMARY)
    return None if score is None else score.mean


def _correct_together(summaries: Sequence[Summary]) -> tuple[DatasetComparison, ...]:
    found = [(s.dataset, c) for s in summaries for c in s.comparisons if c.family == "primary"]
    corrected = correct_holm([c.difference.p_value for _, c in found])
    permuted = correct_holm([c.difference.p_permutation for _, c in found])
    return tuple(
        DatasetComparison(dataset=dataset, comparison=_corrected(comparison, p, p_permuted))
        for (dataset, comparison), p, p_permuted in zip(found, corrected, permuted)
    )


def _corrected(comparison: Comparison, p: float | None, p_permuted: float | None) -> Comparison:
    known = METRICS[comparison.metric]
    verdict = judge(
        comparison.difference, (p, p_permuted), margin=known.margin, higher_is_better=known.higher_is_better
    )
    more = comparison.more_cases if verdict == comparison.verdict == "undecided" else None
    return comparison.model_copy(
        update={"p_holm": p, "p_permutation_holm": p_permuted, "verdict": verdict, "more_cases": more}
    )


def _headline(critical: CriticalDifference | None) -> str:
    if critical is None:
        return "No two plans were tried on all datasets"
    first = [plan for plan, rank in zip(critical.plans, critical.mean_ranks) if rank == critical.mean_ranks[0]]
    tied = next((last for start, last in critical.cliques if start == 0), 0)
    sure = " and differs from all others" if not tied else ", but the datasets do not settle it"
    return f"{join(first)} {'ranks' if len(first) == 1 else 'rank'} first over {len(critical.datasets)} datasets{sure}"


def _survivors(comparisons: Sequence[DatasetComparison]) -> str:
    tested = [c.comparison for c in comparisons if c.comparison.p_holm is not None]
    named = [
        f"{c.comparison.plan} on {c.dataset} {format_signed(c.comparison.difference.mean, PRIMARY)}"
        for c in comparisons
        if _significant(c.comparison) and (c.comparison.difference.mean or 0.0) > 0
    ]
    if not tested:
        return ""
    significant = [c for c in tested if _significant(c)]
    told = f" ({join(named)} points)" if named else ""
    baselines = join(sorted({c.baseline for c in tested}))
    losses = len(significant) - len(named)
    return (
        f"Of {count(len(tested), 'comparison')} with {baselines}, {len(significant)} stay significant in the signed-"
        f"rank test when Holm's procedure corrects for all of them: {count(len(named), 'gain')}{told} and "
        f"{losses} {'loss' if losses == 1 else 'losses'}. "
        f"Without correction it would be {sum((c.difference.p_value or 1.0) < SIGNIFICANCE for c in tested)}. "
        f"Called better, for which the permutation test of the mean must agree and the interval must reach beyond one "
        f"Dice point: {_number(tested, 'better') or 'none'}."
    )


def _significant(comparison: Comparison) -> bool:
    return comparison.p_holm is not None and comparison.p_holm < SIGNIFICANCE


def _number(comparisons: Sequence[Comparison], verdict: Verdict) -> int:
    return sum(comparison.verdict == verdict for comparison in comparisons)


def _critical_sentences(critical: CriticalDifference | None) -> tuple[str, ...]:
    if critical is None or critical.difference is None:
        return ()
    ranks = join([f"{plan} {rank:.2f}" for plan, rank in zip(critical.plans, critical.mean_ranks)])
    few = (
        f" With fewer than {MIN_DATASETS} datasets hardly any difference can reach it."
        if len(critical.datasets) < MIN_DATASETS
        else ""
    )
    friedman = (
        "" if critical.p_friedman is None else f" Friedman's test that all are alike: p = {critical.p_friedman:.2g}."
    )
    return (
        f"Mean ranks: {ranks}. Plans whose mean ranks differ by less than {critical.difference:.2f} "
        f"(Nemenyi's critical difference) cannot be told apart.{friedman}{few}",
    )
