"""The pages: report.html of a dataset, datasets.html of several."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np

from autoseg.compare import words
from autoseg.compare.background import Background, describe_data
from autoseg.compare.conclusions import best_value
from autoseg.compare.figures import Figure, draw_cases, draw_cost, draw_curves, draw_forest
from autoseg.compare.figures_more import draw_critical, draw_ranks, draw_sizes
from autoseg.compare.measure import cost_of, documents_of, shown_regions
from autoseg.compare.methods import describe_run, write_methods
from autoseg.compare.overview import Overview
from autoseg.compare.ranking import NUM_DRAWS, RULES
from autoseg.compare.resampling import LARGE_SAMPLE, LEVEL, NUM_RESAMPLES, NUM_RESAMPLES_LARGE
from autoseg.compare.runs import Runs
from autoseg.compare.scores import Scores, mean_defined
from autoseg.compare.settings import differing_settings
from autoseg.compare.statistics import FEW_CASES, MIN_CASES, SIGNIFICANCE
from autoseg.compare.summary import FOREGROUND, MAIN_METRICS, METRICS, PRIMARY, Comparison, Summary
from autoseg.compare.tables import ordered_plans
from autoseg.compare.traces import MAX_DOTS, colour_of, rounded

VERDICT_SIGNS = {"better": "▲", "worse": "▼", "equal": "=", "undecided": "?"}
MAX_HARDEST = 10
SCRIPTS = ("figures.js", "tables.js", "viewer.js")
COST_TITLES = {
    "epoch_seconds": "Epoch time",
    "training_seconds": "Fold time",
    "inference_seconds": "Case time",
    "energy_kwh": "Energy",
    "memory": "Memory",
    "parameters": "Parameters",
}
METHOD = {
    "level": f"{100 * LEVEL:.0f} %",
    "resamples": f"{NUM_RESAMPLES:,}",
    "resamples_large": f"{NUM_RESAMPLES_LARGE:,}",
    "large": f"{LARGE_SAMPLE:,}",
    "draws": f"{NUM_DRAWS:,}",
    "few": FEW_CASES,
    "least": MIN_CASES,
    "p": SIGNIFICANCE,
}


def render_page(summary: Summary, runs: Runs, table: Scores, background: Background) -> str:
    """Return the report as one HTML page that loads nothing from anywhere."""
    figures = {figure.name: figure for figure in _figures(summary, runs, table)}
    settings = _group_settings(runs)
    order = [plan.name for plan in ordered_plans(summary)]
    hardest = _sorted_cases(table, order)
    paragraph, references = write_methods(summary, runs, background.fingerprint) if summary.plans else ("", ())
    data_rows = describe_data(background.fingerprint) if background.fingerprint else []
    colours = colour_of(runs.plans)
    pictures = None if background.gallery is None else asdict(background.gallery)
    data = {
        "figures": _figures_json(figures),
        "cases": _cases_json(hardest, order),
        "gallery": pictures,
        "colours": colours,
    }
    return _render(
        "report.html.j2",
        data,
        summary=summary,
        plans=ordered_plans(summary),
        sections=_sections(summary, figures, bool(settings), bool(data_rows)),
        costs={
            cost: title
            for cost, title in COST_TITLES.items()
            if any(cost_of(p, cost) is not None for p in summary.plans)
        },
        value=best_value(summary),
        comparisons=_by_metric(summary),
        regions=shown_regions(summary.regions),
        best=_best_scores(summary),
        colours=colours,
        hardest=hardest[:MAX_HARDEST],
        order=order,
        num_cases=len(table.cases),
        max_dots=MAX_DOTS,
        settings=settings,
        data_rows=data_rows,
        gallery=background.gallery,
        without_gallery=background.without_gallery,
        runs=runs,
        paragraph=paragraph,
        references=references,
        versions=_versions(runs),
        tolerances=_tolerances(runs),
        figures=figures,
    )


def render_overview(overview: Overview) -> str:
    """Return the page on several datasets."""
    figures = {} if overview.critical is None else {"critical": draw_critical(overview.critical)}
    colours = colour_of(overview.critical.plans if overview.critical else overview.plans)
    data = {"figures": _figures_json(figures), "cases": None, "gallery": None, "colours": colours}
    return _render("datasets.html.j2", data, overview=overview, figures=figures, colours=colours)


def escape_script(text: str) -> str:
    """Return JSON in which nothing can end the script element that it stands in."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _render(template: str, data: Mapping[str, Any], **context: Any) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        words=words, METRICS=METRICS, FOREGROUND=FOREGROUND, PRIMARY=PRIMARY, MAIN_METRICS=MAIN_METRICS,
        RULES=RULES, signs=VERDICT_SIGNS, method=METHOD, cost_of=cost_of,
    )  # fmt: skip
    return environment.get_template(template).render(
        data_json=escape_script(json.dumps(data, allow_nan=False, separators=(",", ":"))),
        style=_read("report.css"),
        script="\n".join(_read(name) for name in SCRIPTS),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        **context,
    )


