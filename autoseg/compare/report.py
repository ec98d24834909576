"""Writing report.html, cases.csv and summary.json."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.compare import words
from autoseg.compare.conclusions import best_value, conclude
from autoseg.compare.figures import Figure, draw_cases, draw_cost, draw_curves, draw_forest
from autoseg.compare.measure import measure, shown_regions
from autoseg.compare.resampling import LEVEL, NUM_RESAMPLES
from autoseg.compare.runs import Runs
from autoseg.compare.scores import Scores, gather_scores, mean_defined
from autoseg.compare.settings import differing_settings
from autoseg.compare.statistics import FEW_CASES, MIN_CASES, SIGNIFICANCE
from autoseg.compare.summary import (
    FOREGROUND,
    METRICS,
    PRIMARY,
    Comparison,
    PlanSummary,
    Summary,
)
from autoseg.compare.traces import colour_of
from autoseg.documents import write_document, write_text

COLUMNS = ("dataset", "plan", "fold", "case", "region", "metric", "value")
VERDICT_SIGNS = {"better": "▲", "worse": "▼", "equal": "=", "undecided": "?"}
MAX_HARDEST = 5


def write_report(runs: Runs, folder: Path, *, baseline: str = "unet") -> Path:
    """Write report.html, cases.csv and summary.json into ``folder``; return the path of the report.

    The same runs give the same bytes: all resampling is seeded, and no time is written.
    """
    table = gather_scores(runs)
    summary = conclude(measure(runs, baseline=baseline, scores=table), runs)
    write_text(folder / "cases.csv", format_cases(runs))
    write_document(folder / "summary.json", summary)
    write_text(folder / "report.html", render_page(summary, runs, table))
    return folder / "report.html"


def format_cases(runs: Runs) -> str:
    """Return all values of the finished runs as a long table in CSV; an undefined value is empty."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for plan in runs.plans:
        for run in runs.finished(plan):
            for case, values in run.cases.items():
                rows = ((r, m, v) for r, scores in values.items() for m, v in scores.items())
                writer.writerows((runs.dataset, plan, run.fold, case, r, m, "" if v is None else v) for r, m, v in rows)
    return table.getvalue()


def render_page(summary: Summary, runs: Runs, table: Scores) -> str:
    """Return the report as one HTML page that loads nothing from anywhere."""
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(
        words=words, METRICS=METRICS, FOREGROUND=FOREGROUND, PRIMARY=PRIMARY, signs=VERDICT_SIGNS
    )
    figures = _figures(summary, runs, table)
    return environment.from_string(_read("report.html.j2")).render(
        summary=summary,
        plans=_ordered(summary),
        value=best_value(summary),
        to_baseline={c.plan: c for c in summary.comparisons if c.family == "primary"},
        comparisons=_by_metric(summary),
        regions=shown_regions(summary.regions),
        best=_best_scores(summary),
        colours=colour_of(runs.plans),
        hardest=_hardest_cases(table),
        settings=_group_settings(runs),
        runs=runs,
        versions=_versions(runs),
        tolerances=_tolerances(runs),
        method={
            "level": f"{100 * LEVEL:.0f} %",
            "resamples": NUM_RESAMPLES,
            "few": FEW_CASES,
            "least": MIN_CASES,
            "p": SIGNIFICANCE,
        },
        figures={figure.name: figure for figure in figures},
        figures_json=escape_script(
            json.dumps({f.name: f.to_json() for f in figures}, allow_nan=False, separators=(",", ":"))
        ),
        style=_read("report.css"),
        script=_read("report.js"),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
    )


def escape_script(text: str) -> str:
    """Return JSON in which nothing can end the script element that it stands in."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _read(name: str) -> str:
    return files("autoseg.compare").joinpath(name).read_text(encoding="utf-8")


def _figures(summary: Summary, runs: Runs, table: Scores) -> list[Figure]:
    """Return the figures that have something to show."""
    drawn = [draw_curves(runs)] if any(run.epochs for run in runs.runs) else []
    if PRIMARY in summary.metrics:
        drawn += [draw_cost(summary), draw_cases(summary, table)]
    if summary.comparisons:
        drawn.append(draw_forest(summary))
    return [figure for figure in drawn if figure.views]


def _ordered(summary: Summary) -> list[PlanSummary]:
    """Return the plans by their rank; without a ranking, as they come."""
    places = {rank.plan: place for place, rank in enumerate(summary.ranking)}
    return sorted(summary.plans, key=lambda plan: places.get(plan.name, 0))


def _by_metric(summary: Summary) -> dict[str, list[Comparison]]:
    """Return the comparisons of each metric, by region and then plan."""
    order = [(region, plan.name) for region in shown_regions(summary.regions) for plan in _ordered(summary)]
    return {
        metric: sorted(
            (c for c in summary.comparisons if c.metric == metric), key=lambda c: order.index((c.region, c.plan))
        )
        for metric in summary.metrics
    }


def _best_scores(summary: Summary) -> dict[tuple[str, str], float]:
    """Return the best mean of each metric and region among the plans."""
    found = {}
    for metric in summary.metrics:
        for region in shown_regions(summary.regions):
            means = [mean for plan in summary.plans if (mean := plan.scores[region][metric].mean) is not None]
            if means:
                found[metric, region] = max(means) if METRICS[metric].higher_is_better else min(means)
    return found


def _hardest_cases(table: Scores) -> list[tuple[str, dict[str, float | None]]]:
    """Return the cases with the lowest Dice, averaged over regions and plans, with each plan's."""
    if PRIMARY not in table.metrics or not table.plans:
        return []
    matrix = np.stack([table.column(plan, FOREGROUND, PRIMARY) for plan in table.plans], axis=1)
    means = mean_defined(matrix)
    order = [place for place in np.argsort(means, kind="stable").tolist() if not np.isnan(means[place])]
    rows = [[None if np.isnan(value) else float(value) for value in matrix[place]] for place in order[:MAX_HARDEST]]
    return [(table.cases[place], dict(zip(table.plans, row))) for place, row in zip(order, rows)]


def _group_settings(runs: Runs) -> dict[str, dict[str, dict[str, str]]]:
    """Return the differing settings in two groups: what everybody asks for, without a title, and the inner ones."""
    table = differing_settings({plan: runs.finished(plan)[0].document for plan in runs.plans})
    inner = {key for key in table if key.startswith("network.config") or key.count(".") > 2}
    groups = {
        "": {key: row for key, row in table.items() if key not in inner},
        "Inside the networks and the recipe": {key: row for key, row in table.items() if key in inner},
    }
    return {title: rows for title, rows in groups.items() if rows}


def _versions(runs: Runs) -> list[str]:
    """Return what the finished runs were made with, each combination once."""
    return list(
        dict.fromkeys(_describe_versions(run.record) for run in runs.runs if run.state == "finished" and run.record)
    )


def _describe_versions(record: dict[str, Any]) -> str:
    parts: Iterator[str] = (f"{name} {version}" for name, version in record.get("versions", {}).items())
    facts: Sequence[str] = [str(record[key]) for key in ("device", "precision") if key in record]
    return ", ".join([*facts, *parts])


def _tolerances(runs: Runs) -> list[float]:
    found = (
        run.document.get("prediction", {}).get("surface_tolerance_mm") for run in runs.runs if run.state == "finished"
    )
    return sorted({tolerance for tolerance in found if tolerance is not None})
