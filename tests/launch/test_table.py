"""Tables: strict documents, the plans they come to, and plans that are there already."""

import json
from pathlib import Path
from typing import Any

import pytest

import autoseg
from autoseg.data.dataset import Dataset
from autoseg.data.workspace import Workspace
from autoseg.documents import write_document
from autoseg.errors import AutosegError, DocumentError, PlanError
from autoseg.fingerprint.fingerprint import Fingerprint, read_fingerprint
from autoseg.launch.campaign import open_campaign
from autoseg.launch.ready import choose_table_folds, make_missing_plans, measure_once
from autoseg.launch.status import RunKey
from autoseg.launch.table import Changes, choose_rows, expand, find_table, make_table
from autoseg.plan.plan import Plan, read_plan
from autoseg.plan.planner import make_plan

SHIPPED = ("models", "losses", "optimizers", "schedules", "downsampling")
REPOSITORY = Path(autoseg.__file__).resolve().parents[1]


def _write(folder: Path, **content: Any) -> str:
    path = folder / "table.json"
    path.write_text(json.dumps({"schema": "autoseg.table.1", **content}))
    return str(path)


@pytest.fixture
def fingerprint(place: Workspace) -> Fingerprint:
    return read_fingerprint(place.fingerprint("Phantom"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_make_plans(name: str, place: Workspace, fingerprint: Fingerprint) -> None:
    """Each row's plan differs from its baseline in what the table is about."""
    if name == "schedules" and '"const": "step"' not in json.dumps(Plan.model_json_schema()):
        pytest.skip("the schedules step, plateau and cyclic are not there yet")
    table = find_table(name)
    assert table == find_table(str(REPOSITORY / "plans" / "experiments" / f"{name}.json"))
    plans, made = make_missing_plans(fingerprint, place, expand(table, Changes()))
    assert made == [row.name for row in table.plans] == [plan.name for plan in plans]
    for row, plan in zip(table.plans, plans):
        content: Any = json.loads(plan.model_dump_json(by_alias=True))
        for key, value in row.set.items():
            found = content
            for part in key.split("."):
                found = found[part]
            assert found == value
    assert make_missing_plans(fingerprint, place, expand(table, Changes()))[1] == []


def test_downsampling_plans_anew(place: Workspace, fingerprint: Fingerprint) -> None:
    plans, _ = make_missing_plans(fingerprint, place, expand(find_table("downsampling"), Changes()))
    expected = make_plan("unet", fingerprint, downsample=2)
    assert plans[1].training.patch_size == expected.training.patch_size
    assert plans[1].preprocessing == expected.preprocessing


def test_changes_of_all_rows(place: Workspace, fingerprint: Fingerprint) -> None:
    """A short optimizers table keeps its three optimisers, where the planner would take AdamW."""
    changes = Changes(assignments=("training.epochs=2", "training.optimizer.name=adam"), suffix="short")
    plans, _ = make_missing_plans(fingerprint, place, expand(find_table("losses"), changes))
    assert [plan.name for plan in plans][:2] == ["unet_short", "unet_dice_short"]
    assert {plan.training.epochs for plan in plans} == {2}
    changes = Changes(assignments=("training.epochs=2",), suffix="brief")
    plans, _ = make_missing_plans(fingerprint, place, expand(find_table("optimizers"), changes))
    assert [plan.training.optimizer.name for plan in plans] == ["sgd", "adam", "rmsprop"]


def test_what_the_command_line_sets_goes_before_the_row(place: Workspace, fingerprint: Fingerprint) -> None:
    changes = Changes(assignments=("training.loss.name=focal",), suffix="x")
    plans, _ = make_missing_plans(fingerprint, place, expand(find_table("losses"), changes))
    assert {plan.training.loss.name for plan in plans} == {"focal"}


def test_seeds_are_plans(place: Workspace, fingerprint: Fingerprint) -> None:
    table = make_table(["tiny"]).model_copy(update={"seeds": 3})
    entries = expand(table, Changes())
    assert [entry.name for entry in entries] == ["tiny", "tiny_seed1", "tiny_seed2"]
    plans, made = make_missing_plans(fingerprint, place, entries)
    assert made == ["tiny_seed1", "tiny_seed2"]
    assert [plan.training.seed for plan in plans] == [0, 1, 2]
    assert make_missing_plans(fingerprint, place, entries)[1] == []


def test_a_plan_that_is_another_one_is_refused(place: Workspace, fingerprint: Fingerprint, tmp_path: Path) -> None:
    entries = expand(find_table("losses"), Changes())
    make_missing_plans(fingerprint, place, entries)
    path = place.plan("Phantom", "unet_focal")
    other = read_plan(place.plan("Phantom", "unet_dice")).model_copy(update={"name": "unet_focal"})
    write_document(path, other)
    with pytest.raises(PlanError, match=r"plan unet_focal: .*training\.loss\.name dice, and the table says focal"):
        make_missing_plans(fingerprint, place, entries)


def test_a_downsampled_plan_that_is_another_one_is_refused(place: Workspace, fingerprint: Fingerprint) -> None:
    entries = expand(find_table("downsampling"), Changes())
    make_missing_plans(fingerprint, place, entries)
    other = read_plan(place.plan("Phantom", "unet_down2")).model_copy(update={"name": "unet_down4"})
    write_document(place.plan("Phantom", "unet_down4"), other)
    with pytest.raises(PlanError, match="unet_down4"):
        make_missing_plans(fingerprint, place, entries)


def test_a_row_from_a_plan(place: Workspace, fingerprint: Fingerprint, tmp_path: Path) -> None:
    rows = [{"name": "tiny"}, {"name": "tiny_slow", "from": "tiny", "set": {"training.optimizer.learning_rate": 1e-5}}]
    table = find_table(_write(tmp_path, plans=rows, folds=[1], baseline="tiny"))
    plans, made = make_missing_plans(fingerprint, place, expand(table, Changes()))
    assert made == ["tiny_slow"] and plans[1].training.optimizer.learning_rate == 1e-5
    assert plans[1].training.patch_size == plans[0].training.patch_size


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "'plans' is missing"),
        ({"plans": []}, "plans"),
        ({"plans": [{"name": "unet", "sett": {}}]}, "sett"),
        ({"plans": [{"name": "unet"}], "fold": [0]}, "did you mean 'folds'?"),
        ({"plans": [{"name": "a", "set": {"training.epochs": 2}}]}, "'architecture' or a plan"),
        ({"plans": [{"name": "a", "architecture": "unet", "from": "b"}]}, "exclude each other"),
        ({"plans": [{"name": "unet"}, {"name": "unet"}]}, "stands there twice"),
        ({"plans": [{"name": "unet"}], "baseline": "unett"}, "did you mean 'unet'?"),
        ({"plans": [{"name": "unet"}], "folds": [0, 0]}, "folds"),
        ({"plans": [{"name": "unet"}], "seeds": 0}, "seeds"),
        ({"plans": [{"name": "../unet"}]}, "name"),
        ({"plans": [{"name": "unet"}], "schema": "autoseg.table.9"}, "autoseg.table.1"),
    ],
)
def test_mistakes_in_a_table(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        find_table(_write(tmp_path, **content))
    assert words in str(caught.value) and "table.json" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: find_table("loses"), "did you mean 'losses'?"),
        (lambda: choose_rows(find_table("losses"), ["unet_dise"]), "did you mean 'unet_dice'?"),
        (lambda: expand(find_table("losses"), Changes(assignments=("training.epochs=2",))), "--name"),
        (lambda: expand(find_table("losses"), Changes(suffix="x")), "--set"),
    ],
)
def test_mistakes_on_the_command_line(call: Any, words: str) -> None:
    with pytest.raises(AutosegError) as caught:
        call()
    assert words in str(caught.value)


