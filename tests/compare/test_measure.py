"""The table of scores, failed cases, seeds, groups, sizes, fronts."""

import copy
import json
from typing import Any

import numpy as np
import pytest

from autoseg.compare.background import Background
from autoseg.compare.conclusions import conclude
from autoseg.compare.groups import find_seeds, group_plans
from autoseg.compare.measure import COSTS, documents_of, measure
from autoseg.compare.page import render_page
from autoseg.compare.runs import Run, Runs, Values, load_runs
from autoseg.compare.scores import gather_scores
from autoseg.compare.summary import FOREGROUND, Summary
from autoseg.compare.tables import format_markdown
from autoseg.data.workspace import Workspace
from autoseg.errors import PlanError


def _run(plan: str, cases: dict[str, Values], **options: Any) -> Run:
    return Run(plan, 0, "finished", "", cases=cases, **options)


def _concluded(runs: Runs, **options: Any) -> Summary:
    return conclude(measure(runs, **options), runs)


def test_a_variant_stands_in_for_the_baseline_it_was_made_from() -> None:
    cases: dict[str, Values] = {"a": {"x": {"dice": 0.5}}}
    documents = {"attention_short": "attention_unet", "unet_short": "unet", "unet_other": "unet"}
    runs = [_run(name, cases, document={"network": {"architecture": kind}}) for name, kind in documents.items()]
    assert measure(Runs("D", tuple(runs))).baseline == "unet_short"
    assert measure(Runs("D", tuple(runs)), baseline="segresnet").baseline == "attention_short"


def test_columns_and_pairs_hold_the_values_of_the_cases() -> None:
    first: dict[str, Values] = {
        "a": {"x": {"dice": 0.5}, "y": {"dice": 0.7}},
        "b": {"x": {"dice": None}, "y": {"dice": 0.9}},
    }
    second: dict[str, Values] = {
        "b": {"x": {"dice": 0.1}, "y": {"dice": 0.3}},
        "c": {"x": {"dice": 0.2}, "y": {"dice": None}},
    }
    table = gather_scores(Runs("D", (_run("p", first), _run("q", second))))
    assert table.cases == ("a", "b", "c") and table.regions == ("x", "y")
    assert table.own_column("p", FOREGROUND, "dice") == pytest.approx(np.array([0.6, 0.9]))
    assert np.array_equal(table.column("q", "y", "dice"), [np.nan, 0.3, np.nan], equal_nan=True)
    mine, theirs = table.pair("p", "q", FOREGROUND, "dice")  # x is undefined in p, so the pair is over y alone
    assert (mine.tolist(), theirs.tolist()) == ([0.9], [0.3])
    assert table.common().tolist() == [1] and table.matrix().tolist() == [[0.9, pytest.approx(0.2)]]


def test_a_case_of_two_folds_has_the_mean_of_its_values() -> None:
    runs = (
        Run("p", 0, "finished", "", cases={"a": {"x": {"dice": 0.4}}, "b": {"x": {"dice": None}}}),
        Run("p", 1, "finished", "", cases={"a": {"x": {"dice": 0.6}}, "b": {"x": {"dice": 0.3}}}),
    )
    assert gather_scores(Runs("D", runs)).column("p", "x", "dice").tolist() == [0.5, 0.3]


def test_a_case_that_failed_counts_as_zero_where_others_have_a_value() -> None:
    full: dict[str, Values] = {
        f"c{k}": {"x": {"dice": 0.8, "hausdorff_95": 3.0}, "y": {"dice": None, "hausdorff_95": None}} for k in range(8)
    }
    part = {name: values for name, values in full.items() if name != "c3"}
    found = _concluded(Runs("D", (_run("bad", part, missing=("c3", "nobody")), _run("unet", full))))
    bad = found.plan("bad")
    assert (bad.num_cases, bad.num_failed) == (8, 1) and found.num_common_cases == 8
    assert bad.scores["x"]["dice"].mean == pytest.approx(0.7) and bad.scores["y"]["dice"].mean is None
    assert bad.scores["x"]["hausdorff_95"].num == 7 and bad.scores["x"]["hausdorff_95"].num_undefined == 1
    difference = found.primary("bad")
    assert difference is not None and difference.difference.mean == pytest.approx(-0.1)
    assert any("Without a segmentation: 1 case of bad" in note for note in found.notes)


