"""Names of plans: what they stand for, and what is refused."""

import pytest

from autoseg.errors import PlanError
from autoseg.networks import available_architectures
from autoseg.plan.recipe import find_recipe, flat_name, previous_recipe, recipe_names


def test_a_bare_architecture_is_three_dimensional() -> None:
    recipe = find_recipe("unet")
    assert (recipe.architecture, recipe.dimensions, recipe.low_resolution, recipe.budget) == ("unet", 3, False, None)
    assert recipe.memory_gb == 8.0


def test_suffixes_are_budget_and_form() -> None:
    recipe = find_recipe("nnunet_resenc_l_2d")
    assert (recipe.name, recipe.architecture, recipe.dimensions) == ("nnunet_resenc_l_2d", "nnunet_resenc", 2)
    assert recipe.budget is not None and recipe.memory_gb == recipe.budget.memory_gb == 24.0
    assert find_recipe("nnunet_resenc").budget != find_recipe("nnunet_resenc_m").budget
    assert find_recipe("attention_unet_lowres").low_resolution
    cascade = find_recipe("nnunet_resenc_m_cascade")
    assert (cascade.cascade, cascade.low_resolution, cascade.previous_stage) == (True, False, "nnunet_resenc_m_lowres")
    assert find_recipe("unet").previous_stage is None and previous_recipe("unet_lowres") is None
    assert previous_recipe("autoseg.networks.unet_cascade") == "autoseg.networks.unet_lowres"
    assert flat_name("unet_cascade") == "unet_2d"
    assert flat_name("nnunet_resenc_xl") == "nnunet_resenc_xl_2d" and flat_name("unet_lowres") == "unet_2d"


def test_modules_outside_the_package_are_recipes_too() -> None:
    recipe = find_recipe("autoseg.networks.unet_2d")
    assert (recipe.name, recipe.architecture, recipe.dimensions) == ("unet_2d", "autoseg.networks.unet", 2)


def test_every_listed_recipe_exists_and_every_architecture_is_listed() -> None:
    recipes = [find_recipe(name) for name in recipe_names()]
    assert {recipe.architecture for recipe in recipes} == set(available_architectures())
    nnunets = {"nnunet_2d", "nnunet_lowres", "nnunet_resenc_m", "nnunet_resenc_l", "nnunet_resenc_xl",
               "nnunet_cascade"}  # fmt: skip
    assert nnunets <= set(recipe_names())


@pytest.mark.parametrize(
    ("name", "message"),
    [("unnet", "did you mean 'unet'"), ("nnunet_resenc_s", "did you mean 'nnunet_resenc"),
     ("no.such_net", "no module of that name"), ("unet_m", "unknown architecture 'unet_m'")],
)  # fmt: skip
def test_unknown_names_are_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        find_recipe(name)
