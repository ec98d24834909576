"""Fingerprints from nnU-Net's two files."""

import json
from pathlib import Path
from typing import Any

import pytest

from autoseg.errors import DatasetError
from autoseg.fingerprint.nnunet import holds_fingerprint_only, read_nnunet_fingerprint, write_nnunet_fingerprint

CHANNEL = {
    "mean": 1.5, "median": 1.0, "std": 2.0, "min": -3.0, "max": 9.0, "percentile_00_5": -2.0, "percentile_99_5": 8.0,
}  # fmt: skip


def _write(folder: Path, description: dict[str, Any] | None = None, measured: dict[str, Any] | None = None) -> Path:
    standard = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "numTraining": 7}
    fingerprint = {
        "spacings": [[3.0, 1.0, 1.0], [2.5, 0.8, 0.8]], "shapes_after_crop": [[20, 100, 90], [30, 110, 95]],
        "foreground_intensity_properties_per_channel": {"0": CHANNEL}, "median_relative_size_after_cropping": 0.9,
    }  # fmt: skip
    target = folder / "Dataset007_Liver"
    target.mkdir()
    (target / "dataset.json").write_text(json.dumps({**standard, **(description or {})}))
    (target / "dataset_fingerprint.json").write_text(json.dumps({**fingerprint, **(measured or {})}))
    return target


def test_everything_that_nnunet_knows_is_taken(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    fingerprint = read_nnunet_fingerprint(folder)
    assert (fingerprint.dataset, fingerprint.channels, fingerprint.num_training) == ("Liver", ("CT",), 7)
    assert [case.spacing for case in fingerprint.cases] == [(3.0, 1.0, 1.0), (2.5, 0.8, 0.8)]
    assert fingerprint.cases[1].shape_after_crop == (30, 110, 95)
    assert fingerprint.intensities[0].model_dump() == CHANNEL
    assert fingerprint.label_scheme.num_declared == 2


def test_regions_and_an_ignore_label_are_counted_as_nnunet_does(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}
    folder = _write(tmp_path, {"labels": labels, "regions_class_order": [1, 2, 3]})
    scheme = read_nnunet_fingerprint(folder).label_scheme
    assert scheme.overlapping and scheme.num_outputs == 3
    assert scheme.num_declared == len(labels)


def test_a_folder_with_images_is_a_dataset(tmp_path: Path) -> None:
    folder = _write(tmp_path)
    assert holds_fingerprint_only(folder)
    (folder / "imagesTr").mkdir()
    assert not holds_fingerprint_only(folder)


def test_only_ct_needs_intensities(tmp_path: Path) -> None:
    folder = _write(tmp_path, {"channel_names": {"0": "MRI"}}, {"foreground_intensity_properties_per_channel": {}})
    assert read_nnunet_fingerprint(folder).intensities[0].std == 0.0


@pytest.mark.parametrize(
    ("description", "measured", "message"),
    [
        ({}, {"spacings": [[1.0, 1.0, 1.0]]}, "1 spacings, but 2 shapes_after_crop"),
        ({}, {"spacings": [[0.0, 1.0, 1.0]] * 2}, "above 0 mm"),
        ({}, {"shapes_after_crop": [[0, 5, 5]] * 2}, "at least 1 voxel"),
        ({}, {"foreground_intensity_properties_per_channel": {}}, r"lacks the CT channels \[0\]"),
        ({}, {"spacings": []}, "spacings"),
        ({"channel_names": {}}, {}, "channel_names is missing"),
    ],
)
def test_mistakes_are_named(
    description: dict[str, Any], measured: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=message):
        read_nnunet_fingerprint(_write(tmp_path, description, measured))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    fingerprint = read_nnunet_fingerprint(_write(tmp_path))
    (tmp_path / "other").mkdir()
    other = _write(tmp_path / "other")
    write_nnunet_fingerprint(fingerprint, other / "dataset_fingerprint.json")
    again = read_nnunet_fingerprint(other)
    assert again.model_copy(update={"dataset": fingerprint.dataset}) == fingerprint
