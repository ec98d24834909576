"""Tables that more than one command prints."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.compare.summary import Summary
    from autoseg.data.problems import Problems


def metrics_table(mean: Mapping[str, Mapping[str, float | None]], title: str) -> Any:
    """Return a table of mean metrics, one row a region; undefined values are a dash."""
    from rich.table import Table

    metrics = list(dict.fromkeys(metric for values in mean.values() for metric in values))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(title)
    for metric in metrics:
        table.add_column(metric.replace("_", " "), justify="right")
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
    """Return a table of the plans, best first: mean score of each metric over the regions, beside the costs."""
    from rich.table import Table

    from autoseg.compare import words
    from autoseg.compare.summary import FOREGROUND, METRICS

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(summary.dataset)
    for title in ("cases", *(METRICS[m].title for m in summary.metrics), "parameters", "epoch", "inference", "memory"):
        table.add_column(title, justify="right")
    for name in [rank.plan for rank in summary.ranking] or [plan.name for plan in summary.plans]:
        plan = summary.plan(name)
        scores = [words.format_mean(plan.scores[FOREGROUND][metric], metric) for metric in summary.metrics]
        cost = plan.cost
        memory = cost.memory_measured_gb or cost.memory_predicted_gb
        costs = (words.format_count(cost.parameters), words.format_seconds(cost.epoch_seconds),
                 words.format_seconds(cost.inference_seconds), words.format_gb(memory))  # fmt: skip
        table.add_row(name, str(plan.num_cases), *scores, *costs)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
