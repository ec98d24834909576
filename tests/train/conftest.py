"""A small dataset that is already preprocessed, and a small plan for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg.augment import load_augmentation
from autoseg.data.labels import Labels
from autoseg.data.splits import Fold
from autoseg.data.volumes import Geometry
from autoseg.documents import parse_document
from autoseg.losses import load_loss
from autoseg.plan.plan import Plan
from autoseg.preprocess.case import CaseProperties, PreprocessedCase
from autoseg.preprocess.store import CaseStore
from autoseg.train.log import Beginning, EpochReport
from autoseg.train.loop import train_fold
from autoseg.train.machine import Machine
from autoseg.train.record import make_run_record

SIZE = 32
NAMES = tuple(f"case_{index}" for index in range(6))

MakePlan = Callable[..., Plan]
Train = Callable[..., Path]
ReadMetrics = Callable[[Path], list[dict[str, Any]]]
AssertSame = Callable[[Path, Path], None]


def make_case(name: str, seed: int) -> PreprocessedCase:
    """Return a case of a bright ball (class 1) with a dark core (class 2) in noise."""
    rng = np.random.default_rng(seed)
    centre = rng.integers(10, SIZE - 10, size=3)
    distance = np.linalg.norm(np.indices((SIZE,) * 3) - centre[:, None, None, None], axis=0)
    classes = (distance < 8).astype(np.int16) + (distance < 4)
    image = np.array([0.0, 2.0, -2.0])[classes] + 0.3 * rng.standard_normal(classes.shape)
    geometry = Geometry(
        shape=(SIZE,) * 3,
        spacing=(1.0,) * 3,
        origin=(0.0,) * 3,
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    properties = CaseProperties(
        schema="autoseg.case.1",
        name=name,
        geometry=geometry,
        spacing=(1.0, 1.0, 1.0),
        shape_before_crop=(SIZE, SIZE, SIZE),
        box=((0, SIZE), (0, SIZE), (0, SIZE)),
        shape_before_resampling=(SIZE, SIZE, SIZE),
        shape=(SIZE, SIZE, SIZE),
        sources=(),
    )
    return PreprocessedCase(image[None].astype(np.float32), classes.astype(np.int16), properties)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> CaseStore:
    """Six preprocessed cases of 32^3 voxels; read only."""
    labels = Labels.from_names({"background": 0, "ball": 1, "core": 2})
    store = CaseStore(tmp_path_factory.mktemp("preprocessed"), labels)
    for index, name in enumerate(NAMES):
        store.save(make_case(name, index))
    return store


@pytest.fixture
def fold() -> Fold:
    """Four cases to train on, two to validate on."""
    return Fold(train=NAMES[:4], validation=NAMES[4:])


@pytest.fixture
def make_plan() -> MakePlan:
    """Makes a plan of a tiny network for the ``store``; keywords replace fields of its training section."""
    return _make_plan


def _make_plan(*, regions: dict[str, Any] | None = None, **training: Any) -> Plan:
    labels = {"background": 0, "ball": 1, "core": 2}
    augmentation = [{"name": name, **load_augmentation(name).Config().model_dump()} for name in ("spatial", "mirror")]
    normalization = {"scheme": "none", "use_mask": False, "lower": None, "upper": None, "mean": None, "std": None}
    section = {
        "patch_size": (16, 16, 16),
        "batch_size": 2,
        "epochs": 4,
        "iterations_per_epoch": 3,
        "validation_iterations": 2,
        "loss": {"name": "dice_ce", **load_loss("dice_ce").Config().model_dump()},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        "schedule": {"name": "poly"},
        "augmentation": augmentation,
        "foreground_oversampling": 0.33,
        "deep_supervision": True,
        "gradient_accumulation": 1,
        "gradient_clip": 12.0,
        "class_weights": {},
        "ema_decay": None,
        "early_stopping": None,
        "on_nan": "stop",
        "precision": "fp32",
        "seed": 7,
    }
    content = {
        "schema": "autoseg.plan.1",
        "name": "tiny",
        "previous_stage": None,
        "dataset": {
            "name": "Balls",
            "channels": ("MRI",),
            "labels": labels,
            "regions": regions or {"ball": {"labels": (1,), "value": 1}, "core": {"labels": (2,), "value": 2}},
            "fingerprint_sha256": "0" * 64,
        },
        "budget": {"memory_gb": 1.0},
        "preprocessing": {
            "orientation": "LPS",
            "transpose": (0, 1, 2),
            "spacing": (1.0, 1.0, 1.0),
            "downsample": 1.0,
            "normalization": (normalization,),
            "image_order": 3,
            "label_order": 1,
            "separate_axis_threshold": 3.0,
        },
        "network": {
            "architecture": "unet",
            "config": {
                "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)),
                "kernel_sizes": ((3, 3, 3),) * 3,
                "features_per_stage": (4, 8, 8),
                "blocks_per_stage_encoder": (1, 1, 1),
                "blocks_per_stage_decoder": (1, 1),
            },
        },
        "training": {**section, **training},
        "prediction": {"tile_step": 0.5, "mirror_axes": (), "surface_tolerance_mm": 1.0},
        "estimate": {"memory_gb": 0.1, "parameters": 1, "flops_per_iteration": 1},
        "rationale": {},
    }
    return parse_document(json.dumps(content), Plan, where="tiny")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Where a training writes; not there yet."""
    return tmp_path / "results" / "fold_0"