def test_an_unknown_plan_names_the_nearest(place: Workspace, fingerprint: Fingerprint) -> None:
    with pytest.raises(PlanError, match="did you mean 'tiny'"):
        make_missing_plans(fingerprint, place, expand(make_table(["tinny"]), Changes()))


def test_a_campaign_goes_fold_by_fold(dataset: Dataset, place: Workspace) -> None:
    campaign = open_campaign(dataset, place, table="losses", plans=["unet", "unet_dice"], seeds=2, changes=Changes())
    keys = campaign.keys([0, 1])
    assert keys[:2] == [RunKey("unet", 0), RunKey("unet_dice", 0)] and len(keys) == 8 == len(set(keys))
    assert campaign.unfinished(keys) == keys
    words = campaign.compare_arguments(["unet_dice"])
    assert words[words.index("--baseline") + 1] == "unet_dice" and words[words.index("--by") + 1] == "loss"


def test_a_measured_dataset_is_not_measured_again(
    dataset: Dataset, place: Workspace, own_raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("measured")

    monkeypatch.setattr("autoseg.launch.ready.measure", refuse)
    _, splits = measure_once(dataset, place, num_workers=1)
    assert choose_table_folds(splits, None) == (0, 1, 2, 3, 4) and choose_table_folds(splits, [2, 2]) == (2,)
    place.splits("Phantom").unlink()
    with pytest.raises(RuntimeError, match="measured"):
        measure_once(dataset, place, num_workers=1)
