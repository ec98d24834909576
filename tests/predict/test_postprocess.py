"""Steps of postprocessing, on small maps whose result is plain to see."""

import numpy as np
import pytest

from autoseg.data.labels import Labels, Region
from autoseg.predict.postprocess import Step, postprocess, value_below

LABELS = Labels.from_names({"background": 0, "liver": 1, "tumour": 2})
NESTED = Labels(
    labels={"background": 0, "edema": 1, "necrosis": 2, "enhancing": 4},
    regions={
        "whole": Region(labels=(1, 2, 4), value=1),
        "core": Region(labels=(2, 4), value=2),
        "enhancing": Region(labels=(4,), value=4),
    },
)
SPACING = (10.0, 10.0, 10.0)  # a voxel is a millilitre


def step(region: str, action: str, volume_ml: float | None = None) -> Step:
    return Step.model_validate(
        {"region": region, "action": action, "volume_ml": volume_ml, "dice_before": 0.0, "dice_after": 0.0}
    )


def line(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8)[None, None]


@pytest.mark.parametrize(
    ("action", "volume", "before", "after"),
    [
        ("keep_largest", None, (1, 1, 0, 1, 0, 2), (1, 1, 0, 0, 0, 2)),
        ("keep_largest", None, (0, 0, 0, 2), (0, 0, 0, 2)),
        ("remove_small", 2.0, (1, 1, 0, 1, 0, 2), (1, 1, 0, 0, 0, 2)),
        ("remove_small", 3.0, (1, 1, 0, 1, 0, 2), (0, 0, 0, 0, 0, 2)),
        ("remove_small", 0.5, (1, 1, 0, 1, 0, 2), (1, 1, 0, 1, 0, 2)),
    ],
)
def test_components_are_removed(action, volume, before, after) -> None:
    given = line(*before)
    found = postprocess(given, (step("liver", action, volume),), LABELS, SPACING)
    np.testing.assert_array_equal(found, line(*after))
    np.testing.assert_array_equal(given, line(*before))  # not changed itself


@pytest.mark.parametrize(("spacing", "kept"), [((5.0, 10.0, 10.0), 3), ((20.0, 10.0, 10.0), 1)])
def test_small_is_a_volume_and_not_a_number_of_voxels(spacing: tuple[float, ...], kept: int) -> None:
    """Of lines of 1, 2 and 3 voxels those of 1.5 ml and more stay: 3 voxels of half a millilitre, one of two."""
    found = postprocess(line(1, 0, 1, 1, 0, 1, 1, 1), (step("liver", "remove_small", 1.5),), LABELS, spacing)
    lengths = {1: line(1, 0, 1, 1, 0, 1, 1, 1), 3: line(0, 0, 0, 0, 0, 1, 1, 1)}
    np.testing.assert_array_equal(found, lengths[kept])


def test_holes_are_filled_with_the_region_but_other_labels_in_them_stay() -> None:
    values = np.ones((5, 5, 5), dtype=np.uint8)
    values[2, 2, 1:3] = 0, 2
    values[0, 0, 0] = 0  # no hole: open to the outside
    found = postprocess(np.pad(values, 1), (step("liver", "fill_holes"),), LABELS, SPACING)[1:-1, 1:-1, 1:-1]
    assert found[2, 2, 1] == 1 and found[2, 2, 2] == 2 and found[0, 0, 0] == 0


def test_voxels_that_touch_by_a_corner_are_one_component() -> None:
    values = np.zeros((3, 3, 3), dtype=np.uint8)
    values[0, 0, 0] = values[1, 1, 1] = 1
    np.testing.assert_array_equal(postprocess(values, (step("liver", "keep_largest"),), LABELS, SPACING), values)


def test_what_is_taken_from_an_inner_region_stays_in_the_outer_one() -> None:
    assert [value_below(name, NESTED) for name in NESTED.regions] == [0, 1, 2]
    found = postprocess(line(1, 2, 2, 1, 4, 1), (step("core", "keep_largest"),), NESTED, SPACING)
    np.testing.assert_array_equal(found, line(1, 2, 2, 1, 1, 1))
    found = postprocess(line(4, 2, 4, 4), (step("enhancing", "remove_small", 2.0),), NESTED, SPACING)
    np.testing.assert_array_equal(found, line(2, 2, 4, 4))
    found = postprocess(line(4, 0, 2, 1), (step("whole", "keep_largest"),), NESTED, SPACING)
    np.testing.assert_array_equal(found, line(0, 0, 2, 1))


def test_steps_follow_each_other() -> None:
    steps = step("liver", "remove_small", 2.0), step("tumour", "keep_largest")
    found = postprocess(line(1, 0, 1, 1, 0, 2, 0, 2, 2), steps, LABELS, SPACING)
    np.testing.assert_array_equal(found, line(0, 0, 1, 1, 0, 0, 0, 2, 2))
