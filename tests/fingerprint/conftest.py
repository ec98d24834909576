"""Small raw datasets in nnU-Net's layout, each with one thing wrong or doubtful."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest


@pytest.fixture
def make_raw(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes cases c0, c1 ... of one channel; ``change`` may alter image, label and affine of each."""

    def make(count: int = 6, change: Callable[[int, dict[str, Any]], None] | None = None, **description: Any) -> Path:
        root = tmp_path / "raw" / "Dataset001_Test"
        for part in ("imagesTr", "labelsTr"):
            (root / part).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            rng = np.random.default_rng(number)
            label = np.zeros((9, 8, 7), np.uint8)
            label[2:6, 2:6, 2:5], label[3:5, 3:5, 3] = 1, 2
            image = rng.normal(100, 20, label.shape).astype(np.float32)
            case = {"image": image, "label": label, "affine": np.eye(4), "label_affine": None}
            if change:
                change(number, case)
            affine = case["affine"]
            label_affine = affine if case["label_affine"] is None else case["label_affine"]
            nibabel.save(nibabel.Nifti1Image(case["image"], affine), root / "imagesTr" / f"c{number}_0000.nii.gz")
            nibabel.save(nibabel.Nifti1Image(case["label"], label_affine), root / "labelsTr" / f"c{number}.nii.gz")
        content = {
            "channel_names": {"0": "MR"},
            "labels": {"background": 0, "organ": 1, "lesion": 2},
            "file_ending": ".nii.gz",
        }
        (root / "dataset.json").write_text(json.dumps(content | description))
        return root

    return make
