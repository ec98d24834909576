"""Figures of the ranks, of the sizes, and of several datasets."""

from html import escape
from typing import Any

from autoseg.compare.critical_difference import CriticalDifference
from autoseg.compare.figures import Figure, Selector
from autoseg.compare.ranking import RULES, RuleRanking
from autoseg.compare.statistics import Description
from autoseg.compare.summary import SizeClass, Summary
from autoseg.compare.traces import INK, Trace, make_layout, mark_plans, rounded
from autoseg.compare.words import format_share
from autoseg.plurals import count

BLUES = [[0, "#ffffff"], [0.5, "#9ecae1"], [1, "#08519c"]]
SIZE_NAMES = ("smallest third", "middle third", "largest third")


def draw_ranks(summary: Summary) -> Figure:
    """Draw how often each plan takes each rank when the cases are drawn anew, for each rule of ranking."""
    order = [rank.plan for rank in summary.ranking]
    views = {rule.rule: {"data": [_rank_trace(rule, order)], "layout": _rank_layout(order)} for rule in summary.rules}
    options = {rule: RULES[rule] for rule in views}
    first = summary.rules[0]
    words = "; ".join(
        f"{plan}: first in {format_share(first.rank_shares[first.plans.index(plan)][0])}" for plan in order
    )
    alt = f"How often each plan takes each rank when the cases are drawn anew, ranked by mean. {words}."
    return Figure("ranks", alt, 110 + 40 * len(order), (Selector("rule", "Ranked by", options),), views)


def _rank_trace(rule: RuleRanking, order: list[str]) -> Trace:
    shares = [rule.rank_shares[rule.plans.index(plan)] for plan in order]
    return {
        "type": "heatmap",
        "z": [[rounded(share) for share in row] for row in shares],
        "x": [str(place + 1) for place in range(len(order))],
        "y": [escape(plan) for plan in order],
        "text": [[_percent(share) for share in row] for row in shares],
        "texttemplate": "%{text}",
        "colorscale": BLUES,
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": "<b>%{y}</b>, rank %{x}: %{text}<extra></extra>",
    }


def _percent(share: float) -> str:
    """Return a share in whole per cent for a narrow cell; nothing for none."""
    return "" if not share else "<1" if share < 0.01 else f"{100 * share:.0f} %"


def _rank_layout(order: list[str]) -> dict[str, Any]:
    axis = {"showgrid": False, "zeroline": False}
    ranks = {**axis, "type": "category", "side": "bottom"}
    return make_layout("rank", "", xaxis=ranks, yaxis={**axis, "type": "category", "autorange": "reversed"})


def draw_sizes(summary: Summary) -> Figure:
    """Draw the mean Dice of each plan in thirds of the cases by the size of a region."""
    plans = [plan.name for plan in summary.plans]
    markers = mark_plans(plans)
    views = {}
    for region in dict.fromkeys(size.region for size in summary.sizes):
        classes = [size for size in summary.sizes if size.region == region]
        traces = [_size_trace(classes, plan, (i, len(plans)), markers[plan]) for i, plan in enumerate(plans)]
        ticks = [f"{name}<br>{c.low_ml:.3g} to {c.high_ml:.3g} ml" for name, c in zip(SIZE_NAMES, classes)]
        axis = {"tickvals": list(range(len(classes))), "ticktext": ticks, "showgrid": False, "zeroline": False}
        views[region] = {"data": traces, "layout": make_layout("", "mean Dice", xaxis=axis)}
    alt = "Mean Dice of each plan by the size of the region in the reference, with 95 % intervals."
    options = {region: region for region in views}
    return Figure("sizes", alt, 400, (Selector("region", "Region", options),), views)


def _size_trace(classes: list[SizeClass], plan: str, place: tuple[int, int], marker: dict[str, str]) -> Trace:
    shift = (place[0] - (place[1] - 1) / 2) * 0.5 / place[1]
    scores = [size.scores[plan] for size in classes]
    return {
        "type": "scatter",
        "mode": "markers",
        "meta": plan,
        "name": escape(plan),
        "x": [round(index + shift, 3) for index in range(len(classes))],
        "y": [rounded(score.mean) for score in scores],
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1.4, "width": 0,
            "array": [_reach(score, score.high) for score in scores],
            "arrayminus": [_reach(score, score.low) for score in scores],
        },
        "marker": {**marker, "size": 10},
        "text": [count(score.num, "case") for score in scores],
        "hovertemplate": f"<b>{escape(plan)}</b><br>%{{y:.3f}}, %{{text}}<extra></extra>",
    }  # fmt: skip


def _reach(score: Description, end: float | None) -> float:
    return 0.0 if end is None or score.mean is None else abs(end - score.mean)


def draw_critical(critical: CriticalDifference) -> Figure:
    """Draw the mean ranks on an axis, 1 at the left, with bars that join plans which cannot be told apart."""
    markers = mark_plans(critical.plans)
    rows = list(range(len(critical.plans)))
    traces: list[Trace] = [
        {
            "type": "scatter", "mode": "markers+text", "x": [rounded(rank)], "y": [row],
            "text": [f"&nbsp;&nbsp;{escape(plan)}"],
            "textposition": "middle right", "marker": {**markers[plan], "size": 12}, "cliponaxis": False,
            "hovertemplate": f"<b>{escape(plan)}</b><br>mean rank %{{x:.2f}}<extra></extra>",
        }
        for row, plan, rank in zip(rows, critical.plans, critical.mean_ranks)
    ]  # fmt: skip
    depth = len(rows) - 0.2
    for index, (first, last) in enumerate(critical.cliques):
        ends = [rounded(critical.mean_ranks[first]), rounded(critical.mean_ranks[last])]
        line = {"color": INK, "width": 5}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": ends,
                "y": [depth + 0.4 * index] * 2,
                "line": line,
                "hoverinfo": "skip",
            }
        )
    return Figure(
        "critical",
        _describe(critical),
        150 + 34 * len(rows),
        (),
        {"": {"data": traces, "layout": _critical_layout(critical)}},
    )


def _critical_layout(critical: CriticalDifference) -> dict[str, Any]:
    width = critical.difference or 0.0
    ruler = {"x0": 1, "x1": 1 + width, "y0": -0.8, "y1": -0.8, "line": {"color": INK, "width": 2}, "type": "line"}
    note = {
        "x": 1,
        "y": -0.8,
        "text": f"critical difference {width:.2f}",
        "showarrow": False,
        "xanchor": "left",
        "yanchor": "bottom",
    }
    number = len(critical.plans)
    x = {"range": [0.8, max(number, 1 + width) + 0.9], "dtick": 1, "zeroline": False}
    y = {"range": [number + 0.4 * len(critical.cliques), -1.6], "visible": False}
    return make_layout("mean rank over datasets (1 is best)", "", xaxis=x, yaxis=y, shapes=[ruler], annotations=[note],
                       showlegend=False)  # fmt: skip


def _describe(critical: CriticalDifference) -> str:
    ranks = "; ".join(f"{plan} {rank:.2f}" for plan, rank in zip(critical.plans, critical.mean_ranks))
    groups = "; ".join(", ".join(critical.plans[first : last + 1]) for first, last in critical.cliques) or "none"
    return f"Critical difference diagram. Mean ranks: {ranks}. Not told apart: {groups}."
