"""A plan that starts from another's weights: written only where it does, set like any field, and told."""

import json
from typing import Any

import pytest

from autoseg.documents import content_hash, parse_document, to_text
from autoseg.errors import DocumentError
from autoseg.plan.plan import Plan
from autoseg.plan.planner import make_plan
from autoseg.plan.story import differences, tell
from autoseg.plan.variant import make_variant
from autoseg.train.state import training_digest

KEY = "training.initial_weights"


@pytest.fixture
def plan(make_fingerprint: Any) -> Plan:
    return make_plan("unet", make_fingerprint())


def test_plans_without_are_written_and_hashed_as_before(plan: Plan) -> None:
    content = json.loads(to_text(plan))
    assert "initial_weights" not in content["training"]
    content["training"]["initial_weights"] = None
    again = parse_document(json.dumps(content), Plan, where="plan")
    assert (to_text(again), content_hash(again), training_digest(again)) == (
        to_text(plan), content_hash(plan), training_digest(plan),
    )  # fmt: skip


def test_it_is_set_told_and_taken_back(plan: Plan) -> None:
    longer = make_variant(plan, "longer", [f"{KEY}=unet"])
    assert longer.training.initial_weights == "unet" and training_digest(longer) != training_digest(plan)
    assert parse_document(to_text(longer), Plan, where="plan") == longer
    assert (KEY, "-", "unet") in differences(plan, longer)
    (reason,) = [text for field, value, text in tell(longer) if (field, value) == (KEY, "unet")]
    assert "same fold of unet" in reason and "start afresh" in reason
    back = make_variant(longer, "unet", [f"{KEY}=null"])
    assert back.training == plan.training and training_digest(back) == training_digest(plan)


def test_a_short_training_from_weights_keeps_its_optimizer(plan: Plan) -> None:
    """The recipe for short trainings is for networks that know nothing yet; its warm-up stays short."""
    short, tuned = (make_variant(plan, "v", ["training.epochs=5", *more]) for more in ([], [f"{KEY}=unet"]))
    assert short.training.optimizer != plan.training.optimizer
    assert tuned.training.optimizer == plan.training.optimizer
    assert tuned.training.augmentation == plan.training.augmentation


@pytest.mark.parametrize("value", ['"../unet"', "v", "3", '""'])
def test_what_names_no_other_plan_is_refused(plan: Plan, value: str) -> None:
    with pytest.raises(DocumentError, match="initial_weights"):
        make_variant(plan, "v", [f"{KEY}={value}"])
