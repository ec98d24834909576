"""Plans made of a sampler's values."""

import math

import pytest

from autoseg.errors import DocumentError
from autoseg.plan.plan import Plan
from autoseg.plan.variant import make_variant
from autoseg.tune.candidate import find_excess, make_candidate, shorten
from autoseg.tune.knobs import KNOBS


def test_fields_are_set_as_by_make_variant(unet: Plan) -> None:
    values = {"training.optimizer.learning_rate": 0.003, "training.loss.name": "tversky"}
    expected = make_variant(unet, "v", ["training.optimizer.learning_rate=0.003", "training.loss.name=tversky"])
    assert make_candidate(unet, "v", values).training == expected.training


def test_what_is_as_in_the_plan_is_left_alone(unet: Plan) -> None:
    own = make_variant(unet, "base", ["training.optimizer.momentum=0.5"])
    same = make_candidate(own, "v", {"training.optimizer.name": "sgd", "training.batch_size": own.training.batch_size})
    assert same.training == own.training  # naming sgd again would bring its default momentum


def test_a_field_that_another_component_lacks_is_left_out(unet: Plan) -> None:
    values = {"training.optimizer.name": "adamw", "training.optimizer.momentum": 0.5}
    assert make_candidate(unet, "v", values).training.optimizer.name == "adamw"
    with pytest.raises(DocumentError):
        make_candidate(unet, "v", {"training.optimizer.name": "adamm"})


def test_the_learning_rate_is_a_multiple_of_the_optimizers_own(unet: Plan) -> None:
    one = make_candidate(unet, "v", {"learning_rate_factor": 0.5})
    assert one.training.optimizer.learning_rate == unet.training.optimizer.learning_rate * 0.5
    other = make_candidate(unet, "v", {"learning_rate_factor": 0.5, "training.optimizer.name": "adamw"})
    default = make_variant(unet, "v", ["training.optimizer.name=adamw"]).training.optimizer.learning_rate
    assert other.training.optimizer.learning_rate == default * 0.5


@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_a_smaller_patch_gets_a_larger_batch_and_the_same_network(unet: Plan, share: float) -> None:
    small = make_candidate(unet, "v", {"patch_share": share})
    voxels = [math.prod(one.training.patch_size) for one in (unet, small)]
    seen = [one * plan.training.batch_size for one, plan in zip(voxels, (unet, small))]
    assert voxels[1] < voxels[0] and abs(seen[1] / seen[0] - 1) < 0.5 * voxels[1] / seen[0] + 1e-9
    assert small.network == unet.network
    assert small.rationale.get("network.config") == unet.rationale.get("network.config")


def test_features_and_blocks_change_the_network_and_the_estimate(unet: Plan) -> None:
    wide = make_candidate(unet, "v", {"features_factor": 2.0})
    assert wide.network.config["features_per_stage"] == [2 * n for n in unet.network.config["features_per_stage"]]
    assert wide.estimate.parameters > 3 * unet.estimate.parameters
    deep = make_candidate(unet, "v", {"extra_blocks": 2})
    blocks = "blocks_per_stage_encoder"
    assert deep.network.config[blocks] == [n + 2 for n in unet.network.config[blocks]]
    assert deep.estimate.flops_per_iteration > unet.estimate.flops_per_iteration


def test_strength_scales_probabilities_but_not_of_symmetries(unet: Plan) -> None:
    entries = KNOBS["augmentation_strength"].assign(unet, 2.0)["training.augmentation"]
    for before, after in zip(unet.training.augmentation, entries):
        old = before.parameters.get("probability")
        if old is not None:
            assert after["probability"] == (old if before.name == "mirror" else min(1.0, 2 * old))
    none = make_candidate(unet, "v", {"augmentation_strength": 0.0})
    assert {one.name: one.parameters.get("probability") for one in none.training.augmentation}["mirror"] == 0.5
    assert none.prediction == unet.prediction


def test_only_the_epochs_of_a_trial_are_shorter(unet: Plan) -> None:
    short = shorten(unet, 2)
    assert short.training == unet.training.model_copy(update={"epochs": 2})


def test_what_exceeds_the_budget_is_told_and_the_plan_itself_never_does(unet: Plan) -> None:
    assert find_excess(unet, unet) is None
    large = make_candidate(unet, "v", {"training.batch_size": 400})
    told = find_excess(large, unet)
    assert told is not None and f"{unet.budget.memory_gb:g} GB" in told
    formula = unet.model_copy(update={"estimate": unet.estimate.model_copy(update={"memory_gb": 99.0})})
    assert find_excess(formula, formula) is None
