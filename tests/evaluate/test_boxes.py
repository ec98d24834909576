"""Boxes around masks."""

import numpy as np
import pytest

from autoseg.evaluate.boxes import class_boxes, common_box, occupied_box


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32])
def test_the_box_is_the_smallest_that_holds_everything(dtype: type, rng: np.random.Generator) -> None:
    for _ in range(10):
        values = (rng.random((7, 9, 8)) < 0.01).astype(dtype)
        values[rng.integers(7), rng.integers(9), rng.integers(8)] = 1
        box, where = occupied_box(values), np.argwhere(values)
        assert box == tuple(slice(low, high + 1) for low, high in zip(where.min(0), where.max(0)))


def test_nothing_has_no_box() -> None:
    assert occupied_box(np.zeros((3, 4, 5))) is None
    assert common_box([None, None], (3, 4, 5)) is None


def test_nan_and_negative_values_are_something() -> None:
    values = np.zeros((3, 4, 5))
    values[1, 2, 3], values[2, 2, 3] = np.nan, -1
    assert occupied_box(values) == (slice(1, 3), slice(2, 3), slice(3, 4))


def test_a_common_box_holds_all_and_is_no_slice_unless_the_image_is_one() -> None:
    single = (slice(0, 1), slice(3, 4), slice(4, 5))
    assert common_box([single, None], (1, 4, 9)) == (slice(0, 1), slice(2, 4), slice(4, 6))
    other = (slice(0, 1), slice(0, 2), slice(8, 9))
    assert common_box([single, other], (1, 4, 9)) == (slice(0, 1), slice(0, 4), slice(4, 9))


def test_each_class_has_its_box_in_each_map() -> None:
    first, second = np.zeros((2, 4, 5, 6), dtype=np.int16)
    first[1, 2:4, 3], second[3, 4, 5], first[0, 0, 0], second[0] = 3, 1, -1, -1
    boxes = class_boxes(first, second)
    absent = [None, None]
    assert boxes[0] == boxes[2] == absent
    assert boxes[3] == [(slice(1, 2), slice(2, 4), slice(3, 4)), None]
    assert boxes[1] == [None, (slice(3, 4), slice(4, 5), slice(5, 6))]
    assert class_boxes(np.zeros((2, 2, 2), np.int16), np.full((2, 2, 2), -1, np.int16)) == [absent]
