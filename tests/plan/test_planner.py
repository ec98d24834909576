"""Whole plans: complete, explained, within the budget."""

from pathlib import Path
from typing import Any

import pytest

from autoseg.data.dataset import find_dataset
from autoseg.data.workspace import Workspace
from autoseg.documents import content_hash, parse_document, read_document, to_text, write_document
from autoseg.errors import DocumentError, PlanError
from autoseg.fingerprint.extract import extract_fingerprint
from autoseg.networks import available_architectures
from autoseg.plan.plan import Plan
from autoseg.plan.planner import make_plan


@pytest.mark.parametrize("name", available_architectures())
def test_a_plan_is_complete_explained_and_fits(name: str, make_fingerprint: Any, tmp_path: Path) -> None:
    fingerprint = make_fingerprint(channels=("CT", "PET"), relative_size=0.5)
    plan = make_plan(name, fingerprint, memory_gb=4.0)
    assert plan.name == plan.network.architecture == name
    assert plan.estimate.memory_gb <= 4.0
    assert plan.dataset.fingerprint_sha256 == content_hash(fingerprint)
    schemes = plan.preprocessing.normalization
    assert [(entry.scheme, entry.use_mask) for entry in schemes] == [("ct", False), ("zscore", True)]
    assert (schemes[0].lower, schemes[0].upper, schemes[1].mean) == (-20.0, 180.0, None)
    assert {"preprocessing.spacing", "training.patch_size", "training.batch_size", "estimate"} <= set(plan.rationale)
    assert all(text.endswith(".") for text in plan.rationale.values())
    assert plan.training.deep_supervision == (name not in ("unetr", "swin_unetr"))
    write_document(tmp_path / "plan.json", plan)
    assert read_document(tmp_path / "plan.json", Plan) == plan


def test_the_recommended_optimiser_is_the_authors(make_fingerprint: Any) -> None:
    nnunet = make_plan("nnunet", make_fingerprint())
    assert (nnunet.training.optimizer.name, nnunet.training.optimizer.learning_rate) == ("sgd", 1e-2)
    assert (nnunet.training.epochs, nnunet.training.gradient_clip) == (1000, 12.0)
    unetr = make_plan("unetr", make_fingerprint())
    assert (unetr.training.optimizer.name, unetr.training.optimizer.learning_rate) == ("adamw", 1e-4)
    assert all(size % 16 == 0 for size in unetr.training.patch_size)
    assert list(unetr.training.patch_size) == unetr.network.config["patch_size"]


def test_rotations_suit_the_form_of_the_patch(make_fingerprint: Any) -> None:
    flat = make_plan("nnunet", make_fingerprint(spacing=(5.0, 1.0, 1.0), shape=(12, 64, 64)))
    cubic = make_plan("nnunet", make_fingerprint())
    rotations = [
        next(e.parameters["rotation_degrees"] for e in plan.training.augmentation if e.name == "spatial")
        for plan in (flat, cubic)
    ]
    assert [list(rotation) for rotation in rotations] == [[180.0, 0.0, 0.0], [30.0, 30.0, 30.0]]
    assert plan_names(cubic)[0] == "spatial" and plan_names(cubic)[-1] == "mirror"


def plan_names(plan: Plan) -> list[str]:
    return [entry.name for entry in plan.training.augmentation]


def test_name_and_downsampling(make_fingerprint: Any) -> None:
    plan = make_plan("nnunet", make_fingerprint(), name="nnunet_coarse", downsample=2.0)
    assert (plan.name, plan.preprocessing.spacing, plan.preprocessing.downsample) == ("nnunet_coarse", (2.0,) * 3, 2.0)
    assert "2 times" in plan.rationale["preprocessing.spacing"]


