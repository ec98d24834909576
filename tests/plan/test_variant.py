"""Variants: what is set, what follows, what is refused."""

import json
from typing import Any

import pytest

from autoseg.documents import parse_document, to_text
from autoseg.errors import AutosegError, DocumentError, PlanError
from autoseg.plan.plan import Plan
from autoseg.plan.planner import make_plan
from autoseg.plan.variant import make_variant


@pytest.fixture
def plan(make_fingerprint: Any) -> Plan:
    return make_plan("nnunet", make_fingerprint())


def test_an_assignment_changes_its_field_and_nothing_else(plan: Plan) -> None:
    variant = make_variant(plan, "nnunet_seed", ["training.seed=3"])
    assert (variant.name, variant.training.seed) == ("nnunet_seed", 3)
    assert "seed was set to 3 by hand; it was 0" in variant.rationale["training.seed"]
    back = variant.model_copy(update={
        "name": plan.name, "rationale": plan.rationale, "training": variant.training.model_copy(update={"seed": 0}),
    })  # fmt: skip
    assert back == plan


def test_lists_are_reached_by_index_and_text_needs_no_quotes(plan: Plan) -> None:
    variant = make_variant(plan, "v", ["training.augmentation.0.probability_rotation=0.5", "training.precision=fp32"])
    assert variant.training.augmentation[0].parameters["probability_rotation"] == 0.5
    assert variant.training.precision == "fp32"
    assert variant.estimate.memory_gb > plan.estimate.memory_gb


def test_a_component_brings_its_own_defaults_whatever_the_order(plan: Plan) -> None:
    variant = make_variant(plan, "v", ["training.optimizer.weight_decay=0.1", "training.optimizer.name=adamw"])
    optimizer = variant.training.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("adamw", 1e-3, 0.1)
    assert "adamw" in variant.rationale["training.optimizer"]
    assert make_variant(plan, "v", ["training.schedule.name=cosine"]).training.schedule.name == "cosine"
    tversky = make_variant(plan, "v", ["training.loss.name=tversky"]).training.loss
    assert tversky.name == "tversky" and tversky.parameters


def test_augmentations_can_be_listed_by_name(plan: Plan) -> None:
    variant = make_variant(plan, "v", ['training.augmentation=["gamma", "mirror"]'])
    assert [entry.name for entry in variant.training.augmentation] == ["gamma", "mirror"]
    assert make_variant(plan, "v", ["training.augmentation=[]"]).training.augmentation == ()


def test_without_training_on_mirrored_images_none_are_predicted(plan: Plan) -> None:
    assert plan.prediction.mirror_axes == (0, 1, 2)
    for chosen, axes in (("[]", ()), ('[{"name": "mirror", "axes": [2], "probability": 0.5}]', (2,))):
        variant = make_variant(plan, "v", [f"training.augmentation={chosen}"])
        assert variant.prediction.mirror_axes == axes
        assert "mirrored" in variant.rationale["prediction.mirror_axes"]
    by_hand = make_variant(plan, "v", ["training.augmentation=[]", "prediction.mirror_axes=[1]"])
    assert by_hand.prediction.mirror_axes == (1,)


@pytest.mark.parametrize("name", ["poly", "cosine", "step", "plateau", "cyclic", "one_cycle"])
def test_every_schedule_brings_its_defaults(plan: Plan, name: str) -> None:
    schedule = make_variant(plan, "v", [f"training.schedule.name={name}"]).training.schedule
    assert schedule == type(schedule)()
    assert schedule.name == name


def test_weights_of_classes_are_named_as_the_outputs(plan: Plan) -> None:
    name = plan.dataset.label_scheme.output_names[1]
    variant = make_variant(plan, "v", [f'training.class_weights={{"{name}": 2.5}}'])
    assert variant.training.class_weights == {name: 2.5}
    for weights, message in (('{"backgruond": 2}', "background"), ('{"background": -1}', "finite")):
        with pytest.raises(DocumentError, match=message):
            make_variant(plan, "v", [f"training.class_weights={weights}"])


