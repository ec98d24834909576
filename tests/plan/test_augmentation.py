"""Recipes of augmentations, and what they are adapted to."""

import json
from typing import Any

import pytest

from autoseg.augment._pipeline import Pipeline
from autoseg.errors import DocumentError
from autoseg.plan.augmentation import RECIPES, Setting, adapt, augmentation_entry, make_recipe, rotation_degrees
from autoseg.plan.plan import Plan
from autoseg.plan.planner import make_plan
from autoseg.plan.variant import make_variant

CUBE, FLAT, SLICE, LONG = Setting((64, 64, 64)), Setting((16, 64, 64)), Setting((64, 64)), Setting((64, 128))


def names_of(entries: Any) -> list[str]:
    return [entry["name"] if isinstance(entry, dict) else entry.name for entry in entries]


def test_the_default_is_nnunets_in_its_order() -> None:
    entries = make_recipe("nnunet", CUBE)
    assert names_of(entries) == [
        "spatial", "gaussian_noise", "gaussian_blur", "brightness", "contrast", "low_resolution", "gamma", "gamma",
        "mirror",
    ]  # fmt: skip
    gammas = [(entry["invert"], entry["probability"]) for entry in entries if entry["name"] == "gamma"]
    assert gammas == [(True, 0.1), (False, 0.3)]


def test_the_strong_recipe_is_da5_in_its_order() -> None:
    assert names_of(make_recipe("da5", CUBE)) == [
        "spatial", "rot90", "transpose_axes", "one_of", "gaussian_noise", "additive_brightness", "one_of",
        "low_resolution", "gamma", "gamma", "mirror", "blank_rectangle", "brightness_gradient", "local_gamma",
        "sharpening",
    ]  # fmt: skip
    assert "rot90" not in names_of(make_recipe("da5", Setting((40, 56, 48))))


@pytest.mark.parametrize("setting", [CUBE, FLAT, SLICE, LONG])
@pytest.mark.parametrize("word", RECIPES)
def test_every_recipe_can_be_run(word: str, setting: Setting) -> None:
    entries = json.loads(json.dumps(make_recipe(word, setting)))
    Pipeline([(entry.pop("name"), entry) for entry in entries])


def test_rotations_suit_the_form() -> None:
    assert [rotation_degrees(one)[0] for one in (CUBE, FLAT, SLICE, LONG)] == [30, 180, 180, 15]
    assert [rotation_degrees(one)[1] for one in (CUBE, FLAT, SLICE, LONG)] == [30, 0, 0, 0]
    assert rotation_degrees(Setting((16, 64, 64), side_axis=2))[0] == 30
    assert rotation_degrees(Setting((16, 64, 64), side_axis=0))[0] == 180


@pytest.mark.parametrize(("patch_size", "flat"), [((20, 64, 60), True), ((20, 60, 60), False), ((22, 64, 60), False)])
def test_a_patch_is_flat_above_nnunets_threshold_of_three(patch_size: tuple[int, ...], flat: bool) -> None:
    assert Setting(patch_size).in_plane == flat


@pytest.mark.parametrize(
    ("setting", "in_plane", "mirrored"),
    [(CUBE, [0, 1, 2], [0, 1, 2]), (FLAT, [1, 2], [0, 1, 2]), (SLICE, [1, 2], [1, 2])],
)
def test_axes_suit_the_form(setting: Setting, in_plane: list[int], mirrored: list[int]) -> None:
    by_name = {entry["name"]: entry for entry in make_recipe("nnunet", setting)}
    assert by_name["spatial"]["scaling_axes"] == by_name["low_resolution"]["axes"] == in_plane
    assert by_name["mirror"]["axes"] == mirrored


def test_masked_channels_are_masked_last() -> None:
    entries = make_recipe("da5", Setting((64, 64, 64), masked=(1, 2)))
    assert entries[-1] == {"name": "mask", "channels": [1, 2]}
    assert make_recipe("none", Setting((64, 64, 64), masked=(1,))) == []


def test_a_recipe_follows_another_setting_and_what_was_set_by_hand_stays() -> None:
    masked = Setting((16, 64, 64), masked=(0,))
    for word in RECIPES:
        assert adapt(make_recipe(word, CUBE), CUBE, masked) == make_recipe(word, masked)
    own = [augmentation_entry("spatial", CUBE, scaling=[0.9, 1.1]), augmentation_entry("mirror", CUBE, axes=[2])]
    expected = [augmentation_entry("spatial", FLAT, scaling=[0.9, 1.1]), {**own[1]}]
    assert adapt(own, CUBE, FLAT) == expected


@pytest.fixture
def plan(make_fingerprint: Any) -> Plan:
    return make_plan("nnunet", make_fingerprint())


@pytest.mark.parametrize("word", RECIPES)
def test_a_variant_names_a_recipe_in_one_word(plan: Plan, word: str) -> None:
    variant = make_variant(plan, "v", [f"training.augmentation={word}"])
    expected = make_recipe(word, Setting(plan.training.patch_size))
    assert [{"name": e.name, **e.parameters} for e in variant.training.augmentation] == expected
    assert f'"{word}" by hand' in variant.rationale["training.augmentation"]


@pytest.mark.parametrize("flip", [False, True])
def test_a_named_recipe_suits_the_patch_that_is_set_with_it(plan: Plan, flip: bool) -> None:
    assignments = ["training.augmentation=da5", "training.patch_size=[16,64,64]"]
    variant = make_variant(plan, "v", assignments[:: -1 if flip else 1])
    assert [{"name": e.name, **e.parameters} for e in variant.training.augmentation] == make_recipe("da5", FLAT)


def test_mistakes_are_told(plan: Plan) -> None:
    with pytest.raises(DocumentError, match="unknown recipe 'da'.*known: nnunet, da5, none"):
        make_variant(plan, "v", ["training.augmentation=da"])
    with pytest.raises(DocumentError, match="patch_size"):
        make_variant(plan, "v", ["training.augmentation=da5", "training.patch_size=big"])


def test_masking_follows_the_fingerprint(make_fingerprint: Any) -> None:
    plan = make_plan("nnunet", make_fingerprint(channels=("CT", "PET"), relative_size=0.5))
    assert plan.training.augmentation[-1].name == "mask"
    assert list(plan.training.augmentation[-1].parameters["channels"]) == [1]
