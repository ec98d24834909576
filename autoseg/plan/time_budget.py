"""Plans that are trained in a given time: the number of epochs that fits, and with it the recipe and the schedule."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from autoseg.errors import PlanError
from autoseg.plan.plan import Plan
from autoseg.plan.variant import vary, with_estimate
from autoseg.plurals import count

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
MARGIN = 0.05
"""Part of a budget that is left empty: what was measured in a minute is not exactly what hours will bring."""

_FORM = re.compile("".join(rf"(?:(\d+){unit})?" for unit in UNITS))


@dataclass(frozen=True)
class Costs:
    """What a plan takes on a machine, in seconds.

    Attributes:
        setup: before the first epoch, beyond it.
        epoch: one epoch with its checkpoint.
        validation: to predict and score the fold's validation cases once the training is over.
    """

    setup: float
    epoch: float
    validation: float

    def total(self, epochs: int) -> float:
        """Return the seconds of a training of so many epochs."""
        return self.setup + epochs * self.epoch + self.validation


@dataclass(frozen=True)
class Fitted:
    """A plan whose training takes no more than a budget, as far as it was measured."""

    plan: Plan
    costs: Costs

    @property
    def seconds(self) -> float:
        """What it is expected to take."""
        return self.costs.total(self.plan.training.epochs)


Measure = Callable[[Plan], Costs]


def parse_time(text: str, option: str = "--time-budget") -> int:
    """Return the seconds of a time such as ``90s``, ``30m``, ``6h`` or ``1d12h``.

    Raises:
        PlanError: it is none.
    """
    found = _FORM.fullmatch(text.strip().lower())
    seconds = sum(int(part) * size for part, size in zip(found.groups(), UNITS.values()) if part) if found else 0
    if not seconds:
        raise PlanError(f"{option} {text}: is no time; write it as 90s, 30m, 6h or 1d12h")
    return seconds


def format_time(seconds: int) -> str:
    """Return a time as ``parse_time`` reads it, in the largest units: ``1d12h``."""
    parts = []
    for unit, size in UNITS.items():
        number, seconds = divmod(seconds, size)
        parts.append(f"{number}{unit}" if number else "")
    return "".join(parts)


def fitted_name(plan_name: str, budget: int) -> str:
    """Return the name of a plan that is fitted to a budget in seconds: ``unet_6h``."""
    return f"{plan_name}_{format_time(budget)}"


def lengthen(plan: Plan, name: str, epochs: int) -> Plan:
    """Return a plan under another name with so many epochs, and the recipe that suits its length."""
    return vary(plan, name, [f"training.epochs={epochs}"])


def fit_plan(plan: Plan, budget: int, spent: Callable[[], float], measure: Measure) -> Fitted:
    """Return the longest variant of a plan that is trained, validated and scored within a budget.

    A short training may have another recipe than a long one, which takes another time for an iteration. So what is
    measured is always the recipe of the length that comes out, beginning with the plan's own.

    Args:
        plan: of any length.
        budget: seconds.
        spent: returns those that have gone already.
        measure: returns what a plan costs; its number of epochs is of no account.

    Raises:
        PlanError: not even one epoch fits; the message says which budget does.
    """
    name = fitted_name(plan.name, budget)
    candidate = lengthen(plan, name, plan.training.epochs)
    while True:
        costs = measure(candidate)
        most = _most_epochs(costs, budget, spent())
        fitted = lengthen(plan, name, max(most, 1))
        if _recipe(fitted) == _recipe(candidate):
            break
        if most > candidate.training.epochs:  # a short recipe, and so quick that the training would be long
            fitted = _longest_alike(plan, candidate, most)
            break
        candidate = fitted
    if most < 1:
        raise PlanError(_explain_refusal(plan, budget, costs, spent()))
    return Fitted(with_estimate(fitted, plan), costs)


def tell_budget(fitted: Fitted, budget: int, where: str, num_cases: int) -> Plan:
    """Return the fitted plan with the story of its length; ``where`` names the machine, with a preposition."""
    costs, epochs = fitted.costs, fitted.plan.training.epochs
    sentence = (
        f"Fitted to a time budget of {format_time(budget)}: {where} an epoch takes {costs.epoch:.3g} s (measured after "
        f"a warm-up), starting {costs.setup:.3g} s, predicting and scoring {count(num_cases, 'validation case')} about "
        f"{costs.validation:.3g} s; {count(epochs, 'epoch fills', 'epochs fill')} it but for {MARGIN:.0%}."
    )
    return fitted.plan.model_copy(update={"rationale": {**fitted.plan.rationale, "training.epochs": sentence}})


def _most_epochs(costs: Costs, budget: int, spent: float) -> int:
    usable = budget * (1 - MARGIN) - spent - costs.setup - costs.validation
    return max(math.floor(usable / costs.epoch), 0)


def _recipe(plan: Plan) -> tuple[object, ...]:
    """Return what a length decides of a plan and an iteration's time depends on."""
    training = plan.training
    return training.optimizer, training.augmentation, training.schedule.name, plan.prediction.mirror_axes


def _longest_alike(plan: Plan, candidate: Plan, too_many: int) -> Plan:
    """Return the longest variant with the recipe of ``candidate``, which ``too_many`` epochs no longer have."""
    longest = candidate
    while too_many - longest.training.epochs > 1:
        middle = lengthen(plan, candidate.name, (too_many + longest.training.epochs) // 2)
        if _recipe(middle) == _recipe(candidate):
            longest = middle
        else:
            too_many = middle.training.epochs
    return longest


def _explain_refusal(plan: Plan, budget: int, costs: Costs, spent: float) -> str:
    least = math.ceil((spent + costs.total(1)) / (1 - MARGIN))
    unit = 60 if least > 300 else 10
    return (
        f"--time-budget {format_time(budget)}: too short for plan {plan.name}, of which one epoch of "
        f"{plan.training.iterations_per_epoch} iterations takes {costs.epoch:.3g} s here, measuring and starting "
        f"{spent + costs.setup:.3g} s, and predicting and scoring the validation cases about {costs.validation:.3g} s; "
        f"the smallest budget that works is {format_time(-(-least // unit) * unit)}; or take a variant with fewer "
        f"training.iterations_per_epoch"
    )
