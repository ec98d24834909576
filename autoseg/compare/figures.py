"""The report's figures as plotly's own JSON, which report.js draws.

A figure has *selectors* (what the reader may choose) and one *view* for each combination of their options, keyed by the
options' values joined by ``|``. What views share (names of cases, their places) stands once in ``shared``; a trace
points at it through ``refs``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np

from autoseg.compare.measure import cost_of, pareto_front, shown_regions
from autoseg.compare.runs import Runs
from autoseg.compare.scores import Scores, mean_defined
from autoseg.compare.statistics import Difference
from autoseg.compare.summary import (
    FOREGROUND,
    METRICS,
    PRIMARY,
    Comparison,
    PlanSummary,
    Summary,
)
from autoseg.compare.traces import (
    GOLDEN,
    INK,
    JITTER,
    MAX_DOTS,
    MAX_LINES,
    Trace,
    colour_of,
    draw_box,
    draw_case_lines,
    draw_curve,
    draw_dots,
    make_layout,
    mark_plans,
    rounded,
)
from autoseg.compare.words import format_interval, format_signed, scale_of, unit_of
from autoseg.plurals import count

COSTS = {
    "epoch_seconds": ("Epoch time", "seconds an epoch (median)", 1.0),
    "training_seconds": ("Training time", "training, hours a fold", 3600.0),
    "inference_seconds": ("Inference time", "inference, seconds a case", 1.0),
    "energy_kwh": ("Energy", "energy of training, kWh a fold", 1.0),
    "parameters": ("Parameters", "parameters, millions", 1e6),
    "memory": ("Memory", "memory in training, GB (device, else host, else predicted)", 1.0),
}
"""Cost to its name, the title of its axis, and what its values are divided by."""
LABEL_WIDTH, LABEL_HEIGHT = 0.25, 0.12
"""Parts of the axes within which the labels of two plans would meet."""


@dataclass(frozen=True)
class Selector:
    """A choice of the reader's: value to label."""

    name: str
    label: str
    options: dict[str, str]


