"""The answer in sentences, and the notes without which it would be read wrongly."""

from collections.abc import Iterator

from autoseg.compare.runs import Runs
from autoseg.compare.statistics import FEW_CASES, MIN_CASES, judge
from autoseg.compare.summary import FOREGROUND, MARGIN, PRIMARY, Rank, Summary
from autoseg.compare.words import (
    MAX_WORTH_NAMING,
    count,
    format_interval,
    format_seconds,
    format_share,
    format_signed,
    join,
)

DIVERGED = 0.5
"""A fold whose mean Dice is below this part of its plan's best fold is pointed out."""
MAX_NAMED = 5


def conclude(summary: Summary, runs: Runs) -> Summary:
    """Return the summary with its headline, its sentences and its notes."""
    return summary.model_copy(
        update={
            "headline": _headline(summary),
            "sentences": tuple(_sentences(summary)),
            "notes": tuple(_notes(summary, runs)),
        }
    )


def best_value(summary: Summary) -> Rank | None:
    """Return the plan that trained quickest among those at most one Dice point below the best, or None."""
    near = [
        rank
        for rank in summary.ranking
        if (rank.to_best is None or (rank.to_best.mean or 0.0) >= -MARGIN) and _training(summary, rank.plan) is not None
    ]
    return min(near, key=lambda rank: _training(summary, rank.plan) or 0.0, default=None)


def describe_better(summary: Summary, plan: str) -> tuple[bool, str]:
    """Return whether any plan is better than ``plan``, the baseline of ``summary``, and that in words."""
    if summary.baseline != plan:
        return False, f"{plan} has no finished run, so nothing can be better than it"
    found = [c for c in summary.comparisons if c.family == "primary"]
    if not found:
        return False, f"there is no other plan than {plan}"
    better = [c for c in found if c.verdict == "better"]
    told = join(
        [
            f"{c.plan} ({format_signed(c.difference.mean, PRIMARY)} points, {format_interval(c.difference, PRIMARY)}"
            f"{'' if better else ', ' + c.verdict})"
            for c in better or found
        ]
    )
    return bool(better), f"better than {plan}: {told}" if better else f"no plan is better than {plan}: {told}"


def _training(summary: Summary, plan: str) -> float | None:
    return summary.plan(plan).cost.training_seconds


def _headline(summary: Summary) -> str:
    if not summary.plans:
        return "No run is finished yet"
    if len(summary.plans) == 1:
        return f"{summary.plans[0].name} stands alone: there is no other plan to compare it with yet"
    if not summary.ranking:
        return "The plans were scored on different cases: there is no fair ranking"
    best, second = summary.ranking[:2]
    verdict = _lead(second)
    if verdict == "better":
        return f"{best.plan} is the best plan"
    if verdict == "equal":
        equal = [rank.plan for rank in summary.ranking[1:] if _lead(rank) == "equal"]
        return f"{join([best.plan, *equal])} are practically equal at the top"
    return f"{best.plan} scores highest, but these cases do not settle it"


def _lead(rank: Rank) -> str:
    """Say what the lead of the first plan over another is worth."""
    difference = rank.to_best
    if difference is None:
        return "undecided"
    p_values = (difference.p_value, difference.p_permutation)
    verdict = judge(difference, p_values, margin=MARGIN, higher_is_better=True)
    return "better" if verdict == "worse" else verdict


def _sentences(summary: Summary) -> Iterator[str]:
    if not summary.ranking:
        return
    best = summary.ranking[0]
    regions = f"the {len(summary.regions)} regions" if len(summary.regions) > 1 else summary.regions[0]
    cases = count(summary.num_common_cases, "case")
    yield f"{best.plan} reaches a mean Dice of {best.mean:.3f} over {regions} of {cases}."
    if len(summary.ranking) == 1:
        return
    yield _runner_up_sentence(summary)
    yield _baseline_sentence(summary)
    yield from filter(None, (_value_sentence(summary), _rules_sentence(summary)))


