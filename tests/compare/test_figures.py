"""Where the labels of plans stand that cost and score nearly the same."""

from types import SimpleNamespace
from typing import Any

from autoseg.compare.figures import _labels_below
from autoseg.compare.summary import FOREGROUND, PRIMARY


def make_point(name: str, cost: float, dice: float) -> Any:
    return SimpleNamespace(name=name, scores={FOREGROUND: {PRIMARY: SimpleNamespace(mean=dice)}}), cost


def test_neighbours_take_turns_above_and_below() -> None:
    points = [
        make_point("c", 22, 0.841),
        make_point("a", 20, 0.84),
        make_point("b", 21, 0.84),
        make_point("d", 60, 0.5),
    ]
    assert _labels_below(points) == {"b"}


def test_plans_far_apart_stay_above() -> None:
    assert _labels_below([make_point("a", 20, 0.84), make_point("b", 21, 0.5), make_point("c", 60, 0.84)]) == set()
    assert _labels_below([make_point("alone", 1, 0.5)]) == set()
