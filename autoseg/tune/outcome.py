"""What a study has found: how its trials ended, the best of them, and the plan that this one becomes."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from autoseg.errors import PlanError
from autoseg.plan.plan import Plan
from autoseg.plan.story import differences
from autoseg.plurals import count
from autoseg.tune.candidate import make_candidate
from autoseg.tune.study import OWN, REASON, Search
from autoseg.tune.values import decode

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

State = Literal["complete", "pruned", "too large", "failed", "running"]
STORY = "name"
"""Where a tuned plan has its story, in the rationale: only plans that a search has made have a reason there."""

EXCESS = "needs "
"""How the reason of a trial begins that was too large to be trained."""

WORDS: dict[State, str] = {
    "complete": "trained to the end",
    "pruned": "stopped early",
    "too large": "too large for the memory",
    "failed": "failed",
    "running": "under way",
}
DERIVED = ("name", "estimate.memory_gb", "estimate.parameters", "estimate.flops_per_iteration")


@dataclass(frozen=True)
class Result:
    """One trial.

    Attributes:
        dice: of a trial that was trained to its end. seconds: that its training took, likewise.
        own: whether it is the plan itself.
    """

    number: int
    state: State
    values: dict[str, Any]
    dice: float | None
    seconds: float | None
    reason: str
    own: bool


def gather_results(search: Search) -> list[Result]:
    """Return the trials of a study that have begun, in their order."""
    from optuna.trial import TrialState

    trials = search.study.get_trials(deepcopy=False)
    return [_describe(search, one) for one in trials if one.state != TrialState.WAITING]


def _describe(search: Search, trial: "FrozenTrial") -> Result:
    reason = str(trial.user_attrs.get(REASON, ""))
    states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    state = states[trial.state.name]
    if state == "pruned" and reason.startswith(EXCESS):
        state = "too large"
    done = state == "complete"
    return Result(
        number=trial.number,
        state=state,
        values=decode(search.space, trial.params),
        dice=trial.values[0] if done else None,
        seconds=trial.user_attrs.get("seconds") if done else None,
        reason=reason,
        own=bool(trial.user_attrs.get(OWN)),
    )


def choose_best(results: list[Result]) -> Result | None:
    """Return the trial with the highest Dice, of equal ones the first; None if none was trained to the end."""
    done = [one for one in results if one.dice is not None]
    return max(done, key=lambda one: (one.dice or 0.0, -one.number), default=None)


def pareto_front(results: list[Result]) -> list[Result]:
    """Return the trials than which no other is both as good and as fast, and better in one; the fastest first."""
    done = sorted(
        (one for one in results if one.dice is not None), key=lambda one: (one.seconds or 0.0, -(one.dice or 0))
    )
    front, best = [], -math.inf
    for one in done:
        if (one.dice or 0.0) > best:
            front.append(one)
            best = one.dice or 0.0
    return front


def count_states(results: list[Result]) -> str:
    """Return how the trials ended, in words."""
    counts = Counter(one.state for one in results)
    return ", ".join(f"{counts[state]} {told}" for state, told in WORDS.items() if counts[state])


def pick(results: list[Result], number: int | None) -> Result | None:
    """Return the trial of that number, or by default the best.

    Raises:
        PlanError: there is no such trial, or it was not trained to its end.
    """
    if number is None:
        return choose_best(results)
    done = [one.number for one in results if one.dice is not None]
    if number not in done:
        raise PlanError(
            f"--take {number}: no trial of that number was trained to its end; these were: {done or 'none'}"
        )
    return next(one for one in results if one.number == number)


def make_tuned_plan(search: Search, plan: Plan, chosen: Result, results: list[Result], name: str) -> Plan:
    """Return the plan of a trial under a name of its own, at the full length of ``plan``, with its story."""
    tuned = make_candidate(plan, name, chosen.values)
    rationale = {
        key: text if plan.rationale.get(key) == text else text.replace(" by hand", " by autoseg_tune")
        for key, text in tuned.rationale.items()
    }
    rationale[STORY] = tell_story(search, plan, chosen, results)
    return tuned.model_copy(update={"rationale": rationale})


def tell_result(plan: Plan, chosen: Result | None, results: list[Result]) -> str:
    """Return in one sentence what came out."""
    if chosen is None:
        reasons = Counter(one.reason for one in results if one.reason)
        why = f"; most often: {reasons.most_common(1)[0][0]}" if reasons else ""
        return f"No trial was trained to its end{why}."
    own = next((one for one in results if one.own and one.dice is not None), None)
    if chosen.own:
        return f"Nothing better than {plan.name} itself was found: its Dice is {chosen.dice:.4f}."
    against = f"; {plan.name} itself has {own.dice:.4f}" if own else ""
    return f"Trial {chosen.number} has a Dice of {chosen.dice:.4f}{against}."


def tell_story(search: Search, plan: Plan, chosen: Result, results: list[Result]) -> str:
    """Return where a tuned plan comes from, and what its Dice is worth."""
    settings = search.settings
    own = next((one for one in results if one.own and one.dice is not None), None)
    against = f" against {own.dice:.4f} of {plan.name} itself" if own else ""
    sampler = (
        f"{search.study.study_name}, sampler {search.sampler}, {count(len(results), 'trial')}: {count_states(results)}"
    )
    length = (
        ""
        if settings.epochs == plan.training.epochs
        else (f" The trials had {count(settings.epochs, 'epoch')} and this plan has {plan.training.epochs}.")
    )
    return (
        f"Trial {chosen.number} of a search around {plan.name} (study {sampler}) on fold {settings.fold}: Dice of its "
        f"validation {settings.score} {chosen.dice:.4f}{against}.{length} It was chosen on that fold, which "
        f"flatters it: compare the two on other folds."
    )


def tell_changes(plan: Plan, variant: Plan) -> list[tuple[str, str, str]]:
    """Return field, old and new value of what was changed, without what follows."""
    return [row for row in differences(plan, variant) if row[0] not in DERIVED]
