"""The report: right numbers, honest notes, harmless names, nothing loaded from elsewhere."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from autoseg.compare.background import Background
from autoseg.compare.conclusions import conclude
from autoseg.compare.measure import measure
from autoseg.compare.page import escape_script, render_page
from autoseg.compare.report import write_report
from autoseg.compare.runs import Run, Runs, load_runs
from autoseg.compare.scores import gather_scores
from autoseg.compare.summary import FOREGROUND, Summary
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document

EVIL = "<script>alert(1)</script>"
LINKS = ("src", "href", "action", "data", "poster", "srcset", "xlink:href")


class _Page(HTMLParser):
    """What a browser would make of the page: its tags with attributes, scripts, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            (self.scripts if self._inside == "script" else self.styles)[-1] += data
        elif data.strip():
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def report(finished_results: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written report of four finished plans."""
    folder = tmp_path_factory.mktemp("report") / "Hippocampus"
    write_report(load_runs(finished_results, "Hippocampus"), folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(report: Path) -> _Page:
    """The parsed report."""
    return _Page(report.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def summary(report: Path) -> Summary:
    """The summary as read back strictly."""
    return read_document(report.with_name("summary.json"), Summary)


def _case_means(finished_results: Workspace, plan: str) -> dict[str, float]:
    """Mean foreground Dice of each case, straight from the files."""
    means = {}
    for fold in (0, 1):
        path = finished_results.fold("Hippocampus", plan, fold) / "validation" / "metrics.json"
        for case, regions in json.loads(path.read_text())["cases"].items():
            means[case] = float(np.mean([r["dice"] for r in regions.values() if r["dice"] is not None]))
    return means


def test_means_and_differences_are_those_of_the_files(finished_results: Workspace, summary: Summary) -> None:
    base = _case_means(finished_results, "unet")
    for plan in ("nnunet", "attention_unet", "unetr"):
        mine = _case_means(finished_results, plan)
        score = summary.plan(plan).scores[FOREGROUND]["dice"]
        assert score.mean == pytest.approx(np.mean(list(mine.values())))
        assert score.std == pytest.approx(np.std(list(mine.values()), ddof=1))
        found = next(c for c in summary.comparisons if c.plan == plan and c.family == "primary")
        # hippocampus_000 lacks one region in unet: there the pair is over the other region alone
        path = finished_results.fold("Hippocampus", plan, 0) / "validation" / "metrics.json"
        anterior = json.loads(path.read_text())["cases"]["hippocampus_000"]["Anterior"]["dice"]
        expected = [(anterior if case == "hippocampus_000" else mine[case]) - base[case] for case in base]
        assert found.difference.mean == pytest.approx(np.mean(expected))
        assert found.difference.num == 40
    posterior = summary.plan("unet").scores["Posterior"]["dice"]
    assert (posterior.num, posterior.num_undefined) == (39, 1)


def test_costs_are_those_of_the_files(finished_results: Workspace, summary: Summary) -> None:
    records = [
        [
            json.loads(line)
            for line in (finished_results.fold("Hippocampus", "unetr", fold) / "logs" / "metrics.jsonl").open()
        ]
        for fold in (0, 1)
    ]
    seconds = [[record["seconds"] for record in fold] for fold in records]
    cost = summary.plan("unetr").cost
    assert cost.epoch_seconds == pytest.approx(np.median(seconds))
    assert cost.training_seconds == pytest.approx(np.mean([sum(fold) for fold in seconds]))
    assert (cost.parameters, cost.epochs, cost.iterations) == (92_300_000, 100, 25_000)
    assert cost.memory_measured_gb == 7.3
    assert cost.memory_predicted_gb == pytest.approx(7.3 * 1.04)
    assert cost.memory_host_gb == pytest.approx(max(one["peak_host_memory_gb"] for fold in records for one in fold))
    kilojoules = np.mean([sum(record["energy_kj"] for record in fold) for fold in records])
    assert cost.energy_kwh == pytest.approx(kilojoules / 3600)


def test_memory_of_the_host_is_marked_and_stands_in_where_the_device_has_none(own_results: Workspace) -> None:
    for fold in (0, 1):
        for plan, gone in (("unet", ["peak_memory_gb"]), ("nnunet", ["peak_memory_gb", "peak_host_memory_gb"])):
            log = own_results.fold("Hippocampus", plan, fold) / "logs" / "metrics.jsonl"
            records = [json.loads(line) for line in log.open()]
            log.write_text("".join(json.dumps({k: v for k, v in r.items() if k not in gone}) + "\n" for r in records))
    folder = own_results.root / "report"
    summary = write_report(load_runs(own_results, "Hippocampus"), folder)
    predicted = summary.plan("nnunet").cost.memory_predicted_gb
    assert summary.plan("unet").cost.memory == (3.0, "host")
    assert summary.plan("nnunet").cost.memory == (predicted, "predicted")
    table = (folder / "table.md").read_text()
    page = _Page((folder / "report.html").read_text(encoding="utf-8")).text
    for text in (table, page):
        assert "3.0 GB (host)" in text and f"{predicted:.1f} GB (predicted)" in text


def test_the_page_shows_the_numbers_of_the_summary(page: _Page, summary: Summary) -> None:
    for plan in summary.plans:
        for region in plan.scores.values():
            dice = region["dice"]
            assert f"{dice.mean:.3f} ± {dice.std:.3f}" in page.text
        assert plan.name in page.text
    for sentence in (summary.headline, *summary.sentences, *summary.notes):
        assert sentence in page.text
    assert "92.3 M" in page.text and "25,000 iterations" in page.text and "n 39 1 undefined" in page.text


def test_the_answer_names_the_best_its_certainty_and_the_best_value(summary: Summary) -> None:
    order = [rank.plan for rank in summary.ranking]
    assert order[0] == "attention_unet" and order[-1] == "unetr"
    assert [rank.mean for rank in summary.ranking] == sorted((rank.mean for rank in summary.ranking), reverse=True)
    assert sum(rank.first_share for rank in summary.ranking) == pytest.approx(1)
    said = " ".join(summary.sentences)
    assert "95 % interval" in said and "baseline unet" in said and "Best value: nnunet" in said
    assert {c.plan: c.verdict for c in summary.comparisons if c.family == "primary"}["unetr"] == "worse"


def test_all_that_are_practically_equal_are_named_at_the_top(rng: np.random.Generator) -> None:
    base = rng.beta(12, 2, 30)

    def make_run(name: str, shift: float) -> Run:
        return Run(
            name, 0, "finished", "", cases={f"case_{k}": {"liver": {"dice": v + shift}} for k, v in enumerate(base)}
        )

    runs = Runs("L", (make_run("a", -0.001), make_run("b", -0.1), make_run("c", -0.002), make_run("unet", 0.0)))
    assert conclude(measure(runs), runs).headline == "unet, a and c are practically equal at the top"


def test_names_are_harmless_everywhere(page: _Page, report: Path) -> None:
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == 3 and not any("alert(1)" in script and EVIL in script for script in page.scripts)
    assert EVIL not in report.read_text(encoding="utf-8")
    shown = json.loads(page.scripts[1])["figures"]["cases"]["shared"]["text"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown  # plotly reads its texts as a kind of HTML


def test_hostile_names_of_plans_and_regions_are_harmless() -> None:
    evil = '"><img src=x onerror=alert(1)>'
    cases = {f"{EVIL}{k}": {evil: {"dice": 0.5 + k / 100}, "b</script>": {"dice": 0.4}} for k in range(8)}
    runs = Runs(EVIL, (Run(evil, 0, "finished", "", cases=cases), Run("unet", 0, "finished", "", cases=cases)))
    parsed = _Page(render_page(conclude(measure(runs), runs), runs, gather_scores(runs), Background()))
    assert [tag for tag, _ in parsed.tags if tag == "img"] == []
    assert len(parsed.scripts) == 3 and json.loads(parsed.scripts[1])["figures"]["cases"]
    assert evil in parsed.text


def test_json_in_a_script_cannot_end_it() -> None:
    content = ["</script><!-- & ", "\u2028"]
    escaped = escape_script(json.dumps(content, ensure_ascii=False))
    assert not set(escaped) & set("<>&\u2028") and json.loads(escaped) == content


def test_nothing_is_loaded_from_elsewhere(page: _Page) -> None:
    found = [(tag, value) for tag, attributes in page.tags for name, value in attributes.items() if name in LINKS]
    assert [pair for pair in found if not (pair[1] or "").startswith(("#", "data:"))] == []
    assert not any(re.search(r"url\(|@import", style) for style in page.styles)
    policies = [
        a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1 and "default-src 'none'" in (policies[0] or "")
    assert sum("plotly.js v" in script for script in page.scripts) == 1


def test_the_page_is_accessible(page: _Page) -> None:
    tags = page.tags
    assert ("html", {"lang": "en"}) in tags
    assert all(a.get("scope") in ("col", "row") for tag, a in tags if tag == "th")
    plots = [a for tag, a in tags if tag == "div" and a.get("class") == "plot"]
    assert len(plots) == 5 and all(a["role"] == "img" and a["aria-label"] for a in plots)
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {(a["href"] or "")[1:] for tag, a in tags if tag == "a"}
    assert targets <= set(ids)


def test_every_view_that_can_be_chosen_exists(page: _Page) -> None:
    figures = json.loads(page.scripts[1])["figures"]
    assert set(figures) == {"forest", "cost", "cases", "curves", "ranks"}
    assert len(figures["cases"]["views"]) == 9 and len(figures["curves"]["views"]) == 6
    for figure in figures.values():
        for view in figure["views"].values():
            for trace in view["data"]:
                refs = [figure["shared"][name] for name in trace.get("refs", {}).values()]
                assert {len(values) for values in refs} <= {len(trace.get("y", []))}


def test_the_table_round_trips(report: Path, finished_results: Workspace) -> None:
    with report.with_name("cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["dataset", "plan", "fold", "case", "region", "metric", "value"]
    assert len(rows) == 4 * 40 * 2 * 3
    stored = json.loads(
        (finished_results.fold("Hippocampus", "nnunet", 1) / "validation" / "metrics.json").read_text()
    )["cases"]
    again: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in rows:
        if (row["plan"], row["fold"]) == ("nnunet", "1"):
            value = float(row["value"]) if row["value"] else None
            again.setdefault(row["case"], {}).setdefault(row["region"], {})[row["metric"]] = value
    assert again == stored and EVIL in again
    assert sum(row["value"] == "" for row in rows) == 3


def test_the_same_runs_give_the_same_files(report: Path, finished_results: Workspace, tmp_path: Path) -> None:
    write_report(load_runs(finished_results, "Hippocampus"), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["cases.csv", "report.html", "summary.json", "table.md", "table.tex"]
    assert all((tmp_path / name).read_bytes() == report.with_name(name).read_bytes() for name in names)


def _concluded(workspace: Workspace, **options: str) -> Summary:
    runs = load_runs(workspace, "Hippocampus")
    return conclude(measure(runs, **options), runs)


def test_an_absent_baseline_is_replaced_and_said(own_results: Workspace) -> None:
    found = _concluded(own_results, baseline="segresnet")
    assert found.baseline == "nnunet"
    assert any("segresnet has no finished run; nnunet takes its place" in note for note in found.notes)


def test_few_cases_are_flagged(own_results: Workspace) -> None:
    assert any("Only 16 cases" in note for note in _concluded(own_results).notes)


def test_unfair_comparisons_are_flagged(own_results: Workspace) -> None:
    folder = own_results.fold("Hippocampus", "nnunet", 0)
    (folder / "validation" / "metrics.json").unlink()
    other = own_results.fold("Hippocampus", "nnunet", 1)
    log = other / "logs" / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:60]))
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**record, "device": "A100"}))
    found = _concluded(own_results)
    said = " ".join(found.notes)
    assert "nnunet on 8 cases (folds 1) and unet on 16 cases (folds 0, 1)" in said
    assert "nnunet 15,000 and unet 25,000" in said
    assert "different devices" in said and "A100" in said
    assert "1 run without scores, left out of every number: nnunet fold 0" in said
    assert found.num_common_cases == 8 and {rank.plan for rank in found.ranking} == {"unet", "nnunet"}


def test_a_changed_plan_a_diverged_fold_and_missing_cases_are_flagged(own_results: Workspace) -> None:
    folder = own_results.fold("Hippocampus", "unet", 1)
    document = json.loads((folder / "plan.json").read_text())
    document["training"]["batch_size"] = 2
    (folder / "plan.json").write_text(json.dumps(document))
    scores = {"hippocampus_001": {"Anterior": {"dice": 0.01}, "Posterior": {"dice": 0.0}}}
    (folder / "validation" / "metrics.json").write_text(json.dumps({"cases": scores}))
    said = " ".join(_concluded(own_results).notes)
    assert "unet was changed between its folds" in said
    assert "unet, fold 1: a mean Dice of 0.005" in said
    assert "unet, fold 1: 7 validation cases without a score: hippocampus_003" in said


def test_a_missing_run_is_on_the_page(own_results: Workspace, tmp_path: Path) -> None:
    (own_results.fold("Hippocampus", "nnunet", 1) / "validation" / "metrics.json").unlink()
    write_report(load_runs(own_results, "Hippocampus"), tmp_path)
    path = tmp_path / "report.html"
    text = _Page(path.read_text(encoding="utf-8")).text
    assert "not scored" in text and "all 100 epochs are trained" in text


def test_a_single_plan_and_none_at_all_still_make_a_page(own_results: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(load_runs(own_results, "Hippocampus", ["nnunet"]), tmp_path)
    assert "no other plan to compare it with" in path.read_text(encoding="utf-8")
    for run in own_results.root.glob("results/*/*/*/validation/metrics.json"):
        run.unlink()
    write_report(load_runs(own_results, "Hippocampus"), tmp_path)
    path = tmp_path / "report.html"
    assert "No run is finished yet" in path.read_text(encoding="utf-8")
    assert path.with_name("cases.csv").read_text() == "dataset,plan,fold,case,region,metric,value\n"


def test_two_cases_give_no_verdict(own_results: Workspace) -> None:
    for path in own_results.root.glob("results/*/*/fold_1/validation/metrics.json"):
        path.unlink()
    for path in own_results.root.glob("results/*/*/fold_0/validation/metrics.json"):
        cases = json.loads(path.read_text())["cases"]
        path.write_text(json.dumps({"cases": dict(list(cases.items())[:2])}))
    found = _concluded(own_results)
    assert {c.verdict for c in found.comparisons} == {"undecided"}
    assert any("2 cases in common" in note for note in found.notes)
    assert "do not settle it" in found.headline


def test_plans_without_a_common_case_are_not_ranked(own_results: Workspace) -> None:
    for plan, fold in (("unet", 0), ("nnunet", 1)):
        (own_results.fold("Hippocampus", plan, fold) / "validation" / "metrics.json").unlink()
    found = _concluded(own_results)
    assert found.ranking == () and "no fair ranking" in found.headline
    runs = load_runs(own_results, "Hippocampus")
    assert "no fair ranking" in render_page(found, runs, gather_scores(runs), Background())


def test_a_single_region_is_its_own_mean() -> None:
    cases = {f"case_{k}": {"liver": {"dice": 0.9 + k / 1000}} for k in range(10)}
    runs = Runs("L", (Run("a", 0, "finished", "", cases=cases), Run("unet", 0, "finished", "", cases=cases)))
    found = conclude(measure(runs), runs)
    assert [(c.region, c.verdict) for c in found.comparisons] == [(FOREGROUND, "equal")]
    assert "over liver of 10 cases" in found.sentences[0]
    assert render_page(found, runs, gather_scores(runs), Background())


def test_comparing_does_not_import_torch() -> None:
    code = "import sys; from autoseg.compare import report; sys.exit(bool({'torch', 'scipy.stats'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_six_real_methods(real_data: Path) -> None:
    """Published per-case values of real methods on several hundred cases go through and have sound intervals."""
    cases: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    with (real_data / "results" / "msd_test_set.csv").open() as file:
        for row in csv.DictReader(file):
            if row["dataset"] == "Task01_BrainTumour":
                regions = cases.setdefault(row["plan"], {}).setdefault(row["case"], {})
                regions.setdefault(row["region"], {})[row["metric"]] = float(row["value"]) if row["value"] else None
    runs = Runs("BrainTumour", tuple(Run(plan, 0, "finished", "", cases=values) for plan, values in cases.items()))
    found = conclude(measure(runs, baseline="nnunet"), runs)
    assert len(found.plans) == 6 and found.num_common_cases > 200
    assert all(
        c.difference.low <= c.difference.mean <= c.difference.high for c in found.comparisons if c.metric == "dice"
    )
    assert render_page(found, runs, gather_scores(runs), Background())
