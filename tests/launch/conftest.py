"""A workspace that is planned and preprocessed, with a plan small enough to be trained in a test."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from autoseg.data.dataset import Dataset, find_dataset
from autoseg.data.workspace import Workspace
from autoseg.launch.measuring import measure
from autoseg.launch.prepare import PlanRequest, make_plans, preprocess

TINY = (
    "training.patch_size=[16,16,16]",
    "network.config={\"strides\":[[1,1,1],[2,2,2]],\"kernel_sizes\":[[3,3,3],[3,3,3]],\"features_per_stage\":[4,8],"
    "\"blocks_per_stage_encoder\":[1,1],\"blocks_per_stage_decoder\":[1]}",
    "training.batch_size=2",
    "training.epochs=2",
    "training.iterations_per_epoch=2",
    "training.validation_iterations=1",
    "prediction.mirror_axes=[]",
)  # fmt: skip


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path) -> Path:
    """Root of a workspace with the plan ``tiny`` of the phantom, preprocessed; read only."""
    root = tmp_path_factory.mktemp("prepared")
    (root / "raw").symlink_to(phantom_folder.parent)
    place = Workspace(root)
    dataset = find_dataset("Phantom", place)
    fingerprint, _ = measure(dataset, place, num_workers=1)
    request = PlanRequest(architectures=("unet",), assignments=TINY, name="tiny")
    plans, _ = make_plans(fingerprint, place, request)
    preprocess(dataset, plans, place, num_workers=1)
    return root


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Workspace:
    """An own copy of the prepared workspace; its raw images are shared."""
    root = tmp_path / "workspace"
    shutil.copytree(prepared, root, symlinks=True)
    return Workspace(root)


@pytest.fixture
def own_raw(place: Workspace, phantom_folder: Path) -> Path:
    """The phantom's raw folder as a copy of ``place``'s own, that a test may change."""
    place.raw.unlink()
    shutil.copytree(phantom_folder, place.raw / phantom_folder.name)
    return place.raw / phantom_folder.name


@pytest.fixture
def dataset(place: Workspace) -> Dataset:
    """The phantom."""
    return find_dataset("Phantom", place)


@pytest.fixture
def tiny() -> tuple[Any, ...]:
    """The assignments that make a plan tiny."""
    return TINY
