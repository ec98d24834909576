"""Shared fixtures: synthetic cases, and the real images where a checkout has them beside it."""

import locale
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# One thread a process, before torch is imported: the networks here are tiny, and threads that wait for each other on a
# busy machine make them up to forty times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

LOCALE = locale.setlocale(locale.LC_CTYPE)
REAL_DATA = Path(os.environ.get("AUTOSEG_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """Let no test leave another locale behind: libraries, PyTorch's compiler among them, read their files by it."""
    yield
    locale.setlocale(locale.LC_CTYPE, LOCALE)


@pytest.fixture
def real_data() -> Path:
    """The folder of real images, $AUTOSEG_REAL_DATA or beside the checkout; skips the test where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("real images are not beside this checkout (../shared/data)")
    return REAL_DATA


@pytest.fixture(scope="session")
def forks() -> multiprocessing.context.ForkServerContext:
    """Forks processes off one that has imported what takes long, so that a test need not wait for it each time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "autoseg.launch.fold", "autoseg.launch.prepare"])
    return context


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded source of randomness."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw dataset of six small phantom cases, in nnU-Net's form; read only."""
    from autoseg.data.phantom import make_phantom_dataset

    folder = tmp_path_factory.mktemp("raw") / "Dataset900_Phantom"
    make_phantom_dataset(folder, num_cases=6, size=32, seed=1)
    return folder


@pytest.fixture
def workspace(tmp_path: Path, phantom_folder: Path) -> Path:
    """An own workspace whose raw/ holds the phantom."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "raw").symlink_to(phantom_folder.parent)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path) -> Path:
    """A workspace with the plans ``good`` and ``poor``, of two folds each, whose networks were never trained.

    The validation segmentations of ``good`` are nearly right and those of ``poor`` less so, whatever the networks say.
    Read only.
    """
    return make_trained(tmp_path_factory.mktemp("trained"), phantom_folder)


def make_trained(root: Path, raw: Path | None = None) -> Path:
    """Make the workspace ``trained`` in a folder, with the phantom of ``raw`` or a new one, and return it."""
    from autoseg.data.dataset import find_dataset
    from autoseg.data.phantom import make_phantom_dataset
    from autoseg.data.splits import make_splits
    from autoseg.data.workspace import open_workspace
    from autoseg.documents import write_document

    if raw is None:
        raw = root / "phantoms" / "Dataset900_Phantom"
        make_phantom_dataset(raw, num_cases=6, size=32, seed=1)
    (root / "raw").symlink_to(raw.parent)
    place = open_workspace(root)
    write_document(place.splits("Phantom"), make_splits(find_dataset("Phantom", place)))
    for number, name in enumerate(("good", "poor")):
        _pretend_training(root, name, num_errors=1 + 3 * number)
    return root


def _small_plan(name: str, seed: int) -> Any:
    """Return a complete plan for the phantom whose network is tiny."""
    import json

    from autoseg.documents import parse_document
    from autoseg.plan.plan import Plan

    loss = {"name": "dice_ce", "batch_dice": False, "smooth": 1e-05, "weight_dice": 1.0, "weight_ce": 1.0}
    scheme = {"scheme": "ct", "use_mask": False, "lower": 38.0, "upper": 146.0, "mean": 100.0, "std": 20.0}
    content = {
        "schema": "autoseg.plan.1", "name": name, "previous_stage": None,
        "dataset": {"name": "Phantom", "channels": ["CT"], "labels": {"background": 0, "liver": 1, "tumour": 2},
                    "regions": {"liver": {"labels": [1], "value": 1}, "tumour": {"labels": [2], "value": 2}},
                    "fingerprint_sha256": "0" * 64},
        "budget": {"memory_gb": 8.0},
        "preprocessing": {"orientation": "LPS", "transpose": [0, 1, 2], "spacing": [2.5, 1.5, 1.5], "downsample": 1.0,
                          "normalization": [scheme], "image_order": 3, "label_order": 1,
                          "separate_axis_threshold": 3.0},
        "network": {"architecture": "unet", "config": {
            "strides": [[1, 1, 1], [2, 2, 2]], "kernel_sizes": [[3, 3, 3], [3, 3, 3]], "features_per_stage": [4, 8],
            "blocks_per_stage_encoder": [1, 1], "blocks_per_stage_decoder": [1]}},
        "training": {"patch_size": [16, 32, 32], "batch_size": 2, "epochs": 1, "iterations_per_epoch": 1,
                     "validation_iterations": 1, "loss": loss, "augmentation": [], "foreground_oversampling": 0.33,
                     "optimizer": {"name": "adamw", "learning_rate": 0.001, "betas": [0.9, 0.999],
                                   "weight_decay": 0.01},
                     "schedule": {"name": "poly", "exponent": 0.9, "warmup_iterations": 0},
                     "deep_supervision": True, "gradient_accumulation": 1, "gradient_clip": 12.0,
                     "class_weights": {}, "ema_decay": None, "early_stopping": None, "on_nan": "stop",
                     "precision": "fp32", "seed": seed},
        "prediction": {"tile_step": 0.5, "mirror_axes": [0], "surface_tolerance_mm": 2.0},
        "estimate": {"memory_gb": 0.1, "parameters": 1000, "flops_per_iteration": 1000}, "rationale": {},
    }  # fmt: skip
    return parse_document(json.dumps(content), Plan, where=name)


def _pretend_training(root: Path, name: str, *, num_errors: int) -> None:
    import torch

    from autoseg.data.dataset import find_dataset
    from autoseg.data.splits import Splits
    from autoseg.data.volumes import read_label, write_segmentation
    from autoseg.data.workspace import open_workspace
    from autoseg.documents import read_document, write_document
    from autoseg.evaluate.evaluate import evaluate_folder
    from autoseg.train.state import SCHEMA, build_network, training_digest

    place = open_workspace(root)
    dataset, plan = find_dataset("Phantom", place), _small_plan(name, seed=num_errors)
    write_document(place.plan("Phantom", name), plan)
    network = {"network": build_network(plan).state_dict(), "schema": SCHEMA, "epoch": 1}
    splits = read_document(place.splits("Phantom"), Splits)
    for fold, split in enumerate(splits.folds[:2]):
        run = place.fold("Phantom", name, fold)
        (run / "checkpoints").mkdir(parents=True)
        write_document(run / "plan.json", plan)
        torch.save(network | {"plan_sha256": training_digest(plan)}, run / "checkpoints" / "last.pt")
        cases = [case for case in dataset.cases if case.name in split.validation]
        for case in cases:
            label = read_label(case.label)
            values = label.array[0].copy()
            for error in range(num_errors):  # specks of liver in the corners
                values[3 * error : 3 * error + 2, :2, :2] = 1
            write_segmentation(run / "validation" / f"{case.name}.nii.gz", values, label.geometry)
        metrics = evaluate_folder(cases, run / "validation", dataset.labels, tolerance_mm=2.0)
        write_document(run / "validation" / "metrics.json", metrics)
