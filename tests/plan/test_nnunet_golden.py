"""The plans of nnU-Net's own recipes are what nnU-Net 2.8.1 itself plans, slot for slot, from its own files."""

from collections.abc import Callable
from typing import Any

import pytest

from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.networks import load_architecture
from autoseg.plan.planner import decide, normalization_of, workload_of
from autoseg.plan.recipe import find_recipe

SCHEMES = {
    "CTNormalization": "ct", "ZScoreNormalization": "zscore", "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale", "RGBTo01Normalization": "rgb",
}  # fmt: skip

RECIPES = {
    "ExperimentPlanner": "nnunet", "ResEncUNetPlanner": "nnunet_resenc", "nnUNetPlannerResEncM": "nnunet_resenc_m",
    "nnUNetPlannerResEncL": "nnunet_resenc_l", "nnUNetPlannerResEncXL": "nnunet_resenc_xl",
}  # fmt: skip

CONFIGURATIONS = {"2d": "_2d", "3d_fullres": "", "3d_lowres": "_lowres"}


@pytest.fixture(autouse=True)
def no_network_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*arguments: Any) -> None:
        raise AssertionError("a network was built")

    for name in ("nnunet", "nnunet_resenc"):
        monkeypatch.setattr(load_architecture(name), "build", build)


def _slots(name: str, fingerprint: Fingerprint) -> dict[str, Any]:
    """Plan with autoseg; return the slots under nnU-Net's names."""
    recipe = find_recipe(name)
    outcome = decide(recipe, workload_of(recipe, fingerprint), fingerprint, memory_gb=recipe.memory_gb)
    config = outcome.choice.fit.config.model_dump(mode="json")
    normalization = [normalization_of(fingerprint, channel) for channel in range(len(fingerprint.channels))]
    return {
        "transpose_forward": list(outcome.grid.transpose),
        "spacing": list(outcome.grid.network_spacing),
        "median_image_size_in_voxels": list(outcome.grid.network_shape),
        "patch_size": list(outcome.choice.fit.patch_size),
        "batch_size": outcome.choice.batch_size,
        "n_stages": len(config["strides"]),
        **config,
        "normalization_schemes": [entry["scheme"] for entry in normalization],
        "use_mask_for_norm": [entry["use_mask"] for entry in normalization],
        "batch_dice": outcome.batch_dice,
    }


def test_every_slot_equals_nnunets(
    golden: list[dict[str, Any]], read_entry: Callable[[dict[str, Any]], Fingerprint]
) -> None:
    compared = 0
    for entry in golden:
        fingerprint = read_entry(entry)
        for planner, plans in entry["plans"].items():
            for configuration, suffix in CONFIGURATIONS.items():
                name, where = RECIPES[planner] + suffix, f"{entry['name']}, {planner}, {configuration}"
                if configuration not in plans:
                    with pytest.raises(PlanError, match="2-D|low resolution"):
                        _slots(name, fingerprint)
                    continue
                expected = {"transpose_forward": plans["transpose_forward"], **plans[configuration]}
                expected["normalization_schemes"] = [SCHEMES[one] for one in expected["normalization_schemes"]]
                found = _slots(name, fingerprint)
                assert {key: found[key] for key in expected} == expected, where
                compared += 1
    assert compared > 240


def test_a_cascade_is_planned_where_nnunet_adds_one_and_is_its_plan_at_full_resolution(
    golden: list[dict[str, Any]], read_entry: Callable[[dict[str, Any]], Fingerprint]
) -> None:
    """nnU-Net adds 3d_cascade_fullres where it keeps 3d_lowres, and it inherits all of 3d_fullres."""
    kept = 0
    for entry in golden:
        plans, fingerprint = entry["plans"]["ExperimentPlanner"], read_entry(entry)
        if "3d_lowres" not in plans:
            with pytest.raises(PlanError, match="2-D|low resolution"):
                _slots("nnunet_cascade", fingerprint)
            continue
        assert _slots("nnunet_cascade", fingerprint) == _slots("nnunet", fingerprint)
        assert find_recipe("nnunet_cascade").previous_stage == "nnunet_lowres"
        kept += 1
    assert 5 < kept < len(golden)


def test_a_budget_scales_with_the_memory_asked_for(make_fingerprint: Any) -> None:
    fingerprint = make_fingerprint(spacing=(1.0, 0.77, 0.77), shape=(432, 512, 512), num_cases=20)
    recipe = find_recipe("nnunet_resenc_m")
    workload = workload_of(recipe, fingerprint)
    small, large = (decide(recipe, workload, fingerprint, memory_gb=gb).choice.fit for gb in (8.0, 24.0))
    assert small.patch_size == (128, 128, 128)
    assert large.patch_size == (160, 224, 192)  # as nnU-Net's L, whose budget at 24 GB is 3 % larger