def test_a_plan_in_two_dimensions(make_fingerprint: Any) -> None:
    plan = make_plan("nnunet_2d", make_fingerprint(spacing=(10.0, 1.5, 1.5), shape=(9, 120, 100)))
    assert (plan.name, plan.network.architecture, plan.training.patch_size) == ("nnunet_2d", "nnunet", (128, 112))
    assert plan.preprocessing.spacing == (None, 1.5, 1.5)
    assert plan.preprocessing.spacing_of((7.0, 2.0, 2.0)) == (7.0, 1.5, 1.5)
    assert plan.training.patch_shape == (1, 128, 112)
    assert plan.prediction.mirror_axes == (1, 2)
    by_name = {entry.name: entry.parameters for entry in plan.training.augmentation}
    assert by_name["spatial"]["rotation_degrees"] == [180.0, 0.0, 0.0]
    axes = by_name["spatial"]["scaling_axes"], by_name["mirror"]["axes"], by_name["low_resolution"]["axes"]
    assert axes == ([1, 2],) * 3
    assert plan.training.loss.parameters["batch_dice"] is True
    with pytest.raises(DocumentError, match=r"spacing\[0\] is None for a patch of 3 axes.*network.config: for 2 axes"):
        parse_document(to_text(plan).replace("[128, 112]", "[16, 128, 112]"), Plan, where="plan")


def test_low_resolution_and_the_dice_of_the_batch(make_fingerprint: Any) -> None:
    large = make_fingerprint(shape=(300, 300, 300))
    full, low = make_plan("nnunet", large), make_plan("nnunet_lowres", large)
    assert full.training.loss.parameters["batch_dice"] is True
    assert low.training.loss.parameters["batch_dice"] is False
    assert low.preprocessing.spacing[1] > 1.26 and "low resolution" in low.rationale["preprocessing.spacing"]
    with pytest.raises(PlanError, match="100% of the median image"):
        make_plan("nnunet_lowres", make_fingerprint(shape=(40, 56, 40)))


def test_a_cascade_has_channels_augmentations_and_an_estimate_of_its_own(make_fingerprint: Any) -> None:
    large = make_fingerprint(shape=(300, 300, 300), num_labels=4)
    full, cascade = make_plan("nnunet", large), make_plan("nnunet_cascade", large)
    assert (full.previous_stage, full.num_previous_classes) == (None, 0)
    assert (cascade.previous_stage, cascade.num_previous_classes) == ("nnunet_lowres", 3)
    assert cascade.training.patch_size == full.training.patch_size and cascade.network == full.network
    first = cascade.network.config["features_per_stage"][0]
    assert cascade.estimate.parameters - full.estimate.parameters == 3 * 3**3 * first
    own = cascade.training.augmentation[-2:]
    assert cascade.training.augmentation[:-2] == full.training.augmentation
    assert [entry.name for entry in own] == ["previous_morphology", "previous_component"]
    assert [entry.parameters["probability"] for entry in own] == [0.4, 0.2]
    assert all(e.parameters["num_labels"] == 3 and e.parameters["probability_label"] == 0.5 for e in own)
    assert "nnunet_lowres" in cascade.rationale["previous_stage"]
    with pytest.raises(PlanError, match="100% of the median image"):
        make_plan("nnunet_cascade", make_fingerprint(shape=(40, 56, 40)))


def test_what_cannot_be_planned_is_refused_with_the_reason(make_fingerprint: Any) -> None:
    with pytest.raises(PlanError, match="2-D"):
        make_plan("unet", make_fingerprint(shape=(1, 200, 200)))
    for name in ("unet", "nnunet"):
        with pytest.raises(PlanError, match=r"give --memory [0-9.]+ or more"):
            make_plan(name, make_fingerprint(), memory_gb=0.002)
    with pytest.raises(PlanError, match="did you mean 'unet'"):
        make_plan("unnet", make_fingerprint())


def test_real_hippocampus(real_data: Path) -> None:
    folder = real_data / "Dataset004_Hippocampus"
    fingerprint = extract_fingerprint(find_dataset(str(folder), Workspace(folder.parent)), num_workers=2)
    plan = make_plan("nnunet", fingerprint)
    assert (plan.training.patch_size, plan.training.batch_size) == ((40, 56, 40), 7)
    assert len(plan.network.config["strides"]) == 4
    assert plan.preprocessing.spacing == (1.0, 1.0, 1.0)
