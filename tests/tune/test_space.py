"""The space document: what it may say, and what is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from autoseg.errors import DocumentError
from autoseg.networks import available_architectures
from autoseg.plan.plan import Plan, read_plan
from autoseg.plan.recipe import recipe_names
from autoseg.tune.candidate import find_excess, make_candidate
from autoseg.tune.defaults import default_space
from autoseg.tune.space import Parameter, check_space, own_values, read_space, space_text

ROOT = Path(__file__).resolve().parents[2] / "plans"
PLANS = {path.stem: path for path in sorted((ROOT / "Hippocampus").glob("*.json")) if path.stem != "fingerprint"}
PLANS |= {name: ROOT / "Lits" / f"{name}.json" for name in ("nnunet_lowres", "nnunet_cascade")}


def _write(folder: Path, parameters: Any, **more: Any) -> Path:
    path = folder / "space.json"
    path.write_text(json.dumps({"schema": "autoseg.space.1", "parameters": parameters, **more}))
    return path


def test_any_field_of_a_plan_and_every_knob_can_be_searched(tmp_path: Path, unet: Plan) -> None:
    parameters = {
        "training.optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
        "training.optimizer.name": {"choices": ["sgd", "adamw"]},
        "training.patch_size": {"choices": [[40, 56, 40], [32, 48, 32]]},
        "training.batch_size": {"low": 2, "high": 12},
        "training.augmentation.0.probability_rotation": {"low": 0.0, "high": 1.0},
        "preprocessing.downsample": {"choices": [1, 2]},
        "training.ema_decay": {"choices": [None, 0.99]},
        "patch_share": {"choices": [1, 0.5]},
        "extra_blocks": {"low": 0, "high": 3},
    }
    space = read_space(_write(tmp_path, parameters), unet)
    assert list(space.parameters) == list(parameters)
    assert space.changes_patches
    assert json.loads(space_text(space))["parameters"] == parameters


BAD: list[tuple[Any, str]] = [
    ({}, "parameters"),
    ({"training.los.name": {"choices": ["a", "b"]}}, "did you mean 'loss'"),
    ({"featurs_factor": {"choices": [1.0, 2.0]}}, "did you mean 'features_factor'"),
    ({"training.loss.name": {"choice": ["dice_ce", "focal"]}}, "did you mean 'choices'"),
    ({"training.loss.name": {"choices": ["dice_ce"]}}, "two different values"),
    ({"training.loss.name": {"choices": ["dice", "focal"]}}, 'the plan\'s own value, "dice_ce"'),
    ({"training.batch_size": {"low": 2}}, "give both low and high"),
    ({"training.batch_size": {"low": 20, "high": 2}}, "low must be below high"),
    ({"training.batch_size": {"low": 2, "high": 20, "choices": [2, 3]}}, "either choices, or low and high"),
    ({"training.batch_size": {"low": "2", "high": 20}}, "valid"),
    ({"training.optimizer.learning_rate": {"low": 0.0, "high": 1.0, "log": True}}, "log needs a low above 0"),
    ({"training.optimizer.learning_rate": {"low": 0.5, "high": 1.0}}, "own value, 0.01"),
    ({"patch_share": {"low": 0.5, "high": 4.0}}, "numbers from 0.01 to 1"),
    ({"extra_blocks": {"choices": [0, 1.5]}}, "whole numbers"),
    ({"name": {"choices": ["unet", "b"]}}, "cannot be searched"),
    ({"training.batch_size.more": {"low": 1, "high": 2}}, "nothing below a single value"),
]


@pytest.mark.parametrize(("parameters", "said"), BAD)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, unet: Plan, parameters: Any, said: str) -> None:
    path = _write(tmp_path, parameters)
    with pytest.raises(DocumentError) as caught:
        read_space(path, unet)
    text = str(caught.value)
    assert said in text and "\n" not in text and text.startswith(str(path))


def test_the_document_is_closed_and_versioned(tmp_path: Path, unet: Plan) -> None:
    good = {"training.batch_size": {"low": 2, "high": 20}}
    with pytest.raises(DocumentError, match="unknown field 'paramters'"):
        read_space(_write(tmp_path, good, paramters={}), unet)
    with pytest.raises(DocumentError, match="schema"):
        read_space(_write(tmp_path, good, schema="autoseg.space.2"), unet)
    with pytest.raises(DocumentError, match="no such file"):
        read_space(tmp_path / "none.json", unet)


def test_points_are_those_of_arange() -> None:
    assert Parameter(low=1, high=7, step=2).points() == [1, 3, 5, 7]
    assert Parameter(low=0.0, high=0.3, step=0.1).points() == [0.0, 0.1, 0.2, 0.3]
    assert Parameter(low=0.0, high=0.3).points() is None
    assert Parameter(low=0.1, high=0.5, step=0.1).holds(0.3)
    assert not Parameter(low=0.1, high=0.5, step=0.1).holds(0.35)
    assert not Parameter(low=1, high=3).holds(2.5)
    assert not Parameter(choices=(0, 1)).holds(True)


def test_each_recipe_has_a_plan_here() -> None:
    assert set(recipe_names()) == set(PLANS)
    assert set(available_architectures()) == {read_plan(path).network.architecture for path in PLANS.values()}


@pytest.mark.parametrize("name", PLANS)
def test_the_default_space_holds_the_plan_itself_and_can_be_made_at_its_ends(name: str) -> None:
    plan = read_plan(PLANS[name])
    space = default_space(plan)
    check_space(space, plan, where="default")
    own = make_candidate(plan, plan.name, own_values(plan, space))
    assert own == plan
    far = {key: one.choices[-1] if one.choices else one.high for key, one in space.parameters.items()}
    other = make_candidate(plan, "far", far)
    assert other.network != plan.network and other.training.loss != plan.training.loss
    assert ("patch_share" in far) == (other.training.patch_size != plan.training.patch_size)
    near = {key: one.choices[1] if one.choices else one.low for key, one in space.parameters.items()}
    small = make_candidate(plan, "near", near)
    assert small.estimate.parameters < plan.estimate.parameters < other.estimate.parameters
    assert find_excess(small, plan) is None


@pytest.mark.parametrize("name", PLANS)
def test_the_default_space_suits_the_kind_of_network(name: str) -> None:
    plan = read_plan(PLANS[name])
    parameters = default_space(plan).parameters
    always = {"training.optimizer.name", "learning_rate_factor", "training.loss.name", "training.schedule.name"}
    assert always | {"augmentation_strength", "features_factor"} <= set(parameters)
    optimizers, rate = parameters["training.optimizer.name"].choices or (), parameters["learning_rate_factor"]
    if name in ("unetr", "swin_unetr"):  # transformers diverge by plain descent, and far above their authors' rates
        assert set(optimizers) == {"adamw", "adam"} and rate.high == 3.0 and "extra_blocks" not in parameters
    else:
        assert set(optimizers) == {"sgd", "adamw"} and rate.high == 10.0 and "extra_blocks" in parameters
    assert rate.log and rate.low == pytest.approx(1 / (rate.high or 0))
    assert not any(key.startswith(("preprocessing.", "training.batch_size")) for key in parameters)
