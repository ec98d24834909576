"""The phantom: what is promised of it, and the same voxels for the same seed."""

import json
from pathlib import Path

import numpy as np

from autoseg.data.dataset import find_dataset, find_images
from autoseg.data.phantom import draw_phantom, make_phantom_dataset
from autoseg.data.volumes import read_image, read_label
from autoseg.data.workspace import Workspace


def test_a_phantom_has_liver_around_tumours_at_plausible_values() -> None:
    image, label, geometry = draw_phantom(32, np.random.default_rng(0))
    assert image.shape == label.shape == geometry.shape and image.dtype == np.int16
    assert set(np.unique(label)) == {0, 1, 2}
    liver, tumour = (np.median(image[label == value]) for value in (1, 2))
    assert tumour + 20 < liver < 140 and np.median(image[0, 0]) < -900


def test_the_dataset_reads_back_and_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    names: list[str] = []
    for folder in ("Dataset001_One", "Dataset002_Two"):
        make_phantom_dataset(tmp_path / folder, num_cases=3, size=24, seed=5, on_case=names.append)
    make_phantom_dataset(tmp_path / "Other", num_cases=1, size=24, seed=6)
    assert names == [f"phantom_{n:03d}" for n in range(1, 6)] * 2
    one, two, other = (
        find_dataset(str(tmp_path / name), Workspace(tmp_path))
        for name in ("Dataset001_One", "Dataset002_Two", "Other")
    )
    assert [case.name for case in one.cases] == names[:3]
    for a, b in zip(one.cases, two.cases):
        np.testing.assert_array_equal(read_image(a.images).array, read_image(b.images).array)
        np.testing.assert_array_equal(read_label(a.label).array, read_label(b.label).array)
    assert read_image(other.cases[0].images).array.tolist() != read_image(one.cases[0].images).array.tolist()
    assert len(find_images(tmp_path / "Dataset001_One" / "imagesTs", one.channels)) == 2
    assert "not patient data" in json.loads((tmp_path / "Other" / "dataset.json").read_text())["description"]
