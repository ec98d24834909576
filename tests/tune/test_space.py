"""The space document: what it may say, and what is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from autoseg.errors import DocumentError
from autoseg.networks import available_architectures
from autoseg.plan.plan import Plan, read_plan
from autoseg.tune.candidate import make_candidate
from autoseg.tune.defaults import default_space
from autoseg.tune.space import Parameter, check_space, own_values, read_space, space_text

PLANS = sorted((Path(__file__).resolve().parents[2] / "plans" / "Hippocampus").glob("*.json"))
NAMES = [path.stem for path in PLANS if path.stem != "fingerprint"]


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


def test_each_architecture_has_a_plan_here() -> None:
    assert set(available_architectures()) <= {
        read_plan(path).network.architecture for path in PLANS if path.stem in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_default_space_holds_the_plan_itself(name: str) -> None:
    plan = read_plan(next(path for path in PLANS if path.stem == name))
    space = default_space(plan)
    check_space(space, plan, where="default")
    own = make_candidate(plan, plan.name, own_values(plan, space))
    assert own == plan
    far = {key: one.choices[-1] if one.choices else one.high for key, one in space.parameters.items()}
    other = make_candidate(plan, "far", far)
    assert other.network != plan.network and other.training.loss != plan.training.loss
    assert ("patch_share" in far) == (other.training.patch_size != plan.training.patch_size)
