"""Tables that more than one command prints."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.compare.statistics import Description
    from autoseg.compare.summary import Comparison, Group, Summary
    from autoseg.data.problems import Problems


LEFT_TO_THE_FILE = (
    "iou", "sensitivity", "precision", "average_surface_distance", "reference_volume_ml", "predicted_volume_ml",
    "reference_lesions", "predicted_lesions",
)  # fmt: skip
"""Metrics that metrics.json holds and a table of 80 columns does not."""


SHORT = {"hausdorff_95": "HD95, mm", "average_surface_distance": "ASD, mm", "volume_difference_ml": "difference, ml"}


def metrics_table(mean: Mapping[str, Mapping[str, float | None]], title: str, tolerance_mm: float) -> Any:
    """Return a table of the main mean metrics, one row a region; undefined values are a dash.

    Args:
        mean: region to metric to value.
        title: of the column of regions.
        tolerance_mm: of the surface Dice.
    """
    from rich.table import Table

    found = dict.fromkeys(metric for values in mean.values() for metric in values)
    metrics = [metric for metric in found if metric not in LEFT_TO_THE_FILE]
    short = {**SHORT, "surface_dice": f"surface dice, {tolerance_mm:g} mm"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for metric in metrics:
        table.add_column(short.get(metric, metric.replace("_", " ")), justify="right", no_wrap=True)
    for region, values in mean.items():
        table.add_row(region, *(_number(values.get(metric)) for metric in metrics))
    return table


def problems_table(problems: "Problems") -> Any:
    """Return a table of what is wrong or doubtful in a dataset, one row a problem, wrapped to the width there is."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for title, ratio in (("case or file", 2), ("found", 4), ("what to do", 3)):
        table.add_column(title, ratio=ratio, overflow="fold")
    for problem in problems.problems:
        where = problem.file or problem.case or "the dataset"
        table.add_row(problem.severity, escape(where), escape(problem.found), escape(problem.remedy))
    return table


def comparison_table(summary: "Summary") -> Any:
    """Return a table of the plans, best first: mean score of each metric over the regions, verdict, known costs."""
    from autoseg.compare import words
    from autoseg.compare.summary import FOREGROUND, MAIN_METRICS, METRICS, PRIMARY

    chosen = [metric for metric in summary.metrics if metric in MAIN_METRICS and metric != PRIMARY]
    others = [SHORT.get(metric, METRICS[metric].title) for metric in chosen]
    primary = [METRICS[PRIMARY].title] if PRIMARY in summary.metrics else []
    titles = ("cases", *primary, f"against {summary.baseline or 'none'}", *others)
    rows = {}
    for name in [rank.plan for rank in summary.ranking] or [plan.name for plan in summary.plans]:
        plan, found = summary.plan(name), summary.primary(name)
        scores = plan.scores[FOREGROUND]
        means = [words.format_value(scores[metric].mean, metric) for metric in chosen]
        rows[name] = (str(plan.num_cases), *_primary(scores), _verdict(found), *means)
    return _plans_table(summary, summary.dataset, titles, rows)


def group_table(summary: "Summary", group: "Group") -> Any:
    """Return a table of plans that differ in one thing: its value, mean Dice, difference to the first, known costs."""
    from autoseg.compare.summary import FOREGROUND, METRICS, PRIMARY

    compared = {comparison.plan: comparison for comparison in group.comparisons}
    rows = {
        name: (value, *_primary(summary.plan(name).scores[FOREGROUND]), _verdict(compared.get(name)))
        for name, value in zip(group.plans, group.values)
    }
    primary = [METRICS[PRIMARY].title] if PRIMARY in summary.metrics else []
    return _plans_table(summary, f"by {group.by}", (group.by, *primary, f"against {group.reference}"), rows)


def _primary(scores: "Mapping[str, Description]") -> tuple[str, ...]:
    from autoseg.compare import words
    from autoseg.compare.summary import PRIMARY

    return (words.format_mean(scores[PRIMARY], PRIMARY),) if PRIMARY in scores else ()


def _verdict(comparison: "Comparison | None") -> str:
    from autoseg.compare import words
    from autoseg.compare.summary import PRIMARY

    if comparison is None:
        return words.DASH
    return f"{words.format_signed(comparison.difference.mean, PRIMARY)} {comparison.verdict}"


def _plans_table(summary: "Summary", first: str, titles: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Any:
    """Return a table with one row a plan: what is given, then the costs that are known of any plan."""
    from rich.table import Table

    from autoseg.compare import words

    costs = {name: summary.plan(name).cost for name in rows}
    memory = {name: cost.memory_measured_gb or cost.memory_predicted_gb for name, cost in costs.items()}
    known = {
        "weights": {name: words.format_count(cost.parameters) for name, cost in costs.items()},
        "epoch": {name: words.format_seconds(cost.epoch_seconds) for name, cost in costs.items()},
        "a case": {name: words.format_seconds(cost.inference_seconds) for name, cost in costs.items()},
        "memory": {name: words.format_gb(gb) for name, gb in memory.items()},
    }
    known = {title: column for title, column in known.items() if set(column.values()) != {words.DASH}}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True, min_width=max(map(len, rows), default=0))
    for title in (*titles, *known):
        table.add_column(title, justify="right", min_width=max(map(len, title.split())), overflow="fold")
    for name, row in rows.items():
        table.add_row(name, *row, *(column[name] for column in known.values()))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
