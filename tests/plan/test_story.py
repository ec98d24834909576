"""The story of a plan, the difference of two, and the published schema."""

from typing import Any

import pytest

from autoseg.plan.plan import Plan
from autoseg.plan.planner import make_plan
from autoseg.plan.story import differences, tell
from autoseg.plan.summary import COLUMNS, field_of_view, summarise
from autoseg.plan.variant import make_variant


@pytest.fixture
def plan(make_fingerprint: Any) -> Plan:
    return make_plan("nnunet", make_fingerprint())


def test_the_story_tells_every_explained_number_in_the_plans_order(plan: Plan) -> None:
    story = tell(plan)
    assert {field for field, _, _ in story} == set(plan.rationale)
    assert [field.split(".")[0] for field, _, _ in story] == sorted(
        (field.split(".")[0] for field, _, _ in story), key=["preprocessing", "network", "training", "estimate"].index
    )
    values = {field: value for field, value, _ in story}
    assert values["training.patch_size"] == "[40, 56, 40]"
    assert "parameters" in values["estimate"]


def test_differences_are_the_fields_that_differ(plan: Plan) -> None:
    assert differences(plan, plan) == []
    other = make_variant(plan, "other", ["training.seed=3", "training.augmentation.0.scaling=[0.5,2.0]"])
    assert differences(plan, other) == [
        ("name", "nnunet", "other"),
        ("training.augmentation.spatial.scaling", "[0.7, 1.4]", "[0.5, 2.0]"),
        ("training.seed", "0", "3"),
    ]


def test_fields_that_one_plan_lacks_are_dashes(plan: Plan) -> None:
    other = make_variant(plan, "other", ['training.augmentation=["gamma"]'])
    rows = {field: (one, two) for field, one, two in differences(plan, other)}
    assert rows["training.augmentation.mirror.probability"] == ("0.5", "-")


def test_the_summary_has_a_text_for_each_column(plan: Plan, make_fingerprint: Any) -> None:
    fingerprint = make_fingerprint()
    row = summarise(plan, fingerprint)
    assert tuple(row) == COLUMNS and row["patch"] == row["in mm"] == "40x56x40"
    assert field_of_view(plan, fingerprint) == 1.0
    smaller = make_variant(plan, "small", ["training.patch_size=[32,32,32]"])
    assert field_of_view(smaller, fingerprint) == pytest.approx(32**3 / (36 * 50 * 35) * 1.0, rel=1e-6)
