"""Reading runs: finished, unfinished, broken, absent."""

import json

import pytest

from autoseg.compare.runs import datasets_with_runs, load_runs
from autoseg.data.workspace import Workspace
from autoseg.errors import WorkspaceError


def test_finished_runs_hold_their_values(finished_results: Workspace) -> None:
    runs = load_runs(finished_results, "Hippocampus")
    assert runs.plans == ("attention_unet", "nnunet", "unet", "unetr")
    assert runs.regions == ("Anterior", "Posterior")
    assert set(runs.metrics) == {"dice", "hausdorff_95", "surface_dice"}
    first = runs.finished("unet")[0]
    stored = json.loads((finished_results.fold("Hippocampus", "unet", 0) / "validation" / "metrics.json").read_text())
    assert first.cases == stored["cases"]
    assert first.cases["hippocampus_000"]["Posterior"]["dice"] is None
    assert len(first.epochs) == 100 and len(first.seconds) == 20 and first.record["device"] == "NVIDIA H200"
    assert runs.unfinished() == ()


def test_given_plans_keep_their_order(finished_results: Workspace) -> None:
    assert load_runs(finished_results, "Hippocampus", ["unetr", "unet", "unetr"]).plans == ("unetr", "unet")


def test_nnunets_name_of_the_dataset_is_understood(finished_results: Workspace) -> None:
    assert load_runs(finished_results, "Dataset004_Hippocampus").dataset == "Hippocampus"
    assert datasets_with_runs(finished_results) == ["Hippocampus"]


def test_unknown_plan_names_those_there_are(finished_results: Workspace) -> None:
    with pytest.raises(
        WorkspaceError, match="nnunett.*attention_unet, nnunet, unet, unetr .did you mean 'nnunet'.*autoseg_train"
    ):
        load_runs(finished_results, "Hippocampus", ["unet", "nnunett"])


def test_unknown_dataset_names_those_there_are(finished_results: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="Hipocampus; datasets with runs: Hippocampus .did you mean"):
        load_runs(finished_results, "Hipocampus")


def test_no_runs_at_all_says_which_command_makes_one(own_results: Workspace) -> None:
    empty = Workspace(own_results.root / "plans")
    with pytest.raises(WorkspaceError, match="autoseg_train -d Hippocampus"):
        load_runs(empty, "Hippocampus")
    assert datasets_with_runs(empty) == []


def test_unfinished_runs_are_listed_with_what_is_known(own_results: Workspace) -> None:
    for fold, lines in ((0, 100), (1, 37)):
        folder = own_results.fold("Hippocampus", "nnunet", fold)
        (folder / "validation" / "metrics.json").unlink()
        log = folder / "logs" / "metrics.jsonl"
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:lines]))
    own_results.fold("Hippocampus", "unetr", 0).mkdir(parents=True)
    runs = load_runs(own_results, "Hippocampus")
    states = {(run.plan, run.fold): (run.state, run.detail) for run in runs.unfinished()}
    assert states["nnunet", 0][0] == "not scored"
    assert states["nnunet", 1][0] == "not finished" and states["nnunet", 1][1].startswith("37 of 100 epochs")
    assert "interrupted" in states["nnunet", 1][1]
    assert states["unetr", 0][0] == "not started"
    assert states["unetr", 1] == ("not started", "other plans have this fold")
    assert runs.plans == ("unet",)


def test_a_half_written_last_line_is_no_harm_but_one_within_is(own_results: Workspace) -> None:
    log = own_results.fold("Hippocampus", "unet", 0) / "logs" / "metrics.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:50]) + '\n{"epoch": 51, "train_l')
    assert len(load_runs(own_results, "Hippocampus").finished("unet")[0].epochs) == 50
    log.write_text("\n".join([lines[0], "oops", lines[1]]))
    broken = load_runs(own_results, "Hippocampus").unfinished()[0]
    assert broken.state == "unreadable" and "metrics.jsonl, line 2" in broken.detail


@pytest.mark.parametrize("text", ["{", "[1]", '{"cases": {"a": {"liver": {"dice": "good"}}}}'])
def test_broken_scores_are_listed_and_do_not_stop_the_rest(own_results: Workspace, text: str) -> None:
    (own_results.fold("Hippocampus", "unet", 1) / "validation" / "metrics.json").write_text(text)
    runs = load_runs(own_results, "Hippocampus")
    assert [(run.plan, run.fold, run.state) for run in runs.unfinished()] == [("unet", 1, "unreadable")]
    assert "unet/fold_1" in runs.unfinished()[0].detail


def test_nan_is_undefined(own_results: Workspace) -> None:
    path = own_results.fold("Hippocampus", "unet", 0) / "validation" / "metrics.json"
    path.write_text('{"cases": {"a": {"Anterior": {"dice": NaN, "hausdorff_95": 3}}}, "mean": {}}')
    run = load_runs(own_results, "Hippocampus").finished("unet")[0]
    assert run.cases == {"a": {"Anterior": {"dice": None, "hausdorff_95": 3.0}}}
    assert "hippocampus_000" in run.missing


def test_plans_that_were_never_trained_are_named(own_results: Workspace) -> None:
    folder = own_results.plans("Hippocampus")
    for name in ("unetr.json", "unet.json", "fingerprint.json"):
        (folder / name).write_text("{}")
    assert load_runs(own_results, "Hippocampus").untrained == ("unetr",)
