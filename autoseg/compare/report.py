"""Writing the files of a report."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from autoseg.compare.background import Background
from autoseg.compare.conclusions import conclude
from autoseg.compare.measure import measure
from autoseg.compare.overview import Overview
from autoseg.compare.page import render_overview, render_page
from autoseg.compare.runs import Runs
from autoseg.compare.scores import Scores, gather_scores
from autoseg.compare.summary import Summary
from autoseg.compare.tables import format_latex, format_markdown
from autoseg.documents import write_document, write_text

COLUMNS = ("dataset", "plan", "fold", "case", "region", "metric", "value")
NOTHING = Background()


def write_report(
    runs: Runs,
    folder: Path,
    *,
    baseline: str = "unet",
    by: Sequence[str] = (),
    table: Scores | None = None,
    background: Background = NOTHING,
) -> Summary:
    """Write report.html, cases.csv, summary.json, table.md and table.tex into ``folder``; return the summary.

    The same runs give the same bytes: all resampling is seeded, and no time is written.
    """
    table = gather_scores(runs) if table is None else table
    summary = conclude(measure(runs, baseline=baseline, by=by, scores=table), runs)
    write_text(folder / "cases.csv", format_cases(runs))
    write_document(folder / "summary.json", summary)
    write_text(folder / "table.md", format_markdown(summary))
    write_text(folder / "table.tex", format_latex(summary))
    write_text(folder / "report.html", render_page(summary, runs, table, background))
    return summary


def write_overview(overview: Overview, folder: Path) -> Path:
    """Write datasets.html and datasets.json into ``folder``; return the path of the page."""
    write_document(folder / "datasets.json", overview)
    write_text(folder / "datasets.html", render_overview(overview))
    return folder / "datasets.html"


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
