"""Plans and raw cases, small and made by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg.data.dataset import Case, Dataset
from autoseg.data.labels import Labels
from autoseg.data.volumes import Geometry, write_volume
from autoseg.plan.plan import Normalization, Plan, PlanDataset, Preprocessing

ZSCORE = Normalization(scheme="zscore", use_mask=False, lower=None, upper=None, mean=None, std=None)
NONE = ZSCORE.model_copy(update={"scheme": "none"})


@pytest.fixture
def build_plan() -> Callable[..., Plan]:
    """A function that makes a plan of which only preprocessing and the label scheme are filled in."""

    def build(labels: Labels, *, channels: int = 1, **preprocessing: Any) -> Plan:
        settings: dict[str, Any] = {
            "orientation": "LPS",
            "transpose": (0, 1, 2),
            "spacing": (1.0, 1.0, 1.0),
            "downsample": 1.0,
            "normalization": (ZSCORE,) * channels,
            "image_order": 3,
            "label_order": 1,
            "separate_axis_threshold": 3.0,
            **preprocessing,
        }
        dataset = PlanDataset(
            name="Test",
            channels=tuple(f"channel {n}" for n in range(channels)),
            labels=labels.labels,
            regions=labels.regions,
            fingerprint_sha256="0" * 64,
        )
        return Plan.model_construct(name="test", dataset=dataset, preprocessing=Preprocessing(**settings))

    return build


@pytest.fixture
def write_case(tmp_path: Path) -> Callable[..., Case]:
    """A function that writes arrays (channels, z, y, x) and (z, y, x) as a case of NIfTI files."""

    def write(name: str, image: np.ndarray, label: np.ndarray | None, **geometry: Any) -> Case:
        grid = Geometry(
            shape=image.shape[1:],
            **{
                "spacing": (1.0, 1.0, 1.0),
                "origin": (10.0, -20.0, 30.0),
                "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
                **geometry,
            },
        )
        paths = tuple(tmp_path / "raw" / f"{name}_{n:04d}.nii.gz" for n in range(len(image)))
        for path, channel in zip(paths, image):
            write_volume(path, channel, grid)
        label_path = tmp_path / "raw" / f"{name}.nii.gz" if label is not None else None
        if label_path and label is not None:
            write_volume(label_path, label, grid)
        return Case(name, paths, label_path)

    return write


@pytest.fixture
def build_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """A function that makes a dataset of cases."""

    def build(cases: list[Case], labels: Labels) -> Dataset:
        return Dataset(
            name="Test",
            folder=tmp_path / "raw",
            channels=("channel 0",),
            labels=labels,
            cases=tuple(cases),
            file_ending=".nii.gz",
        )

    return build
