"""Results from elsewhere: long tables, nnU-Net's folders, segmentations; tables for papers; several datasets."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from autoseg.compare.conclusions import conclude, describe_better
from autoseg.compare.external import add_results, read_cases_table
from autoseg.compare.measure import measure
from autoseg.compare.overview import Overview, compare_over_datasets
from autoseg.compare.page import render_overview
from autoseg.compare.report import format_cases, write_overview
from autoseg.compare.runs import Runs, load_runs
from autoseg.compare.summary import FOREGROUND
from autoseg.compare.tables import escape_latex, format_latex, format_markdown
from autoseg.data.dataset import find_dataset
from autoseg.data.volumes import read_label, write_segmentation
from autoseg.data.workspace import Workspace
from autoseg.documents import read_document, write_document
from autoseg.errors import VolumeError, WorkspaceError
from autoseg.evaluate.metrics import dice
from autoseg.fingerprint.extract import extract_fingerprint

HEAD = "dataset,plan,fold,case,region,metric,value\n"


def _write(path: Path, rows: str) -> Path:
    path.write_text(HEAD + rows, encoding="utf-8")
    return path


def _add(runs: Runs, folder: Path, workspace: Workspace) -> Runs:
    return add_results(runs, "theirs", folder, workspace, lambda case: None)


def test_the_reports_own_table_is_read_back_as_it_was(finished_results: Workspace, tmp_path: Path) -> None:
    runs = load_runs(finished_results, "Hippocampus")
    (tmp_path / "cases.csv").write_text(format_cases(runs))
    (again,) = read_cases_table(tmp_path / "cases.csv")
    assert [(run.plan, run.fold, run.cases) for run in again.runs] == [(r.plan, r.fold, r.cases) for r in runs.runs]
    assert again.dataset == "Hippocampus" and all(run.missing == () for run in again.runs)


def test_a_case_that_only_one_plan_has_in_a_fold_is_missing_from_the_other(tmp_path: Path) -> None:
    rows = "D,a,0,x,r,dice,0.5\nD,a,0,y,r,dice,\nD,b,0,y,r,dice,0.25\nD,b,test,z,r,dice,0.1\n"
    (runs,) = read_cases_table(_write(tmp_path / "t.csv", rows))
    assert {(run.plan, run.fold): run.missing for run in runs.runs} == {
        ("a", 0): (),
        ("b", 0): ("x",),
        ("b", "test"): (),
    }
    assert runs.runs[0].cases["y"] == {"r": {"dice": None}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,value\n", "column dataset is missing; expected the columns dataset,plan"),
        (HEAD, "no rows"),
        (HEAD + "D,a,0,x,r,dice,good\n", "row 2: value 'good' is no number"),
        (HEAD + "D,a,0,x,r,dice,1\nD,a,0,,r,dice,1\n", "row 3: an empty or missing field"),
        (HEAD + "D,a,0,x,r\n", "row 2: an empty or missing field"),
        (HEAD + "D,a,0,x,r,dice,1\nD,a,0,x,r,dice,2\n", "a, fold 0, x, r, dice stands there twice"),
    ],
)
def test_tables_with_mistakes_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(WorkspaceError, match=message) as caught:
        read_cases_table(tmp_path / "t.csv")
    assert "t.csv" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(WorkspaceError, match="cannot be read"):
        read_cases_table(tmp_path / "absent.csv")


def _nnunet_summary(cases: dict[str, dict[str, float]]) -> str:
    entries = [
        {
            "metrics": {key: {"Dice": value, "IoU": 0.5, "FN": 3} for key, value in scores.items()},
            "prediction_file": f"/results/{name}.nii.gz",
            "reference_file": f"/labels/{name}.nii.gz",
        }
        for name, scores in cases.items()
    ]
    return json.dumps({"foreground_mean": {"Dice": 0.5}, "mean": {}, "metric_per_case": entries})


def test_nnunets_folds_enter_with_the_names_of_the_regions(own_results: Workspace, tmp_path: Path) -> None:
    path = own_results.fold("Hippocampus", "unet", 0) / "plan.json"
    document = json.loads(path.read_text())
    document["dataset"]["regions"] = {"Anterior": {"labels": [1], "value": 1}, "all": {"labels": [1, 2], "value": 2}}
    path.write_text(json.dumps(document))
    for fold, cases in enumerate(
        ({"hippocampus_000": {"1": 0.9, "(1, 2)": 0.8}}, {"hippocampus_001": {"1": float("nan"), "7": 0.1}})
    ):
        folder = tmp_path / f"fold_{fold}" / "validation"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(_nnunet_summary(cases))
    found = _add(load_runs(own_results, "Hippocampus"), tmp_path, own_results)
    added = found.finished("theirs")
    assert [(run.fold, run.cases) for run in added] == [
        (0, {"hippocampus_000": {"Anterior": {"dice": 0.9}, "all": {"dice": 0.8}}}),
        (1, {"hippocampus_001": {"Anterior": {"dice": None}, "label_7": {"dice": 0.1}}}),
    ]
    single = _add(load_runs(own_results, "Hippocampus"), tmp_path / "fold_0" / "validation", own_results)
    assert [run.fold for run in single.finished("theirs")] == ["added"]


def test_scored_and_unscored_segmentations_enter(phantom_folder: Path, workspace: Path, tmp_path: Path) -> None:
    place, runs = Workspace(workspace), Runs("Phantom", ())
    labels = sorted((phantom_folder / "labelsTr").iterdir())
    (tmp_path / labels[0].name).symlink_to(labels[0])
    (tmp_path / labels[1].name).write_bytes(labels[1].read_bytes())
    added = _add(runs, tmp_path, place)
    assert {name: values["liver"]["dice"] for name, values in added.runs[0].cases.items()} == {
        path.name.split(".")[0]: 1.0 for path in labels[:2]
    }
    array = read_label(labels[0]).array[0]
    assert dice(array == 1, array == 1) == 1.0
    (tmp_path / "metrics.json").write_text(json.dumps({"cases": {"case": {"liver": {"dice": 0.25}}}}))
    assert _add(runs, tmp_path, place).runs[0].cases == {"case": {"liver": {"dice": 0.25}}}


def test_cases_without_results_and_results_of_no_case_are_told(
    phantom_folder: Path, workspace: Path, tmp_path: Path
) -> None:
    labels = sorted((phantom_folder / "labelsTr").iterdir())
    for number, path in enumerate(labels[:-1]):
        (tmp_path / path.name).symlink_to(path)
        run = _add(Runs("Phantom", ()), tmp_path, Workspace(workspace)).runs[0]
        lacking = len(labels) - number - 1
        assert f"no results for {lacking} of the dataset's {len(labels)} cases (phantom_" in run.remarks[0]
    (tmp_path / labels[-1].name).symlink_to(labels[-1])
    assert _add(Runs("Phantom", ()), tmp_path, Workspace(workspace)).runs[0].remarks == ()
    (tmp_path / "case_9.nii.gz").symlink_to(labels[0])
    runs = _add(Runs("Phantom", ()), tmp_path, Workspace(workspace))
    assert runs.runs[0].remarks == ("1 result of no case of the dataset (case_9)",)
    assert any("theirs: 1 result of no case" in note for note in conclude(measure(runs), runs).notes)


def test_scores_older_than_their_segmentations_are_told(phantom_folder: Path, workspace: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(phantom_folder / "labelsTr", tmp_path / "mine"))
    names = [path.name.split(".")[0] for path in mine.iterdir()]
    (mine / "metrics.json").write_text(json.dumps({"cases": {name: {"liver": {"dice": 0.25}} for name in names}}))
    changed = next(mine.glob("*.nii.gz"))
    for seconds, told in ((-9, 0), (9, 1)):
        for path in mine.glob("*.nii.gz"):
            os.utime(path, (1e9 - 99, 1e9 - 99))
        os.utime(mine / "metrics.json", (1e9, 1e9))
        os.utime(changed, (1e9 + seconds, 1e9 + seconds))
        remarks = _add(Runs("Phantom", ()), mine, Workspace(workspace)).runs[0].remarks
        assert len(remarks) == told and all("1 segmentation newer" in remark for remark in remarks)


def test_a_misspelt_dataset_gets_no_report_of_its_own(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"cases": {"case": {"liver": {"dice": 0.25}}}}))
    with pytest.raises(WorkspaceError, match="-d Phantm: there is no such dataset, .*did you mean 'Phantom'"):
        _add(Runs("Phantm", ()), tmp_path, Workspace(workspace))
    assert _add(Runs("Elsewhere", ()), tmp_path, Workspace(workspace)).names == ("theirs",)


def test_a_value_that_was_measured_nowhere_is_a_mistake(phantom_folder: Path, tmp_path: Path) -> None:
    """Two folders declare no labels; those that autoseg_plan found count then."""
    place = Workspace(tmp_path)
    for kind in ("images", "labels"):
        shutil.copytree(phantom_folder / f"{kind}Tr", place.raw / "Bare" / kind)
    mine = shutil.copytree(place.raw / "Bare" / "labels", tmp_path / "mine")
    label = read_label(sorted(mine.iterdir())[0])
    wrong = label.array[0].copy()
    wrong[0, 0, 0] = 7
    write_segmentation(sorted(mine.iterdir())[0], wrong, label.geometry)
    assert "label_7" in next(iter(_add(Runs("Bare", ()), mine, place).runs[0].cases.values()))
    dataset = find_dataset("Bare", place)
    write_document(place.fingerprint("Bare"), extract_fingerprint(dataset, num_workers=1))
    with pytest.raises(VolumeError, match="7"):
        _add(Runs("Bare", ()), mine, place)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, "", "neither summary.json of nnU-Net, nor metrics.json, nor segmentations"),
        ("summary.json", "{}", "is no summary.json of nnU-Net"),
        ("metrics.json", "[]", "is no metrics.json of autoseg"),
        ("other.nii.gz", "", "no segmentation is named like a case of Phantom"),
    ],
)
def test_folders_without_results_are_refused(
    workspace: Path, tmp_path: Path, name: str | None, content: str, message: str
) -> None:
    if name:
        (tmp_path / name).write_text(content)
    with pytest.raises(WorkspaceError, match=message):
        _add(Runs("Phantom", ()), tmp_path, Workspace(workspace))


def test_names_must_be_new_and_folders_there(finished_results: Workspace, tmp_path: Path) -> None:
    runs = load_runs(finished_results, "Hippocampus")
    with pytest.raises(WorkspaceError, match="--add unet=.*a plan of this name is there already"):
        add_results(runs, "unet", tmp_path, finished_results, lambda case: None)
    with pytest.raises(WorkspaceError, match="--add theirs=.*no such folder"):
        _add(runs, tmp_path / "absent", finished_results)


def test_better_is_what_the_primary_comparison_says(finished_results: Workspace) -> None:
    runs = load_runs(finished_results, "Hippocampus")
    good = conclude(measure(runs, baseline="unetr"), runs)
    passed, told = describe_better(good, "unetr")
    assert passed and told.startswith("better than unetr: ") and "attention_unet (+" in told
    best = conclude(measure(runs, baseline="attention_unet"), runs)
    passed, told = describe_better(best, "attention_unet")
    assert not passed and told.startswith("no plan is better than attention_unet") and "unetr (−" in told
    assert describe_better(good, "absent") == (False, "absent has no finished run, so nothing can be better than it")


def test_the_markdown_table_holds_the_summary(finished_results: Workspace) -> None:
    runs = load_runs(finished_results, "Hippocampus")
    summary = conclude(measure(runs), runs)
    lines = format_markdown(summary).splitlines()
    rows = [[word.strip() for word in line.strip("|").split(" | ")] for line in lines[:6]]
    assert len({len(row) for row in rows}) == 1 and [row[0] for row in rows[2:]] == [
        rank.plan.replace("_", "\\_") for rank in summary.ranking
    ]
    dice = summary.plan("attention_unet").scores[FOREGROUND]["dice"]
    assert rows[2][2] == f"**{dice.mean:.3f} ± {dice.std:.3f}**" and rows[2][7] == "better"
    assert "Holm-corrected" in lines[-1]


def test_the_latex_table_is_well_formed_whatever_the_names(finished_results: Workspace) -> None:
    runs = load_runs(finished_results, "Hippocampus")
    text = format_latex(conclude(measure(runs), runs))
    assert text.count(r"\begin{") == text.count(r"\end{") == 2 and text.count("{") == text.count("}")
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].splitlines()
    rows = [line for line in body if line.endswith(r"\\")]
    assert len(rows) == 5 and len({row.count(" & ") for row in rows}) == 1
    assert r"attention\_unet" in text and r"95 \%" in text and r"\textbf{" in text
    assert all(ord(character) < 128 for character in text)
    assert escape_latex(r"a_b%\x{}~^<&#$|") == (
        r"a\_b\%\textbackslash{}x\{\}\textasciitilde{}\textasciicircum{}\textless{}\&\#\$\textbar{}"
    )


def _overview(path: Path) -> Overview:
    summaries = [conclude(measure(runs, baseline="nnunet"), runs) for runs in read_cases_table(path)]
    return compare_over_datasets(summaries)


def test_few_gains_of_real_searched_methods_survive_the_correction(real_data: Path, tmp_path: Path) -> None:
    """Of three searched methods on six tasks one gain over nnU-Net survives, and it is smaller than one Dice point."""
    found = _overview(real_data / "results" / "msd_test_set.csv")
    assert len(found.datasets) == 6 and len(found.comparisons) == 30
    significant = [c for c in found.comparisons if c.comparison.p_holm is not None and c.comparison.p_holm < 0.05]
    gains = {(c.comparison.plan, c.dataset) for c in significant if (c.comparison.difference.mean or 0) > 0}
    assert {pair for pair in gains if pair[0].startswith("hpo")} == {("hpo_nas", "Task04_Hippocampus")}
    assert gains - {("hpo_nas", "Task04_Hippocampus")} == {
        ("nnunet_resenc_l", "Task03_Liver"), ("nnunet_resenc_m", "Task03_Liver"),
    }  # fmt: skip
    assert found.critical is not None and found.critical.plans[0] == "hpo_nas" and found.critical.cliques == ((0, 5),)
    assert "but the datasets do not settle it" in found.headline and "3 gains" in found.sentences[0]
    assert read_document(write_overview(found, tmp_path).with_name("datasets.json"), Overview) == found


def test_an_overview_without_common_plans_still_makes_a_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD.strip().split(","))
        for dataset, plans in (("A", ("p", "q")), ("B<b>", ("r",))):
            writer.writerows([dataset, plan, 0, f"c{k}", "r", "dice", rng.random()] for plan in plans for k in range(8))
    found = _overview(tmp_path / "t.csv")
    assert found.critical is None and found.headline == "No two plans were tried on all datasets"
    page = render_overview(found)
    assert "B&lt;b&gt;" in page and "B<b>" not in page