def _runner_up_sentence(summary: Summary) -> str:
    best, second = summary.ranking[:2]
    difference = second.to_best
    if difference is None or difference.mean is None:
        return ""
    points = format_signed(-difference.mean, PRIMARY).lstrip("+")
    if difference.low is None or difference.high is None:
        return (
            f"It leads {second.plan} by {points} Dice points; below {MIN_CASES} cases nobody can say how sure that is."
        )
    turned = f"{format_signed(-difference.high, PRIMARY)} to {format_signed(-difference.low, PRIMARY)}"
    meaning = {
        "better": "a lead that these cases bear out",
        "equal": "less than matters in practice",
        "undecided": "which these cases cannot tell from chance",
    }[_lead(second)]
    return (
        f"It leads {second.plan} by {points} Dice points (95 % interval {turned}), {meaning}; "
        f"when the cases are drawn anew, it comes first {format_share(best.first_share)} of the time."
    )


def _baseline_sentence(summary: Summary) -> str:
    best = summary.ranking[0].plan
    if best == summary.baseline:
        return "It is the baseline: no other plan has a higher mean Dice."
    found = summary.primary(best)
    if found is None or found.difference.mean is None:
        return f"It shares no case with the baseline {summary.baseline}."
    verdict = {"equal": "practically equal to", "undecided": "not distinguishable from"}.get(
        found.verdict, f"{found.verdict} than"
    )
    more = f" {_more_cases(found.more_cases)}" if found.more_cases else ""
    return (
        f"It is {verdict} the baseline {summary.baseline}: {format_signed(found.difference.mean, PRIMARY)} points "
        f"({format_interval(found.difference, PRIMARY)}).{more}"
    )


def _more_cases(number: int) -> str:
    if number > MAX_WORTH_NAMING:
        return f"No realistic number of cases would settle that (more than {MAX_WORTH_NAMING:,})."
    return f"If the difference is as it looks now, about {number:,} more cases would settle it four times in five."


def _rules_sentence(summary: Summary) -> str:
    """Say whether the three rules of ranking agree on the first plan, and how stable the order is."""
    if not summary.rules:
        return ""
    firsts = [{p for p, rank in zip(rule.plans, rule.ranks) if rank == 1} for rule in summary.rules]
    best = summary.ranking[0].plan
    against = [rule.rule for rule, first in zip(summary.rules, firsts) if best not in first]
    agree = (
        "All three rules of ranking put it first" if not against else f"Ranked by {join(against)} another plan is first"
    )
    tau = summary.rules[0].tau
    stable = "" if tau is None else f"; Kendall's tau between this order and that of redrawn cases is {tau:.2f}"
    return f"{agree}{stable}."


def _value_sentence(summary: Summary) -> str:
    best, value = summary.ranking[0], best_value(summary)
    if value is None:
        return ""
    seconds, most = _training(summary, value.plan), _training(summary, best.plan)
    if value.plan == best.plan or most is None or not seconds:
        time = format_seconds(seconds)
        return f"It is also the best value: no plan within one Dice point of it trains more quickly ({time} a fold)."
    lost = -100 * (value.to_best.mean or 0.0) if value.to_best else 0.0
    times = f"{format_seconds(seconds)} instead of {format_seconds(most)} a fold"
    return (
        f"Best value: {value.plan} is {lost:.1f} Dice points behind and trains in "
        f"{format_share(seconds / most)} of the time ({times})."
    )


def _notes(summary: Summary, runs: Runs) -> Iterator[str]:
    yield from _notes_on_cases(summary, runs)
    yield from _notes_on_seeds(summary)
    yield from _notes_on_fairness(summary, runs)
    yield from _notes_on_runs(summary, runs)


def _notes_on_cases(summary: Summary, runs: Runs) -> Iterator[str]:
    if not summary.plans:
        return
    if summary.baseline != summary.wanted_baseline:
        yield f"The baseline {summary.wanted_baseline} has no finished run; {summary.baseline} takes its place."
    if summary.num_common_cases < MIN_CASES:
        yield (
            f"The plans have {count(summary.num_common_cases, 'case')} in common. "
            f"Below {MIN_CASES} there are no intervals, tests or verdicts."
        )
    elif summary.num_common_cases < FEW_CASES:
        yield (
            f"Only {summary.num_common_cases} cases: with fewer than {FEW_CASES}, intervals tend to be too narrow. "
            "Take the verdicts as hints, and train more folds."
        )
    if failed := [f"{count(p.num_failed, 'case')} of {p.name}" for p in summary.plans if p.num_failed]:
        yield (
            f"Without a segmentation: {join(failed)}. Such a failed case counts with 0 in Dice and the like, "
            "and is left out of distances, for which there is no worst value."
        )
    scored = {frozenset(c for r in runs.finished(plan) for c in (*r.cases, *r.missing)) for plan in runs.plans}
    if len(scored) > 1:
        each = [
            f"{p.name} on {count(p.num_cases, 'case')} (folds {', '.join(map(str, p.folds))})" for p in summary.plans
        ]
        yield (
            f"The plans were scored on different cases: {join(each)}. "
            f"The ranking uses the {summary.num_common_cases} that all have, each difference those that both have; "
            "the other means do not compare like with like."
        )
    by_region = [c.difference for c in summary.comparisons if c.metric == PRIMARY and c.region != FOREGROUND]
    if one_sided := sum(difference.num_one_sided for difference in by_region):
        every = one_sided + sum(difference.num for difference in by_region)
        yield (
            f"In {one_sided} of {every} pairs (two plans, one case, one region) only one of the plans has a Dice: "
            "the reference is empty, and that plan has found something all the same. "
            "Paired differences leave these pairs out, means do not."
        )


