"""What a plan's name stands for: an architecture, the number of axes it sees, the resolution, and a named budget.

A name is ARCHITECTURE[_BUDGET][_2d or _lowres or _cascade]: ``unet``, ``nnunet_2d``, ``nnunet_resenc_l_lowres``.
"""

from dataclasses import dataclass
from typing import Literal

from autoseg.components import is_outside_component
from autoseg.errors import PlanError, nearest
from autoseg.networks import FeatureMapBudget, available_architectures, dimensions_of, load_architecture
from autoseg.plan import rules

FLAT, COARSE, CASCADE = "_2d", "_lowres", "_cascade"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is to be planned.

    Attributes:
        name: of the recipe, and of its plan.
        architecture: a file of autoseg/networks, or the dotted path of a module outside.
        budget: nnU-Net's closed formula, or None where memory is measured.
        dimensions: 2 for slices, 3 for volumes.
        low_resolution: whether the spacing is coarsened until a patch shows a quarter of the image.
        cascade: whether it is the second stage, at full resolution, after its own plan at low resolution.
    """

    name: str
    architecture: str
    budget: FeatureMapBudget | None = None
    dimensions: Literal[2, 3] = 3
    low_resolution: bool = False
    cascade: bool = False

    @property
    def previous_stage(self) -> str | None:
        """The name of the plan whose segmentation it sees."""
        return self.name.removesuffix(CASCADE) + COARSE if self.cascade else None

    @property
    def memory_gb(self) -> float:
        """The memory that is planned for unless another is asked for."""
        return self.budget.memory_gb if self.budget else rules.DEFAULT_MEMORY_GB


def find_recipe(name: str) -> Recipe:
    """Return what a plan's name stands for.

    Raises:
        PlanError: there is no such architecture or budget, or the architecture cannot be built in 2-D.
    """
    suffix = next((one for one in (FLAT, COARSE, CASCADE) if name.endswith(one)), "")
    architecture, key = _split_budget(name.removesuffix(suffix))
    module = load_architecture(architecture)
    wanted: Literal[2, 3] = 2 if suffix == FLAT else 3
    if wanted not in dimensions_of(module):
        raise PlanError(f"{name}: {architecture} has no form in {wanted}-D; it is planned in {dimensions_of(module)}-D")
    budgets: dict[str, FeatureMapBudget] = getattr(module, "BUDGETS", {})
    return Recipe(
        name=name.rsplit(".", 1)[-1],
        architecture=architecture,
        budget=budgets.get(key),
        dimensions=wanted,
        low_resolution=suffix == COARSE,
        cascade=suffix == CASCADE,
    )


def recipe_names() -> list[str]:
    """Return the names of the plans in 3-D of every architecture and named budget, and nnU-Net's other three plans.

    Any other architecture's ``_2d``, ``_lowres`` and ``_cascade`` can be asked for by name as well.
    """
    names = []
    for architecture in available_architectures():
        budgets = getattr(load_architecture(architecture), "BUDGETS", {"": None})
        names += [architecture + (f"_{key}" if key else "") for key in budgets if key or len(budgets) == 1]
    return [*names, "nnunet" + FLAT, "nnunet" + COARSE, "nnunet" + CASCADE]


def previous_recipe(name: str) -> str | None:
    """Return the recipe of the first stage of a cascade, or None where the recipe is none."""
    return name.removesuffix(CASCADE) + COARSE if find_recipe(name).cascade else None


def flat_name(name: str) -> str | None:
    """Return the name of a recipe's counterpart in 2-D, or None if it has none."""
    recipe = find_recipe(name)
    if recipe.dimensions == 2:
        return name
    has_one = 2 in dimensions_of(load_architecture(recipe.architecture))
    return name.removesuffix(COARSE).removesuffix(CASCADE) + FLAT if has_one else None


def _split_budget(stem: str) -> tuple[str, str]:
    """Return the architecture and the budget's key of a name without its last suffix."""
    if _is_architecture(stem):
        return stem, ""
    architecture, _, key = stem.rpartition("_")
    if architecture and _is_architecture(architecture):
        known = getattr(load_architecture(architecture), "BUDGETS", {})
        if key in known:
            return architecture, key
    if "." in stem:
        load_architecture(stem)  # raises, and says what to do
    names = sorted({*recipe_names(), *available_architectures()})
    raise PlanError(
        f"unknown architecture {stem!r}{nearest(stem, names)}; available: {', '.join(names)}; each also with "
        f"{COARSE} and {CASCADE}, and with {FLAT} where it can be built in 2-D"
    )


def _is_architecture(name: str) -> bool:
    return is_outside_component(name) if "." in name else name in available_architectures()