def test_another_patch_size_derives_the_network_again(plan: Plan) -> None:
    variant = make_variant(plan, "v", ["training.patch_size=[16,64,64]"])
    assert variant.training.patch_size == (16, 64, 64)
    assert len(variant.network.config["strides"]) == 5
    assert variant.estimate != plan.estimate
    assert "16 x 64 x 64" in variant.rationale["network.config"]
    spatial = next(e for e in variant.training.augmentation if e.name == "spatial")
    assert list(spatial.parameters["rotation_degrees"]) == [180.0, 0.0, 0.0]


def test_a_network_that_was_set_is_kept(plan: Plan) -> None:
    features = [16, 32, 64, 128]
    variant = make_variant(
        plan, "v", [f"network.config.features_per_stage={features}", "training.patch_size=[32,32,32]"]
    )
    assert variant.network.config["features_per_stage"] == features
    assert variant.estimate.parameters < plan.estimate.parameters / 3


def test_another_architecture_gets_its_own_configuration(plan: Plan) -> None:
    variant = make_variant(plan, "v", ["network.architecture=unet"])
    assert variant.network.config["blocks_per_stage_encoder"] == [1, 1, 1, 1]


def test_unetr_follows_its_patch(make_fingerprint: Any) -> None:
    plan = make_plan("unetr", make_fingerprint())
    variant = make_variant(plan, "v", ["training.patch_size=[32,32,32]", "training.epochs=2"])
    assert variant.network.config["patch_size"] == [32, 32, 32]
    optimizer = variant.training.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay) == (pytest.approx(3e-4), 1e-5)


def test_a_short_training_gets_the_short_recipe(plan: Plan) -> None:
    variant = make_variant(plan, "short", ["training.epochs=4", "training.iterations_per_epoch=25"])
    training = variant.training
    assert (training.optimizer.name, training.optimizer.learning_rate) == ("adamw", 1e-3)
    assert (training.schedule.name, training.schedule.warmup_iterations) == ("poly", 10)
    assert (training.augmentation, variant.prediction.mirror_axes) == ((), ())
    for key in ("training.optimizer", "training.schedule", "training.augmentation"):
        assert "100 iterations" in variant.rationale[key]
    longer = make_variant(plan, "v", ["training.epochs=39"])
    assert (longer.training.optimizer.name, longer.training.schedule.warmup_iterations) == ("adamw", 20)
    assert [entry.name for entry in longer.training.augmentation] == ["mirror"]
    assert longer.prediction.mirror_axes == (0, 1, 2)


def test_the_short_recipe_yields_to_what_was_set(plan: Plan) -> None:
    own = make_variant(plan, "v", ["training.epochs=4", "training.optimizer.learning_rate=0.02"]).training
    assert (own.optimizer.name, own.optimizer.learning_rate, own.schedule.name) == ("sgd", 0.02, "poly")
    assert [entry.name for entry in own.augmentation] == [
        "mirror"
    ]  # a table of optimisers has the augmentation that suits its length
    own = make_variant(plan, "v", ["training.epochs=4", 'training.augmentation=["gamma"]']).training
    assert (own.optimizer.name, [entry.name for entry in own.augmentation]) == ("adamw", ["gamma"])
    assert make_variant(plan, "v", ["training.epochs=40"]).training.optimizer == plan.training.optimizer


def test_a_variant_of_a_short_variant_keeps_its_recipe(plan: Plan) -> None:
    short = make_variant(plan, "short", ["training.epochs=4"])
    sgd = make_variant(short, "sgd", ["training.optimizer.name=sgd"])
    assert make_variant(sgd, "v", ["training.epochs=3"]).training.optimizer.name == "sgd"
    shorter = make_variant(short, "v", ["training.epochs=1", "training.iterations_per_epoch=50"]).training
    assert shorter.schedule.warmup_iterations == 5


def test_downsampling_coarsens_the_spacing(plan: Plan) -> None:
    variant = make_variant(plan, "v", ["preprocessing.downsample=2"])
    assert variant.preprocessing.spacing == (2.0, 2.0, 2.0)
    own = make_variant(plan, "v", ["preprocessing.downsample=2", "preprocessing.spacing=[3,2,2]"])
    assert own.preprocessing.spacing == (3.0, 2.0, 2.0)