@pytest.fixture
def document(finished_results: Workspace) -> dict[str, Any]:
    """A plan document with a loss, a schedule, and a seed."""
    path = finished_results.fold("Hippocampus", "unet", 0) / "plan.json"
    content: dict[str, Any] = json.loads(path.read_text())
    content["training"].update(loss={"name": "dice_ce", "weight": 1.0}, schedule={"name": "poly"}, seed=0)
    content["preprocessing"]["downsample"] = 1.0
    return content


def _changed(document: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    content = copy.deepcopy(document)
    content["name"] = name
    for path, value in changes.items():
        *parents, last = path.split("__")
        owner = content
        for key in parents:
            owner = owner[key]
        owner[last] = value
    return content


def test_plans_that_differ_in_one_thing_are_grouped(document: dict[str, Any]) -> None:
    documents = {
        "tversky": _changed(document, "tversky", training__loss={"name": "tversky", "alpha": 0.3}),
        "tversky_half": _changed(document, "tversky_half", training__loss={"name": "tversky", "alpha": 0.5}),
        "unet": document,
        "adamw": _changed(document, "adamw", training__optimizer={"name": "adamw", "learning_rate": 1e-4}),
        "half": _changed(
            document, "half", preprocessing__downsample=2.0, preprocessing__spacing=[2.0, 2.0, 2.0],
            training__patch_size=[24, 32, 24], network__config={"strides": [[1, 1, 1]]}, estimate={"parameters": 1},
        ),
        "both": _changed(document, "both", training__loss={"name": "dice"}, training__epochs=7),
        "unetr": _changed(document, "unetr", network={"architecture": "unetr", "config": {}}, training__batch_size=2),
    }  # fmt: skip
    (loss,) = group_plans(documents, "loss", "unet")
    assert loss.plans == ("unet", "tversky", "tversky_half")
    assert loss.values == ("dice_ce (weight 1)", "tversky (alpha 0.3)", "tversky (alpha 0.5)")
    (optimizer,) = group_plans(documents, "optimizer", "unet")
    assert (optimizer.plans, optimizer.values) == (("unet", "adamw"), ("sgd", "adamw"))
    (downsample,) = group_plans(documents, "downsample", "unet")
    assert (downsample.plans, downsample.values) == (("unet", "half"), ("1.0", "2.0"))
    (architecture,) = group_plans(documents, "architecture", "unetr")
    assert set(architecture.plans) == {"unet", "unetr", "adamw"} and architecture.plans[0] == "unetr"
    assert group_plans(documents, "schedule") == [] and find_seeds(documents) == []


def test_plans_differ_in_the_seed_alone_where_what_they_build_on_does(document: dict[str, Any]) -> None:
    rows = {"low": {}, "second": {"previous_stage": "low"}, "longer": {"training__initial_weights": "second"}}
    documents = {
        f"{name}{ending}": _changed(
            document, f"{name}{ending}", training__seed=seed,
            **{key: f"{source}{ending}" for key, source in changes.items()},
            **({"training__epochs": 9} if name == "low" else {}),
        )
        for seed, ending in enumerate(("", "_seed1"))
        for name, changes in rows.items()
    }  # fmt: skip
    assert find_seeds(documents) == [(name, f"{name}_seed1") for name in rows]
    documents["low_seed1"]["training"]["epochs"] = 8  # now only the sources' names are alike
    assert find_seeds(documents) == []
    documents["second"]["previous_stage"] = "second"  # a circle made by hand
    assert find_seeds(documents) == []


def test_grouping_by_nothing_known_is_refused() -> None:
    with pytest.raises(PlanError, match="--by los: unknown; allowed: loss, optimizer.*did you mean 'loss'"):
        group_plans({}, "los")


def test_a_group_is_compared_with_its_first_plan_and_seeds_show_their_spread(document: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    base = rng.beta(12, 2, 30)
    shifts = {"unet": 0.0, "seed_1": 0.01, "seed_2": -0.01, "tversky": -0.2}
    documents = {
        "unet": document,
        "seed_1": _changed(document, "seed_1", training__seed=1),
        "seed_2": _changed(document, "seed_2", training__seed=2),
        "tversky": _changed(document, "tversky", training__loss={"name": "tversky"}),
    }
    cases: dict[str, dict[str, Values]] = {
        name: {f"c{k}": {"x": {"dice": float(v + shift)}} for k, v in enumerate(base)} for name, shift in shifts.items()
    }
    runs = Runs("D", tuple(_run(name, cases[name], document=documents[name]) for name in documents))
    assert documents_of(runs) == documents
    found = _concluded(runs, by=("loss", "schedule"))
    (group,) = found.groups
    assert (group.by, group.reference, group.plans) == ("loss", "unet", ("unet", "tversky"))
    assert [(c.plan, c.baseline, c.verdict) for c in group.comparisons] == [("tversky", "unet", "worse")]
    (seeds,) = found.seeds
    assert seeds.plans == ("unet", "seed_1", "seed_2") and seeds.largest == pytest.approx(0.02)
    assert seeds.spread == pytest.approx(0.01)
    assert any("differ in the seed alone, and their mean Dice by up to 2.0 points" in note for note in found.notes)


def test_dice_by_size_is_that_of_thirds_of_the_cases() -> None:
    cases: dict[str, Values] = {
        f"c{k:02d}": {"x": {"dice": k / 30, "reference_volume_ml": float(k), "predicted_volume_ml": 1.0}}
        for k in range(31)
    }
    found = measure(Runs("D", (_run("p", cases), _run("unet", cases))))
    assert found.skipped_metrics == () and [s.scores["p"].num for s in found.sizes] == [10, 10, 10]  # one case is empty
    assert [(s.low_ml, s.high_ml) for s in found.sizes] == [(1, 10), (11, 20), (21, 30)]
    assert [s.scores["p"].mean for s in found.sizes] == pytest.approx([5.5 / 30, 15.5 / 30, 25.5 / 30])


def test_a_metric_nobody_knows_is_left_to_the_table_and_said() -> None:
    cases: dict[str, Values] = {
        f"c{k}": {"x": {"dice": 0.5, "iou": 0.4, "novel": 3.0, "sensitivity": 0.6}} for k in range(8)
    }
    runs = Runs("D", (_run("p", cases), _run("unet", cases)))
    found = _concluded(runs)
    assert found.metrics == ("dice", "sensitivity") and found.skipped_metrics == ("novel",)
    assert any("does not know which way is better: novel" in note for note in found.notes)
    page = render_page(found, runs, gather_scores(runs), Background())
    assert "<summary>Sensitivity</summary>" in page and "<summary>Dice</summary>" not in page
    assert "Sensitivity" not in format_markdown(found)


def test_fronts_hold_the_plans_that_no_other_beats(finished_results: Workspace) -> None:
    found = measure(load_runs(finished_results, "Hippocampus"))
    assert found.fronts["epoch_seconds"] == ("unet", "nnunet", "attention_unet")  # unetr is slower and worse
    assert set(found.fronts) == {*COSTS}


def test_all_values_of_the_summary_are_consistent(finished_results: Workspace) -> None:
    found = measure(load_runs(finished_results, "Hippocampus"))
    assert [rule.rule for rule in found.rules] == ["mean", "mean rank", "test"]
    assert found.significance is not None and found.significance.plans[0] == found.ranking[0].plan
    for c in found.comparisons:
        assert c.baseline == "unet" and c.p_holm is not None and c.p_permutation_holm is not None
        assert (c.more_cases is not None) == (c.verdict == "undecided")
        assert c.difference.p_permutation is not None and c.difference.p_permutation <= c.p_permutation_holm
