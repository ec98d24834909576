"""What is chosen among the trials of a search."""

import pytest

from autoseg.errors import PlanError
from autoseg.tune.outcome import Result, choose_best, pareto_front, pick


def result(number: int, dice: float | None, seconds: float | None = None) -> Result:
    return Result(
        number=number,
        state="failed" if dice is None else "complete",
        values={},
        dice=dice,
        seconds=seconds,
        reason="",
        own=number == 0,
    )


TRIALS = [
    result(0, 0.80, 10.0),
    result(1, 0.90, 20.0),
    result(2, 0.85, 25.0),  # slower than 1 and worse
    result(3, None),
    result(4, 0.90, 30.0),  # as good as 1 and slower
    result(5, 0.95, 40.0),
    result(6, 0.70, 10.0),  # as fast as 0 and worse
    result(7, 0.95, 50.0),
]


def test_the_front_has_what_nothing_beats_in_both() -> None:
    assert [one.number for one in pareto_front(TRIALS)] == [0, 1, 5]
    assert pareto_front([result(0, None)]) == []


def test_of_equal_trials_the_first_is_the_best() -> None:
    best = choose_best(TRIALS)
    assert best is not None and best.number == 5
    assert choose_best([result(0, None)]) is None


def test_a_trial_is_taken_by_its_number() -> None:
    assert pick(TRIALS, 2) is TRIALS[2] and pick(TRIALS, None) is TRIALS[5]
    with pytest.raises(PlanError, match="--take 3: no trial of that number was trained to its end; these were"):
        pick(TRIALS, 3)