def test_exceeding_the_budget_is_said(plan: Plan) -> None:
    variant = make_variant(plan, "v", ["training.batch_size=200"])
    assert variant.estimate.memory_gb > 8 and "MORE THAN" in variant.rationale["estimate"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epoch=3", "unknown field 'epoch' .did you mean 'epochs'"),
        ("trainig.epochs=3", "did you mean 'training'"),
        ("training.epochs", "expected KEY=VALUE"),
        ("training.epochs=many", "training.epochs: .*found 'many'"),
        ("training.epochs.first=1", "nothing below"),
        ("training.patch_size.3=16", "list of 3"),
        ("training.patch_size=[30,32,32]", r"training.patch_size\[0\] is 30"),
        ("training.patch_size=big", "training.patch_size"),
        ("training.optimizer.name=adamx", "did you mean 'adam"),
        ("training.loss.name=dice_cee", "did you mean 'dice_ce'"),
        ("training.loss.batch_dise=true", "did you mean 'batch_dice'"),
        ("network.architecture=unnet", "did you mean 'unet'"),
        ("network.config.strides=[[1,1,1]]", "2 stages"),
        ("name=other", "--name"),
        ("budget.memory_gb=16", "--memory"),
        ("estimate.memory_gb=1", "cannot be set"),
        ("training.seed=NaN", "training.seed"),
    ],
)
def test_mistakes_are_refused_in_one_line(plan: Plan, assignment: str, message: str) -> None:
    with pytest.raises(AutosegError, match=message) as caught:
        make_variant(plan, "v", [assignment])
    assert isinstance(caught.value, DocumentError | PlanError)
    assert "\n" not in str(caught.value)


def test_a_key_given_twice_is_refused(plan: Plan) -> None:
    with pytest.raises(DocumentError, match="twice"):
        make_variant(plan, "v", ["training.seed=1", "training.seed=2"])


def test_a_network_that_cannot_take_the_patch_is_refused(make_fingerprint: Any) -> None:
    plan = make_plan("unetr", make_fingerprint())
    with pytest.raises(PlanError, match="cannot be run at patch size"):
        make_variant(plan, "v", ["network.config.patch_size=[32,32,32]"])


def test_a_previous_stage_brings_its_channels_and_augmentations_and_takes_them_away_again(plan: Plan) -> None:
    cascade = make_variant(plan, "cascade", ["previous_stage=nnunet_lowres"])
    assert (cascade.previous_stage, cascade.num_previous_classes) == ("nnunet_lowres", 2)
    assert cascade.estimate.parameters > plan.estimate.parameters and cascade.network == plan.network
    names = [entry.name for entry in cascade.training.augmentation]
    assert names[-2:] == ["previous_morphology", "previous_component"]
    assert cascade.training.augmentation[-1].parameters["num_labels"] == 2
    back = make_variant(cascade, plan.name, ["previous_stage=null"])
    assert (back.training, back.estimate, back.previous_stage) == (plan.training, plan.estimate, None)
    strong = make_variant(plan, "v", ["previous_stage=x", "training.augmentation=da5"]).training.augmentation
    assert strong[-1].name == "previous_component" and strong[-1].parameters["probability_label"] == 1.0
    brief = make_variant(plan, "v", ["previous_stage=x", "training.epochs=2"])
    assert [entry.name for entry in brief.training.augmentation] == []


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["previous_stage=v"], "is the plan itself"),
        (['training.augmentation=["mirror", "previous_component"]'], "previous_stage is null; leave it out"),
        (["previous_stage=3"], "previous_stage: Input should be a valid string"),
    ],
)
def test_impossible_previous_stages_are_refused(plan: Plan, assignments: list[str], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        make_variant(plan, "v", assignments)


def test_a_region_that_is_written_as_no_label_cannot_be_read_back(plan: Plan) -> None:
    content = json.loads(to_text(make_variant(plan, "v", ["previous_stage=x"])))
    content["dataset"]["regions"] = {"both": {"labels": [1, 2], "value": 7}, "one": {"labels": [1], "value": 1}}
    with pytest.raises(DocumentError, match=r"region 'both' is written as 7, which is no label.*\[0, 1, 2\]"):
        parse_document(json.dumps(content), Plan, where="v")
    content["dataset"]["regions"]["both"]["value"] = 2
    assert parse_document(json.dumps(content), Plan, where="v").num_previous_classes == 2
