"""What the figures are made of: colours, layouts and traces in plotly's own JSON."""

from collections.abc import Sequence
from html import escape
from math import isnan
from statistics import fmean
from typing import Any

import numpy as np

from autoseg.compare.resampling import Numbers
from autoseg.compare.runs import Run, Runs

# Okabe and Ito (2008), told apart in every kind of colour blindness; their yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "x")
DASHES = ("solid", "dot", "dash", "longdash", "dashdot")
INK, GRID, FAINT = "#1f2933", "#e4e7eb", "rgba(97,110,124,0.18)"
MAX_POINTS = 300
MAX_LINES = 60
MAX_DOTS = 1000
"""Of more cases the hardest quarter of this number and an even choice of the rest are drawn."""
JITTER = 0.26
GOLDEN = 0.6180339887498949
Trace = dict[str, Any]


def colour_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each plan; from the eighth on they repeat, told apart by symbol."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def mark_plans(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return colour and symbol of each plan's marker."""
    colours = colour_of(names)
    return {name: {"color": colours[name], "symbol": SYMBOLS[index % len(SYMBOLS)]} for index, name in enumerate(names)}


def make_layout(x_title: str, y_title: str, **parts: Any) -> dict[str, Any]:
    """Return a calm layout; ``xaxis`` and ``yaxis`` among ``parts`` are merged into the usual axes."""
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True, "fixedrange": True}
    layout = {
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 16, "b": 52},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
    }
    font = {"size": 13}
    x = {**axis, "title": {"text": x_title, "font": font}, **parts.pop("xaxis", {})}
    y = {**axis, "title": {"text": y_title, "font": font}, **parts.pop("yaxis", {})}
    return {**layout, "xaxis": x, "yaxis": y, **parts}


def draw_box(column: int, plan: str, values: Numbers) -> Trace:
    """Draw the quartiles of a plan's values, with whiskers to the last value within 1.5 times their distance."""
    defined = values[~np.isnan(values)]
    trace: Trace = {
        "type": "box", "meta": plan, "x": [column], "width": 0.66, "hoverinfo": "skip",
        "line": {"color": "#9aa5b1", "width": 1.2}, "fillcolor": "rgba(97,110,124,0.06)",
    }  # fmt: skip
    if not len(defined):
        return trace
    low, middle, high = (float(value) for value in np.quantile(defined, [0.25, 0.5, 0.75]))
    reach = 1.5 * (high - low)
    within = defined[(defined >= low - reach) & (defined <= high + reach)]
    ends = {"lowerfence": float(within.min()), "upperfence": float(within.max())}
    five = {"q1": low, "median": middle, "q3": high, **ends}
    return {**trace, **{name: [rounded(value)] for name, value in five.items()}}


def draw_dots(column: int, plan: str, values: Sequence[float | None], mark: dict[str, str]) -> Trace:
    """Draw a plan's values, one dot a case; places and names stand in the figure's ``shared``."""
    return {
        "type": "scatter",
        "mode": "markers",
        "meta": plan,
        "refs": {"x": f"x{column}", "text": "text"},
        "y": list(values),
        "marker": {**mark, "size": 7, "opacity": 0.8},
        "hovertemplate": f"<b>%{{text}}</b><br>{escape(plan)}: %{{y}}<extra></extra>",
    }


def draw_case_lines(values: Sequence[Sequence[float | None]], offsets: Sequence[float]) -> Trace:
    """Join each case's dots across the plans; ``values`` has one row a plan, one place a case."""
    x: list[float | None] = []
    y: list[float | None] = []
    for place, offset in enumerate(offsets):
        x += [*(round(column + offset, 3) for column in range(len(values))), None]
        y += [*(row[place] for row in values), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "hoverinfo": "skip",
        "line": {"color": FAINT, "width": 1},
    }


def draw_curve(run: Run, axis: str, values: Sequence[float | None], colour: str, runs: Runs) -> Trace:
    """Draw one run's curve over epochs or hours, in its plan's colour and its fold's kind of line."""
    hours, elapsed = [], 0.0
    for record in run.epochs:
        elapsed += float(record.get("seconds") or 0.0) / 3600
        hours.append(elapsed)
    x = (
        hours
        if axis == "hours"
        else [float(record.get("epoch", index)) for index, record in enumerate(run.epochs, start=1)]
    )
    folds = [other.fold for other in runs.runs if other.plan == run.plan and other.epochs]
    xs, ys = thin(x, values)
    return {
        "type": "scatter",
        "mode": "lines",
        "meta": run.plan,
        "name": escape(run.plan),
        "legendgroup": escape(run.plan),
        "showlegend": run.fold == folds[0],
        "x": xs,
        "y": ys,
        "line": {"color": colour, "width": 1.6, "dash": DASHES[folds.index(run.fold) % len(DASHES)]},
        "hovertemplate": f"<b>{escape(run.plan)}</b>, fold {run.fold}<br>%{{x:.3~g}}: %{{y:.4f}}<extra></extra>",
    }


def thin(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float | None], list[float | None]]:
    """Return at most 300 points: equal runs of neighbours become the last x and the mean of the defined y."""
    step = -(-len(x) // MAX_POINTS) or 1
    ends = [x[start : start + step][-1] for start in range(0, len(x), step)]
    parts = [[value for value in y[start : start + step] if value is not None] for start in range(0, len(y), step)]
    return [rounded(end) for end in ends], [rounded(fmean(part)) if part else None for part in parts]


def rounded(value: float | None) -> float | None:
    """Return a number with five significant digits, None for NaN."""
    return None if value is None or isnan(value) else float(f"{value:.5g}")
