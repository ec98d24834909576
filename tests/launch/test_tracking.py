"""What a tracking service is told of scores and reports; tests/cli/test_logger.py has the real package take it."""

from pathlib import Path
from typing import Any

import pytest

from autoseg.compare.report import write_report
from autoseg.compare.runs import load_runs
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document
from autoseg.evaluate.evaluate import Metrics
from autoseg.launch import tracking
from autoseg.launch.tracking import scores_of, tell_comparison, tell_search
from autoseg.plan.plan import read_plan
from autoseg.tune.outcome import Result


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self, service: str, project: str, name: str, **_: Any) -> None:
        self.task, self.told = (service, project, name), {}
        made.append(self)

    def add_parameters(self, values: dict[str, Any]) -> None:
        self.told["parameters"] = values

    def describe(self, plan: Any, record: Any = None, more: Any = None) -> None:
        self.told["parameters"], self.told["plan"] = more, plan

    def add_values(self, values: dict[str, float]) -> None:
        self.told["values"] = values

    def attach(self, paths: list[Path]) -> None:
        self.told["files"] = [path.name for path in paths if path.is_file()]

    def close(self) -> None:
        self.told["closed"] = True


made: list[Any] = []


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no service."""
    made.clear()
    monkeypatch.setattr(tracking, "Tracker", Recorder)


def test_scores_are_those_that_are_defined(trained: Path) -> None:
    metrics = read_document(Workspace(trained).fold("Phantom", "good", 0) / "validation" / "metrics.json", Metrics)
    region = {**metrics.mean["liver"], "dice": None}
    scores = scores_of(metrics.model_copy(update={"mean": {**metrics.mean, "liver": region}}))
    assert scores["dice/tumour"] == metrics.mean["tumour"]["dice"] and "dice/liver" not in scores
    assert scores["hausdorff_95/liver"] == metrics.mean["liver"]["hausdorff_95"]


def test_a_report_is_a_task(trained: Path, tmp_path: Path) -> None:
    summary = write_report(load_runs(Workspace(trained), "Phantom"), tmp_path)
    tell_comparison(None, summary, tmp_path, lambda text: None)
    assert not made
    tell_comparison("clearml", summary, tmp_path, lambda text: None)
    (task,) = made
    assert task.task == ("clearml", "Phantom", "comparison") and task.told["closed"]
    assert task.told["files"] == ["report.html", "summary.json", "cases.csv"]
    assert task.told["values"].keys() == {"dice/good", "dice/poor"}
    assert task.told["values"]["dice/good"] > task.told["values"]["dice/poor"]
    assert task.told["parameters"]["plans"] == "good, poor" and task.told["parameters"]["headline"]


def test_a_search_is_a_task_also_without_a_trial_that_was_finished(trained: Path, tmp_path: Path) -> None:
    plan = read_plan(Workspace(trained).plan("Phantom", "good"))
    report = tmp_path / "tune_s.html"
    report.write_text("")
    best = Result(3, "complete", {}, 0.75, 10.0, "", own=False)
    for chosen in (None, best):
        tell_search("clearml", plan, "s", chosen, "found", report, lambda text: None)
    assert [task.task for task in made] == [("clearml", "Phantom", "search s")] * 2
    assert "values" not in made[0].told and made[0].told["files"] == ["tune_s.html"]
    assert made[1].told["values"] == {"dice/best trial": 0.75, "number of the best trial": 3.0}
    assert made[1].told["parameters"] == {"headline": "found"} and made[1].told["closed"]
