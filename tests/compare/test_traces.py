"""What figures are made of: thinning and colours."""

import numpy as np

from autoseg.compare.traces import COLOURS, mark_plans, thin


def test_short_curves_are_left_alone() -> None:
    assert thin([1.0, 2.0, 3.0], [0.5, None, 0.25]) == ([1.0, 2.0, 3.0], [0.5, None, 0.25])
    assert thin([], []) == ([], [])


def test_long_curves_keep_their_end_and_their_mean(rng: np.random.Generator) -> None:
    values = rng.random(1000).tolist()
    x, y = thin([float(epoch) for epoch in range(1, 1001)], values)
    assert len(x) == len(y) == 250 and x[-1] == 1000
    assert np.allclose(y, np.reshape(values, (250, 4)).mean(axis=1), atol=1e-5)


def test_ten_plans_can_be_told_apart() -> None:
    marks = mark_plans([f"plan_{k}" for k in range(10)])
    assert len({tuple(mark.values()) for mark in marks.values()}) == 10
    assert marks["plan_0"]["color"] == COLOURS[0]
