"""What trainings, searches and comparisons tell a tracking service: which tasks there are, and what they hold."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autoseg.compare.summary import FOREGROUND, PRIMARY, Summary
from autoseg.evaluate.evaluate import Metrics
from autoseg.launch.fold import FoldRun
from autoseg.plan.plan import Plan
from autoseg.train.log import Beginning
from autoseg.train.record import read_record
from autoseg.train.tracking import TrackedTraining, Tracker
from autoseg.tune.outcome import Result

Tell = Callable[[str], None]


def open_tracker(
    service: str | None, run: FoldRun, tell: Tell, *, project: str | None = None, name: str | None = None
) -> Tracker | None:
    """Return what tells a service of the run of a fold, by default in the project of its dataset; None without one."""
    if service is None:
        return None
    called = name or f"{run.plan.name} {run.folder.name.replace('_', ' ')}"
    log = run.folder / "logs" / f"{service}.log"
    return Tracker(service, project or run.dataset.name, called, kind="training", log=log, tell=tell)


def tell_scores(tracker: Tracker | None, run: FoldRun, metrics: Metrics) -> None:
    """Tell the scores of the validation cases, and attach the run's files; also of a training that was over before."""
    if tracker is None:
        return
    if not tracker.begun and (record := read_record(run.folder)) is not None:
        TrackedTraining(tracker).begin(Beginning(run.folder, run.plan, record, _read_history(run.folder)))
    tracker.add_values(scores_of(metrics))
    files = ("run.json", "progress.png", "logs/train.log", "validation/metrics.json")
    tracker.attach([run.folder / name for name in files])


def scores_of(metrics: Metrics) -> dict[str, float]:
    """Return each region's mean of each metric over the cases as ``metric/region``, where it is defined."""
    return {
        f"{metric}/{region}": value
        for region, scores in metrics.mean.items()
        for metric, value in scores.items()
        if value is not None
    }


def tell_comparison(service: str | None, summary: Summary, folder: Path, tell: Tell) -> None:
    """Make a task of a report: the mean Dice of each plan and what was found in words, with the report attached."""
    if service is None:
        return
    tracker = Tracker(service, summary.dataset, "comparison", kind="qc", log=folder / f"{service}.log", tell=tell)
    words = {"headline": summary.headline, "baseline": summary.baseline or "", "plans": ", ".join(_names(summary))}
    tracker.add_parameters(words)
    dice = {f"dice/{plan.name}": _dice(plan.scores) for plan in summary.plans}
    tracker.add_values({name: mean for name, mean in dice.items() if mean is not None})
    tracker.attach([folder / name for name in ("report.html", "summary.json", "cases.csv")])
    tracker.close()


def tell_search(
    service: str | None, plan: Plan, study: str, chosen: Result | None, headline: str, report: Path, tell: Tell
) -> None:
    """Make a task of a search around a plan, with its report attached."""
    if service is None:
        return
    log = report.with_name(f"{service}.log")
    tracker = Tracker(service, plan.dataset.name, f"search {study}", kind="optimizer", log=log, tell=tell)
    tracker.describe(plan, more={"headline": headline})
    if chosen is not None and chosen.dice is not None:
        tracker.add_values({"dice/best trial": chosen.dice, "number of the best trial": float(chosen.number)})
    tracker.attach([report])
    tracker.close()


def _names(summary: Summary) -> list[str]:
    return [plan.name for plan in summary.plans]


def _dice(scores: Mapping[str, Mapping[str, Any]]) -> float | None:
    found = scores.get(FOREGROUND, {}).get(PRIMARY)
    return None if found is None else found.mean


def _read_history(folder: Path) -> list[dict[str, Any]]:
    path = folder / "logs" / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]
