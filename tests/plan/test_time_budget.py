"""Times as people write them, and the number of epochs that fits, with the recipe of that length."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from autoseg.errors import PlanError
from autoseg.plan.plan import Plan, read_plan
from autoseg.plan.time_budget import MARGIN, Costs, fit_plan, fitted_name, format_time, parse_time, tell_budget

PLANS = Path(__file__).resolve().parents[2] / "plans" / "Hippocampus"


@dataclass
class Machine:
    """Takes other times for long, short and brief trainings; notes which it measured."""

    long: float = 60.0
    short: float = 60.0
    brief: float = 60.0
    measured: list[str] = field(default_factory=list)

    def measure(self, plan: Plan) -> Costs:
        long = plan.training.optimizer.name == "sgd"
        self.measured.append("long" if long else "short" if plan.training.augmentation else "brief")
        return Costs(setup=10.0, epoch=getattr(self, self.measured[-1]), validation=100.0)


@pytest.fixture
def plan() -> Plan:
    """A full-length plan: 1000 epochs of 250 iterations by SGD."""
    return read_plan(PLANS / "nnunet.json")


@pytest.mark.parametrize(
    ("text", "seconds", "canonical"),
    [("90s", 90, "1m30s"), ("30m", 1800, "30m"), ("6h", 21600, "6h"),
     ("36H", 129600, "1d12h"), ("1d12h", 129600, "1d12h")],
)  # fmt: skip
def test_times(text: str, seconds: int, canonical: str) -> None:
    assert parse_time(text) == seconds
    assert format_time(seconds) == canonical
    assert fitted_name("unet", seconds) == f"unet_{canonical}"


@pytest.mark.parametrize("text", ["", "6", "h", "0h", "6 hours", "12h1d", "-1h", "1.5h"])
def test_no_times(text: str) -> None:
    with pytest.raises(PlanError, match="is no time; write it as 90s, 30m, 6h or 1d12h"):
        parse_time(text)


@pytest.mark.parametrize("budget", [parse_time("6h"), parse_time("1d12h")])
def test_the_longest_training_that_fits(plan: Plan, budget: int) -> None:
    machine = Machine()
    fitted = fit_plan(plan, budget, lambda: 30.0, machine.measure)
    training = fitted.plan.training
    usable = budget * (1 - MARGIN) - 30
    assert fitted.seconds <= usable < fitted.seconds + 60
    assert machine.measured == ["long"]
    assert training.model_copy(update={"epochs": plan.training.epochs}) == plan.training
    assert fitted.plan.name == fitted_name("nnunet", budget)


def test_a_short_training_is_measured_with_its_own_recipe(plan: Plan) -> None:
    machine = Machine(short=40.0)
    fitted = fit_plan(plan, 1500, lambda: 0.0, machine.measure)
    assert machine.measured == ["long", "short"]
    assert fitted.plan.training.optimizer.name == "adamw"
    assert fitted.plan.training.epochs == (1500 * 0.95 - 110) // 40


def test_a_short_recipe_stays_within_its_lengths(plan: Plan) -> None:
    fitted = fit_plan(plan, 2000, lambda: 0.0, Machine(short=10.0).measure)
    assert fitted.plan.training.optimizer.name == "adamw"
    assert fitted.plan.training.epochs == 39  # 40 epochs of 250 iterations are a long training


def test_what_fits_the_briefest_recipe_only_is_not_refused(plan: Plan) -> None:
    machine = Machine(long=900.0, short=500.0, brief=100.0)
    fitted = fit_plan(plan, 600, lambda: 0.0, machine.measure)
    assert machine.measured == ["long", "brief"]
    assert fitted.plan.training.epochs == 3 and fitted.seconds <= 600


def test_too_small_a_budget_names_the_smallest_that_works(plan: Plan) -> None:
    machine = Machine(long=300.0, short=300.0, brief=200.0)
    with pytest.raises(PlanError) as caught:
        fit_plan(plan, 300, lambda: 20.0, machine.measure)
    text = str(caught.value)
    assert text.startswith("--time-budget 5m: too short for plan nnunet") and "\n" not in text
    least = re.search(r"smallest budget that works is (\w+)", text)
    assert least
    assert fit_plan(plan, parse_time(least[1]), lambda: 20.0, machine.measure).plan.training.epochs == 1


def test_the_story_is_in_the_rationale(plan: Plan) -> None:
    fitted = fit_plan(plan, 21600, lambda: 30.0, Machine().measure)
    story = tell_budget(fitted, 21600, "on a machine", 52).rationale["training.epochs"]
    assert story.startswith("Fitted to a time budget of 6h: on a machine an epoch takes 60 s")
    assert f"{fitted.plan.training.epochs} epochs fill it" in story and "52 validation cases about 100 s" in story
    training = fitted.plan.training.model_copy(update={"epochs": 1})
    brief = replace(fitted, plan=fitted.plan.model_copy(update={"training": training}))
    story = tell_budget(brief, 90, "on a machine", 1).rationale["training.epochs"]
    assert "1 validation case about" in story and "1 epoch fills it" in story
