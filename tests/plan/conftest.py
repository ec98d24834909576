"""Fingerprints without images: of a few sizes, and from nnU-Net's own form."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from autoseg.data.labels import Labels
from autoseg.fingerprint.fingerprint import SCHEMA, CaseFingerprint, ChannelIntensities, Fingerprint
from autoseg.fingerprint.nnunet import read_nnunet_fingerprint

MakeFingerprint = Callable[..., Fingerprint]
GoldenEntry = dict[str, Any]

_UNKNOWN = ChannelIntensities(
    mean=50.0, median=50.0, std=20.0, min=-200.0, max=300.0, percentile_00_5=-20.0, percentile_99_5=180.0
)


@pytest.fixture
def golden(real_data: Path) -> list[GoldenEntry]:
    """nnU-Net's own plans of many fingerprints."""
    path = real_data.parent / "golden" / "nnunet_plans.json"
    if not path.is_file():
        pytest.skip("nnU-Net's own plans are not beside this checkout (../shared/golden)")
    entries: list[GoldenEntry] = json.loads(path.read_text(encoding="utf-8"))
    return entries


@pytest.fixture
def write_nnunet_files(tmp_path: Path) -> Callable[[GoldenEntry], Path]:
    """Writes nnU-Net's dataset.json and dataset_fingerprint.json of an entry; returns their folder."""

    def write(entry: GoldenEntry) -> Path:
        folder = tmp_path / entry["name"]
        folder.mkdir()
        dataset, channels = entry["dataset"], entry["dataset"]["channel_names"]
        description = {
            "channel_names": {str(index): name for index, name in enumerate(channels)},
            "labels": dataset["labels"], "numTraining": dataset["num_training"], "file_ending": ".nii.gz",
            **{key: dataset[key] for key in ("regions_class_order",) if key in dataset},
        }  # fmt: skip
        measured = {str(index): _UNKNOWN.model_dump() for index in range(len(channels))}
        fingerprint = {**entry["fingerprint"], "foreground_intensity_properties_per_channel": measured}
        (folder / "dataset.json").write_text(json.dumps(description))
        (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        return folder

    return write


@pytest.fixture
def read_entry(write_nnunet_files: Callable[[GoldenEntry], Path]) -> Callable[[GoldenEntry], Fingerprint]:
    """Turns an entry of the golden file into a fingerprint, by way of nnU-Net's files."""
    return lambda entry: read_nnunet_fingerprint(write_nnunet_files(entry))


@pytest.fixture
def make_fingerprint() -> MakeFingerprint:
    """Makes a fingerprint of ``num_cases`` cases, or of the given spacings and shapes."""
    return _make_fingerprint


def _make_fingerprint(
    *,
    spacing: Any = (1.0, 1.0, 1.0),
    shape: Any = (36, 50, 35),
    num_cases: int = 10,
    channels: Sequence[str] = ("MRI",),
    num_labels: int = 3,
    num_training: int | None = None,
    relative_size: float = 1.0,
) -> Fingerprint:
    spacings = spacing if isinstance(spacing, list) else [spacing] * num_cases
    shapes = shape if isinstance(shape, list) else [shape] * num_cases
    names = {"background": 0, **{f"label{value}": value for value in range(1, num_labels)}}
    labels = Labels.from_names(names)
    cases = [
        CaseFingerprint(
            name=f"case_{index:03d}",
            spacing=tuple(float(value) for value in one_spacing),
            shape=tuple(int(value) for value in one_shape),
            shape_after_crop=tuple(int(value) for value in one_shape),
            orientation="LPS",
            label_voxels=dict.fromkeys(names, 1),
        )
        for index, (one_spacing, one_shape) in enumerate(zip(spacings, shapes))
    ]
    return Fingerprint(
        schema=SCHEMA,
        dataset="Synthetic",
        channels=tuple(channels),
        labels=labels.labels,
        regions=labels.regions,
        num_training=num_training or len(cases),
        cases=tuple(cases),
        intensities=(_UNKNOWN,) * len(channels),
        median_relative_size_after_cropping=relative_size,
    )