def _read(name: str) -> str:
    return files("autoseg.compare").joinpath("page", name).read_text(encoding="utf-8")


def _figures(summary: Summary, runs: Runs, table: Scores) -> list[Figure]:
    """Return the figures that have something to show."""
    drawn = [draw_curves(runs)] if any(run.epochs for run in runs.runs) else []
    if PRIMARY in summary.metrics:
        drawn += [draw_cost(summary), draw_cases(summary, table)]
    if summary.comparisons:
        drawn.append(draw_forest(summary))
    if summary.rules:
        drawn.append(draw_ranks(summary))
    if summary.sizes:
        drawn.append(draw_sizes(summary))
    return [figure for figure in drawn if figure.views]


def _figures_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {name: figure.to_json() for name, figure in figures.items()}


def _sections(summary: Summary, figures: Mapping[str, Figure], settings: bool, data: bool) -> dict[str, str]:
    """Return the sections of the page, id to title."""
    plans = bool(summary.plans)
    every = [
        ("plans", "Plans", plans),
        ("cost", "Accuracy and cost", "cost" in figures),
        *((f"by-{number}", f"By {group.by}", True) for number, group in enumerate(summary.groups, start=1)),
        ("differences", "Differences", "forest" in figures),
        ("ranking", "Ranking", "ranks" in figures),
        ("scores", "Scores", plans),
        ("cases", "Every case", "cases" in figures),
        ("pictures", "Pictures", plans),
        ("curves", "Training", "curves" in figures),
        ("settings", "What differs", settings),
        ("data", "Data", data),
        ("runs", "Runs", True),
        ("method", "Method", True),
    ]
    return {name: title for name, title, there in every if there}


def _by_metric(summary: Summary) -> dict[str, list[Comparison]]:
    """Return the comparisons of each metric, by region and then plan."""
    order = [(region, plan.name) for region in shown_regions(summary.regions) for plan in ordered_plans(summary)]
    places = {key: place for place, key in enumerate(order)}
    return {
        metric: sorted((c for c in summary.comparisons if c.metric == metric), key=lambda c: places[c.region, c.plan])
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


def _sorted_cases(table: Scores, plans: Sequence[str]) -> list[tuple[str, dict[str, float | None]]]:
    """Return every case with each plan's mean Dice, the lowest mean over plans first."""
    if PRIMARY not in table.metrics or not table.plans:
        return []
    matrix = np.stack([table.column(plan, FOREGROUND, PRIMARY) for plan in plans], axis=1)
    means = mean_defined(matrix)
    order = [place for place in np.argsort(means, kind="stable").tolist() if not np.isnan(means[place])]
    return [(table.cases[place], dict(zip(plans, map(rounded, matrix[place].tolist())))) for place in order]


def _cases_json(rows: Sequence[tuple[str, dict[str, float | None]]], plans: Sequence[str]) -> dict[str, Any] | None:
    if not rows:
        return None
    return {"names": [name for name, _ in rows], "values": [[row[plan] for _, row in rows] for plan in plans]}


def _group_settings(runs: Runs) -> dict[str, dict[str, dict[str, str]]]:
    """Return the differing settings in two groups: what everybody asks for, without a title, and the inner ones."""
    table = differing_settings({plan: document for plan, document in documents_of(runs).items() if document})
    inner = {key for key in table if key.startswith("network.config") or key.count(".") > 2}
    groups = {
        "": {key: row for key, row in table.items() if key not in inner},
        "Inside the networks and the recipe": {key: row for key, row in table.items() if key in inner},
    }
    return {title: rows for title, rows in groups.items() if rows}


def _versions(runs: Runs) -> list[str]:
    """Return what the finished runs were made with, each combination once."""
    return list(dict.fromkeys(describe_run(run.record) for run in runs.runs if run.state == "finished" and run.record))


def _tolerances(runs: Runs) -> list[float]:
    found = (
        run.document.get("prediction", {}).get("surface_tolerance_mm") for run in runs.runs if run.state == "finished"
    )
    return sorted({tolerance for tolerance in found if tolerance is not None})
