"""The plan ``nnunet`` is what nnU-Net 2.8.1 itself plans, slot for slot."""

import json
from pathlib import Path
from typing import Any

import pytest

from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.networks import load_architecture
from autoseg.plan.memory import Workload
from autoseg.plan.planner import choose_sizes, normalization_of
from autoseg.plan.spacing import choose_grid

SCHEMES = {"CTNormalization": "ct", "ZScoreNormalization": "zscore", "NoNormalization": "none"}


@pytest.fixture
def golden(real_data: Path) -> list[dict[str, Any]]:
    path = real_data.parent / "golden" / "nnunet_plans.json"
    if not path.is_file():
        pytest.skip("nnU-Net's own plans are not beside this checkout (../shared/golden)")
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def _fingerprint(entry: dict[str, Any], make_fingerprint: Any) -> Fingerprint:
    measured, dataset = entry["fingerprint"], entry["dataset"]
    fingerprint: Fingerprint = make_fingerprint(
        spacing=measured["spacings"],
        shape=measured["shapes_after_crop"],
        channels=dataset["channel_names"],
        num_labels=len(dataset["labels"]),
        num_training=dataset["num_training"],
        relative_size=measured["median_relative_size_after_cropping"],
    )
    return fingerprint


def _slots(fingerprint: Fingerprint) -> dict[str, Any]:
    """Plan with autoseg; return the slots under nnU-Net's names."""
    grid = choose_grid(fingerprint)
    workload = Workload(
        architecture=load_architecture("nnunet"), in_channels=1, out_channels=2, precision="bf16", optimizer="sgd"
    )
    choice = choose_sizes(workload, grid, fingerprint, memory_gb=8.0)
    config = choice.fit.config.model_dump(mode="json")
    normalization = [normalization_of(fingerprint, channel) for channel in range(len(fingerprint.channels))]
    return {
        "transpose_forward": list(grid.transpose),
        "spacing": list(grid.spacing),
        "median_image_size_in_voxels": list(grid.median_shape),
        "patch_size": list(choice.fit.patch_size),
        "batch_size": choice.batch_size,
        "n_stages": len(config["strides"]),
        **config,
        "normalization_schemes": [entry["scheme"] for entry in normalization],
        "use_mask_for_norm": [entry["use_mask"] for entry in normalization],
        "batch_dice": False,
    }


def test_every_slot_equals_nnunets(golden: list[dict[str, Any]], make_fingerprint: Any) -> None:
    assert len(golden) > 20
    for entry in golden:
        plans = entry["plans"]["ExperimentPlanner"]
        fingerprint = _fingerprint(entry, make_fingerprint)
        if "3d_fullres" not in plans:
            with pytest.raises(PlanError, match="2-D"):
                choose_grid(fingerprint)
            continue
        expected = {"transpose_forward": plans["transpose_forward"], **plans["3d_fullres"]}
        expected["normalization_schemes"] = [SCHEMES[name] for name in expected["normalization_schemes"]]
        if "3d_lowres" in plans:
            expected["batch_dice"] = False  # nnU-Net's True belongs to its cascade, which autoseg does not plan
        found = _slots(fingerprint)
        assert {key: found[key] for key in expected} == expected, entry["name"]