@pytest.fixture
def train(store: CaseStore, fold: Fold, run_folder: Path) -> Train:
    """Trains a plan on the CPU with one worker and returns the run's folder; keywords replace what is given."""

    def train(plan: Plan, **changes: Any) -> Path:
        machine = Machine(torch.device("cpu"), changes.pop("num_workers", 1))
        arguments: dict[str, Any] = {"store": store, "fold": fold, "run_folder": run_folder, "machine": machine}
        arguments |= changes
        train_fold(plan, **arguments)
        return Path(arguments["run_folder"])

    return train


@pytest.fixture
def report() -> Callable[..., EpochReport]:
    """Makes the report of an epoch; keywords replace its fields."""
    return _report


def _report(epoch: int, **changes: Any) -> EpochReport:
    values: dict[str, Any] = {
        "epoch": epoch,
        "epochs": 5,
        "train_loss": 1.0 / epoch,
        "validation_loss": 2.0 / epoch,
        "validation_dice": {"Leber, größer": 0.5, "tumour": None},
        "mean_dice": 0.5,
        "best": True,
        "learning_rate": 0.01,
        "seconds": 3.0,
        "seconds_waiting": 0.5,
        "seconds_left": 12.0,
        "peak_memory_gb": None,
    }
    return EpochReport(**(values | changes))


@pytest.fixture
def begin(make_plan: MakePlan) -> Callable[..., Beginning]:
    """Makes what a logger is told first, of a run that goes on after the epochs of ``history``."""

    def beginning(folder: Path, history: list[dict[str, Any]]) -> Beginning:
        plan = make_plan(epochs=5)
        record = make_run_record(torch.device("cpu"), "fp32", torch.nn.Linear(3, 4), 1, seed=7)
        return Beginning(folder, plan, record, tuple(history))

    return beginning


@pytest.fixture
def read_metrics() -> ReadMetrics:
    """Reads logs/metrics.jsonl of a run."""
    return _read_metrics


def _read_metrics(run_folder: Path) -> list[dict[str, Any]]:
    lines = (run_folder / "logs" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def assert_same_training() -> AssertSame:
    """Compares two runs bit for bit: checkpoints and metrics.jsonl, all but seconds and memory."""
    return _assert_same_training


def _assert_same_training(first: Path, second: Path) -> None:
    for name in ("last.pt", "best.pt"):
        one, other = (torch.load(folder / "checkpoints" / name, weights_only=True) for folder in (first, second))
        _assert_same(_as_computed(one), _as_computed(other), name)
    _assert_same(_as_computed(_read_metrics(first)), _as_computed(_read_metrics(second)), "metrics.jsonl")


def _as_computed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _as_computed(v) for k, v in value.items() if not str(k).startswith(("seconds", "peak_host"))}
    return [_as_computed(item) for item in value] if isinstance(value, list) else value


def _assert_same(one: Any, other: Any, where: str) -> None:
    """Compare nested values exactly; numbers as they are, tensors by their bits."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other)):
            _assert_same(*pair, f"{where}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where
