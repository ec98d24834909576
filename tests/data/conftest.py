"""Small raw files and datasets, made by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg.data.volumes import Geometry, write_volume

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def write() -> Callable[..., Path]:
    """A function that writes an array (z, y, x) as a volume file, spacing 1 mm unless told otherwise."""

    def write_file(path: Path, array: np.ndarray, **geometry: Any) -> Path:
        settings = {"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0), "direction": IDENTITY, **geometry}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(path, array, Geometry(shape=array.shape, **settings))
        return path

    return write_file


@pytest.fixture
def make_dataset(tmp_path: Path, write: Callable[..., Path]) -> Callable[..., Path]:
    """A function that writes a dataset in nnU-Net's layout: half of each image is label 1."""

    def make(names: list[str], *, channels: int = 1, folder: str = "Dataset007_Test", **description: Any) -> Path:
        root = tmp_path / "raw" / folder
        for number, name in enumerate(names):
            rng = np.random.default_rng(number)
            for channel in range(channels):
                image = rng.normal(100, 20, (6, 7, 8)).astype(np.float32)
                write(root / "imagesTr" / f"{name}_{channel:04d}.nii.gz", image)
            label = np.zeros((6, 7, 8), np.uint8)
            label[2:5, 2:6, 2:6] = 1
            write(root / "labelsTr" / f"{name}.nii.gz", label)
        content = {
            "channel_names": {str(n): f"channel {n}" for n in range(channels)},
            "labels": {"background": 0, "organ": 1},
            "numTraining": len(names),
            "file_ending": ".nii.gz",
            **description,
        }
        (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
        return root

    return make