def _notes_on_seeds(summary: Summary) -> Iterator[str]:
    for group in summary.seeds:
        yield (
            f"{join(list(group.plans))} differ in the seed alone, and their mean Dice by up to "
            f"{100 * group.largest:.1f} points (standard deviation {100 * group.spread:.1f}): "
            "a smaller difference between other plans may be the luck of one training."
        )


def _notes_on_fairness(summary: Summary, runs: Runs) -> Iterator[str]:
    lengths = {plan.name: plan.cost.iterations for plan in summary.plans if plan.cost.iterations is not None}
    if len(set(lengths.values())) > 1:
        each = [f"{name} {number:,}" for name, number in lengths.items()]
        yield f"The plans were trained for different numbers of iterations, which may explain much: {join(each)}."
    devices = {plan.name: plan.cost.devices for plan in summary.plans if plan.cost.devices}
    if len({name for names in devices.values() for name in names}) > 1:
        each = [f"{name} on {join(list(names))}" for name, names in devices.items()]
        yield f"Times come from different devices and do not compare: {'; '.join(each)}."
    finished = [run.document for run in runs.runs if run.state == "finished" and run.document]
    fingerprints = {document.get("dataset", {}).get("fingerprint_sha256") for document in finished}
    if len(fingerprints) > 1:
        yield "The plans were made from different fingerprints: the dataset has changed between them."
    tolerances = {document.get("prediction", {}).get("surface_tolerance_mm") for document in finished}
    if len(tolerances) > 1 and "surface_dice" in summary.metrics:
        each = [f"{tolerance} mm" for tolerance in tolerances]
        yield f"The surface Dice does not compare: its tolerance differs between the runs ({join(each)})."
    if summary.skipped_metrics:
        yield (
            f"Not shown, since this report does not know which way is better: {join(list(summary.skipped_metrics))}. "
            "cases.csv holds them."
        )


def _notes_on_runs(summary: Summary, runs: Runs) -> Iterator[str]:
    if summary.unfinished:
        names = [f"{run.plan} fold {run.fold}" for run in summary.unfinished[:MAX_NAMED]]
        more = [f"{len(summary.unfinished) - MAX_NAMED} more"] if len(summary.unfinished) > MAX_NAMED else []
        yield f"{count(len(summary.unfinished), 'run')} without scores, left out of every number: {join(names + more)}."
    for plan in runs.plans:
        finished = runs.finished(plan)
        if any(run.document != finished[0].document for run in finished):
            yield f"{plan} was changed between its folds: the folds did not run the same plan."
        yield from _notes_on_folds(summary, runs, plan)


def _notes_on_folds(summary: Summary, runs: Runs, plan: str) -> Iterator[str]:
    means = {}
    for run in runs.finished(plan):
        yield from (f"{plan}: {remark}." for remark in run.remarks)
        if run.missing:
            shown = ", ".join(run.missing[:MAX_NAMED]) + (" ..." if len(run.missing) > MAX_NAMED else "")
            yield f"{plan}, fold {run.fold}: {count(len(run.missing), 'validation case')} without a score: {shown}."
        dice = [v for c in run.cases.values() for scores in c.values() if (v := scores.get(PRIMARY)) is not None]
        means[run.fold] = sum(dice) / len(dice) if dice else 0.0
    for fold, mean in means.items():
        if mean < DIVERGED * max(means.values()):
            yield (
                f"{plan}, fold {fold}: a mean Dice of {mean:.3f}, far below its other folds. "
                "Look at its curves: it may have diverged."
            )