@dataclass(frozen=True)
class Figure:
    """One figure; ``alt`` is what it says to who cannot see it."""

    name: str
    alt: str
    height: int
    selectors: tuple[Selector, ...]
    views: dict[str, dict[str, Any]]
    shared: dict[str, list[Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what report.js needs."""
        selectors = [selector.name for selector in self.selectors]
        return {"height": self.height, "selectors": selectors, "views": self.views, "shared": self.shared}


def draw_forest(summary: Summary) -> Figure:
    """Draw the differences to the baseline with their intervals, a row for each region and plan."""
    regions = shown_regions(summary.regions)
    plans = [plan.name for plan in summary.plans if plan.name != summary.baseline]
    markers = mark_plans([plan.name for plan in summary.plans])
    views = {}
    for metric in summary.metrics:
        traces = [
            _forest_trace(summary, plan, metric, regions, (i, len(plans)), markers[plan])
            for i, plan in enumerate(plans)
        ]
        views[metric] = {"data": traces, "layout": _forest_layout(metric, regions, summary.baseline or "")}
    words = "; ".join(
        f"{c.plan}: {format_signed(c.difference.mean, PRIMARY)} points "
        f"({format_interval(c.difference, PRIMARY)}), {c.verdict}"
        for c in summary.comparisons
        if c.family == "primary"
    )
    height = 130 + max(22 * len(plans) + 14, 44) * len(regions)
    alt = f"Differences of mean Dice to {summary.baseline} with 95 % intervals. {words}."
    return Figure("forest", alt, height, (metric_selector(summary),), views)


def draw_cost(summary: Summary) -> Figure:
    """Draw mean Dice against each kind of cost, with the front of the plans that no other beats in both.

    Where plans are grouped by one thing, each group can be looked at alone, its plans labelled by their value.
    """
    markers = mark_plans([plan.name for plan in summary.plans])
    choices = {"all": ("all plans", {plan.name: plan.name for plan in summary.plans})}
    for number, group in enumerate(summary.groups):
        choices[f"group{number}"] = (f"by {group.by}, {group.reference}", dict(zip(group.plans, group.values)))
    views = {}
    for (key, (_, title, divisor)), (choice, (_, labels)) in product(COSTS.items(), choices.items()):
        plans = [plan for plan in summary.plans if plan.name in labels]
        points = [(plan, cost_of(plan, key)) for plan in plans]
        known = [(plan, value / divisor) for plan, value in points if value is not None and _dice(plan) is not None]
        if known:
            layout = make_layout(title, "mean Dice over regions", xaxis={"rangemode": "tozero"}, showlegend=False)
            chosen = pareto_front(plans, key)
            front = _front([pair for pair in known if pair[0].name in chosen])
            views[f"{key}|{choice}"] = {"data": [front, *_cost_traces(known, markers, labels)], "layout": layout}
    costs = {key: title for key, (title, _, _) in COSTS.items() if f"{key}|all" in views}
    shown = {choice: title for choice, (title, _) in choices.items()}
    words = "; ".join(
        f"{p.name}: Dice {_dice(p) or 0:.3f}, {p.cost.epoch_seconds or 0:.3g} s an epoch" for p in summary.plans
    )
    selectors = (Selector("x", "Cost", costs), Selector("plans", "Plans", shown))
    return Figure("cost", f"Mean Dice against cost. {words}.", 430, selectors, _complete(views, costs, shown))


def _complete(views: dict[str, Any], costs: Mapping[str, str], shown: Mapping[str, str]) -> dict[str, Any]:
    """Return the views with an empty one for a group without a known cost, so that every choice can be drawn."""
    empty = {"data": [], "layout": make_layout("not known", "")}
    return {f"{cost}|{choice}": views.get(f"{cost}|{choice}", empty) for cost in costs for choice in shown}


def draw_cases(summary: Summary, table: Scores) -> Figure:
    """Draw every case as a dot for each plan, with the box of its quartiles and faint lines along the cases."""
    places = choose_shown(table)
    names = [table.cases[place] for place in places]
    offsets = [JITTER * (2 * (index * GOLDEN % 1) - 1) for index in range(len(places))]
    markers = mark_plans(table.plans)
    shared: dict[str, list[Any]] = {"text": [escape(name) for name in names]}
    for column in range(len(table.plans)):
        shared[f"x{column}"] = [round(column + offset, 3) for offset in offsets]
    views = {}
    for region, metric in product(shown_regions(summary.regions), summary.metrics):
        columns = {plan: table.column(plan, region, metric) for plan in table.plans}
        shown = {plan: [rounded(value) for value in column[places].tolist()] for plan, column in columns.items()}
        traces = [draw_box(column, plan, values) for column, (plan, values) in enumerate(columns.items())]
        if len(names) <= MAX_LINES and len(columns) > 1:
            traces.append(draw_case_lines(list(shown.values()), offsets))
        traces += [draw_dots(column, plan, shown[plan], markers[plan]) for column, plan in enumerate(columns)]
        views[f"{region}|{metric}"] = {"data": traces, "layout": _cases_layout(table.plans, metric)}
    options = {region: region for region in shown_regions(summary.regions)}
    selectors = (Selector("region", "Region", options), metric_selector(summary))
    alt = (
        f"The values of {count(len(names), 'case')} for {count(len(table.plans), 'plan')}, one dot a case; "
        f"cases.csv holds all values."
    )
    return Figure("cases", alt, 480, selectors, views, shared)


def choose_shown(table: Scores) -> list[int]:
    """Return the places of the cases to draw, sorted by name: all, or of many the hardest and an even choice of the
    rest.
    """
    places = sorted(range(len(table.cases)), key=lambda place: table.cases[place])
    if len(places) <= MAX_DOTS:
        return places
    means = mean_defined(np.stack([table.column(plan, FOREGROUND, PRIMARY) for plan in table.plans], axis=1))
    by_mean = np.argsort(means, kind="stable").tolist()
    hardest, rest = by_mean[: MAX_DOTS // 4], by_mean[MAX_DOTS // 4 :]
    even = [rest[int(i)] for i in np.linspace(0, len(rest) - 1, MAX_DOTS - len(hardest))]
    chosen = {*hardest, *even}
    return [place for place in places if place in chosen]


def _cases_layout(plans: Sequence[str], metric: str) -> dict[str, Any]:
    ticks = {
        "tickvals": list(range(len(plans))),
        "ticktext": [escape(plan) for plan in plans],
        "showgrid": False,
        "zeroline": False,
    }
    title = f"{METRICS[metric].title}{', mm' if METRICS[metric].unit else ''}"
    return make_layout("", title, xaxis=ticks, showlegend=False)


def draw_curves(runs: Runs) -> Figure:
    """Draw the losses and the validation Dice of every run, unfinished ones too, over epochs and over hours."""
    quantities = {
        "dice": ("Validation Dice of patches", _mean_dice),
        "validation_loss": ("Validation loss", lambda r: r.get("validation_loss")),
        "train_loss": ("Training loss", lambda r: r.get("train_loss")),
    }
    axes = {"epoch": ("epoch", "epoch"), "hours": ("time", "hours of training")}
    colours = colour_of(runs.plans + tuple(name for name in runs.names if name not in runs.plans))
    views = {}
    for (quantity, (label, value)), (axis, (_, title)) in product(quantities.items(), axes.items()):
        traces = [
            draw_curve(run, axis, [value(r) for r in run.epochs], colours[run.plan], runs)
            for run in runs.runs
            if run.epochs
        ]
        views[f"{quantity}|{axis}"] = {
            "data": traces,
            "layout": make_layout(title, label, xaxis={"rangemode": "tozero"}),
        }
    chosen = Selector("quantity", "Curve", {key: label for key, (label, _) in quantities.items()})
    over = Selector("axis", "Over", {key: label for key, (label, _) in axes.items()})
    number = sum(bool(run.epochs) for run in runs.runs)
    alt = f"Training curves of {count(number, 'run')}: losses and validation Dice of patches against epochs or hours."
    return Figure("curves", alt, 430, (chosen, over), views)


def metric_selector(summary: Summary) -> Selector:
    return Selector("metric", "Metric", {name: METRICS[name].title for name in summary.metrics})


def _forest_layout(metric: str, regions: Sequence[str], baseline: str) -> dict[str, Any]:
    better = "right" if METRICS[metric].higher_is_better else "left"
    side = f"{METRICS[metric].title} minus that of {escape(baseline)},<br>{unit_of(metric)} ({better} is better)"
    shapes = [{"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper", "line": {"color": INK, "width": 1}}]
    margin = METRICS[metric].margin
    if margin is not None:
        width = margin * scale_of(metric)
        band = {"type": "rect", "x0": -width, "x1": width, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
        shapes.append({**band, "fillcolor": "rgba(97,110,124,0.12)", "line": {"width": 0}})
    ticks = {"tickvals": list(range(len(regions))), "ticktext": [escape(region) for region in regions]}
    rows = {**ticks, "range": [len(regions) - 0.5, -0.5], "showgrid": False, "zeroline": False}
    return make_layout(side, "", yaxis=rows, shapes=shapes)


def _forest_trace(
    summary: Summary, plan: str, metric: str, regions: Sequence[str], place: tuple[int, int], marker: dict[str, str]
) -> Trace:
    found = {c.region: c for c in summary.comparisons if c.plan == plan and c.metric == metric}
    rows = [(row, found[region]) for row, region in enumerate(regions) if found[region].difference.mean is not None]
    scale, shift = scale_of(metric), (place[0] - (place[1] - 1) / 2) * 0.7 / max(place[1], 1)
    ends = [_ends(c.difference, scale) for _, c in rows]
    return {
        "type": "scatter",
        "mode": "markers",
        "meta": plan,
        "name": escape(plan),
        "x": [rounded((c.difference.mean or 0.0) * scale) for _, c in rows],
        "y": [round(row + shift, 3) for row, _ in rows],
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 2, "width": 0,
            "array": [up for _, up in ends], "arrayminus": [down for down, _ in ends],
        },
        "marker": {**marker, "size": 10},
        "text": [_describe_row(c, metric) for _, c in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _ends(difference: Difference, scale: float) -> tuple[float, float]:
    """Return the lengths of the interval to both sides of the mean; 0 where there is none."""
    if difference.mean is None or difference.low is None or difference.high is None:
        return 0.0, 0.0
    return (difference.mean - difference.low) * scale, (difference.high - difference.mean) * scale


def _describe_row(comparison: Comparison, metric: str) -> str:
    difference = comparison.difference
    return (
        f"<b>{escape(comparison.plan)}</b>, {escape(comparison.region)}<br>"
        f"{format_signed(difference.mean, metric)} {unit_of(metric)} ({format_interval(difference, metric)})<br>"
        f"{comparison.verdict}, {count(difference.num, 'case')}"
    )


def _cost_traces(
    known: Sequence[tuple[PlanSummary, float]], markers: Mapping[str, dict[str, str]], labels: Mapping[str, str]
) -> list[Trace]:
    middle, traces = 0.55 * max(cost for _, cost in known), []
    below = _labels_below(known)
    for plan, cost in known:
        score = plan.scores[FOREGROUND][PRIMARY]
        mean, low, high = score.mean or 0.0, score.low, score.high
        left = cost > middle  # so that no label leaves the picture
        trace: Trace = {
            "type": "scatter",
            "mode": "markers+text",
            "meta": plan.name,
            "x": [rounded(cost)],
            "y": [rounded(mean)],
            "text": [
                f"{escape(labels[plan.name])}&nbsp;&nbsp;" if left else f"&nbsp;&nbsp;{escape(labels[plan.name])}"
            ],
            "textposition": f"{'bottom' if plan.name in below else 'top'} {'left' if left else 'right'}",
            "cliponaxis": False,
            "marker": {**markers[plan.name], "size": 13},
            "hovertemplate": f"<b>{escape(plan.name)}</b><br>Dice %{{y:.3f}}<br>%{{x:.3g}}<extra></extra>",
        }
        if low is not None and high is not None:
            sides = {"array": [high - mean], "arrayminus": [mean - low]}
            trace["error_y"] = {"type": "data", "symmetric": False, "thickness": 1.2, "width": 4, **sides}
        traces.append(trace)
    return traces


def _labels_below(known: Sequence[tuple[PlanSummary, float]]) -> set[str]:
    """Return the plans whose label goes below its marker, so that it does not cover that of a neighbour."""
    scores = [_dice(plan) or 0.0 for plan, _ in known]
    height, width = max(max(scores) - min(scores), 1e-6), max(cost for _, cost in known)
    below: set[str] = set()
    ordered = sorted(zip(known, scores), key=lambda entry: entry[0][1])
    for ((before, first), score), ((plan, second), other) in zip(ordered, ordered[1:]):
        close = second - first < LABEL_WIDTH * width and abs(other - score) < LABEL_HEIGHT * height
        if close and before.name not in below:
            below.add(plan.name)
    return below


def _front(known: Sequence[tuple[PlanSummary, float]]) -> Trace:
    """Join the plans of a front."""
    points = sorted((cost, _dice(plan) or 0.0) for plan, cost in known)
    line = {"color": "#9aa5b1", "width": 1.5, "dash": "dot"}
    return {
        "type": "scatter",
        "mode": "lines",
        "line": line,
        "x": [rounded(x) for x, _ in points],
        "y": [rounded(y) for _, y in points],
        "hoverinfo": "skip",
    }


def _mean_dice(record: Mapping[str, Any]) -> float | None:
    defined = [value for value in (record.get("validation_dice") or {}).values() if value is not None]
    return fmean(defined) if defined else None


def _dice(plan: PlanSummary) -> float | None:
    score = plan.scores[FOREGROUND].get(PRIMARY)
    return None if score is None else score.mean
