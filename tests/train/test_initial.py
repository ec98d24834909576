"""Weights that a training starts from: which plans they fit, and what is kept of where they come from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.errors import PlanError, TrainingError
from autoseg.plan.plan import Plan
from autoseg.train.initial import InitialRun, check_fits, start_from, take_weights
from autoseg.train.state import load_network, make_state

CPU = torch.device("cpu")


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    weights, others = one.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def test_the_average_is_what_is_started_from(train: Any, make_plan: Any, tmp_path: Path) -> None:
    plan = make_plan(epochs=1, ema_decay=0.5)
    source = InitialRun(plan, 0, train(plan))
    state = make_state(make_plan(ema_decay=0.9, seed=8), CPU, scaled=False)
    start_from(state, take_weights(source, tmp_path / "run"), source)
    average = load_network(source.folder, plan, which="last", device=CPU)
    assert state.averaged is not None and equal(state.network, average) and equal(state.averaged, average)
    assert (tmp_path / "run" / "initial.json").is_file()


def test_a_damaged_checkpoint_is_one_line_and_leaves_no_record(train: Any, make_plan: Any, tmp_path: Path) -> None:
    source = InitialRun(make_plan(epochs=1), 0, train(make_plan(epochs=1)))
    (source.folder / "checkpoints" / "last.pt").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="cannot be read"):
        take_weights(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_another_code_made_are_refused(make_plan: Any, tmp_path: Path) -> None:
    state = make_state(make_plan(), CPU, scaled=False)
    with pytest.raises(TrainingError, match="whose code must have changed since"):
        start_from(state, {"other": torch.zeros(1)}, InitialRun(make_plan(), 0, tmp_path))


def changed(plan: Plan, section: str, **fields: Any) -> Plan:
    return plan.model_copy(update={section: getattr(plan, section).model_copy(update=fields)})


def test_what_leaves_the_network_as_it_is_may_differ(make_plan: Any) -> None:
    plan = make_plan()
    check_fits(make_plan(patch_size=(24, 16, 16), batch_size=5, epochs=9, ema_decay=0.9, deep_supervision=False), plan)
    check_fits(changed(plan, "preprocessing", spacing=(2.0, 1.0, 1.0)), plan)


@pytest.mark.parametrize(
    ("section", "fields", "said"),
    [
        ("network", {"architecture": "nnunet"}, "is unet in 3-D there and nnunet in 3-D here"),
        ("dataset", {"channels": ("CT",)}, "with other channels"),
        ("dataset", {"labels": {"background": 0, "ball": 1, "rim": 2}}, "with other labels"),
        ("dataset", {"labels": {"background": 0, "core": 2, "ball": 1}}, "with other labels"),
        ("training", {"patch_size": (16, 16)}, "is unet in 3-D there and unet in 2-D here"),
    ],
)
def test_what_changes_the_network_is_told(make_plan: Any, section: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match="training.initial_weights 'tiny'.*" + said):
        check_fits(changed(make_plan(), section, **fields), make_plan())


def test_other_shapes_are_told_by_the_setting(make_plan: Any) -> None:
    plan = make_plan()
    wider = changed(plan, "network", config=plan.network.config | {"features_per_stage": [4, 8, 16]})
    with pytest.raises(PlanError, match=r"features_per_stage is \[4, 8, 8\] there and \[4, 8, 16\] here"):
        check_fits(wider, plan)
