"""Left and right must not be mixed."""

from typing import Any

import pytest

from autoseg.plan.plan import Plan
from autoseg.plan.planner import make_plan
from autoseg.plan.sides import mirroring_warnings, paired_labels, side_axis
from autoseg.plan.variant import make_variant


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("kidney_left", "kidney_right"),
        ("Left-Hippocampus", "Right-Hippocampus"),
        ("LeftKidney", "RightKidney"),
        ("leftkidney", "rightkidney"),
        ("l_lung", "r_lung"),
        ("lung (L)", "lung (R)"),
        ("lh.cortex", "rh.cortex"),
        ("left atrium", "right atrium"),
    ],
)
def test_pairs_are_found(left: str, right: str) -> None:
    assert paired_labels(["background", right, left, "liver"]) == [(left, right)]


@pytest.mark.parametrize(
    "names", [("Anterior", "Posterior"), ("LV", "RV"), ("left kidney", "right lung"), ("liver", "river"), ("left",)]
)
def test_other_names_are_no_pairs(names: tuple[str, ...]) -> None:
    assert paired_labels(names) == []


def test_the_axis_of_the_sides_follows_the_transposition() -> None:
    names = ("kidney_left", "kidney_right")
    assert [side_axis(names, order) for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0))] == [2, 0, 1]
    assert side_axis(("liver",), (0, 1, 2)) is None


@pytest.fixture
def paired(make_fingerprint: Any) -> Plan:
    fingerprint = make_fingerprint()
    labels = {"background": 0, "kidney_left": 1, "kidney_right": 2}
    regions = {name: {"labels": (value,), "value": value} for name, value in labels.items() if value}
    content = fingerprint.model_dump(by_alias=True) | {"labels": labels, "regions": regions}
    return make_plan("nnunet", type(fingerprint)(**content))


def test_a_plan_with_pairs_mirrors_the_other_axes(paired: Plan) -> None:
    mirror = next(entry for entry in paired.training.augmentation if entry.name == "mirror")
    assert list(mirror.parameters["axes"]) == list(paired.prediction.mirror_axes) == [0, 1]
    assert "left and right" in paired.rationale["training.augmentation"]
    assert mirroring_warnings(paired) == []


def test_mixing_sides_by_hand_is_warned_of(paired: Plan) -> None:
    place = [entry.name for entry in paired.training.augmentation].index("mirror")
    key = f"training.augmentation.{place}.axes"
    variant = make_variant(paired, "v", [f"{key}=[0,1,2]", "prediction.mirror_axes=[2]"])
    found = mirroring_warnings(variant)
    assert len(found) == 2
    assert key in found[0] and "kidney_left, kidney_right" in found[0]
    assert "prediction.mirror_axes" in found[1]


def test_quarter_turns_do_not_mix_sides(paired: Plan) -> None:
    variant = make_variant(paired, "v", ["training.augmentation=da5"])
    assert mirroring_warnings(variant) == []
    for entry in variant.training.augmentation:
        if entry.name in ("rot90", "transpose_axes", "mirror"):
            assert list(entry.parameters["axes"]) == [0, 1]
