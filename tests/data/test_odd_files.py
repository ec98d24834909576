"""Every odd file is read as nibabel and SimpleITK read it, or refused in one line; the committed table says so too."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def odd_files() -> ModuleType:
    """The script that makes the table."""
    spec = importlib.util.spec_from_file_location("odd_files", ROOT / "tests" / "benchmarks" / "odd_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFUSED = {
    "image": {"5d_vector", "4d_163842", "rgb_", "rgba_", "complex64", "with_NaN"},
    "label": {"soft_label_0", "with_NaN", "complex64", "rgb_", "rgba_", "5d_vector", "4d_163842"},
}


@pytest.mark.filterwarnings("ignore")
def test_every_odd_file(real_data: Path, odd_files: ModuleType, tmp_path: Path) -> None:
    rows = odd_files.main(real_data / "odd", tmp_path / "table.md")
    with (real_data / "odd" / "MANIFEST.csv").open() as file:
        assert [row[0] for row in rows] == [entry["path"] for entry in csv.DictReader(file)]
    for name, image, label in rows:
        assert image.right is not False and label.right is not False, (name, image, label)
        assert "\n" not in image.text + label.text
        refused = any(part in name for part in REFUSED["image"])
        assert (image.action == "refused") == refused, (name, image)
        assert label.action == "refused" or not any(part in name for part in REFUSED["label"]), (name, label)
    read = {name: label.text for name, _, label in rows if label.action == "read"}
    assert "values [0, 1]" in read["labels/mask_0_and_0.9999999702.nii.gz"]
    assert "42 from 0 to 117" in read["labels/nonconsecutive_42_of_117.nii.gz"]
    assert "[0, 1, 2, 255]" in read["labels/scribble_with_ignore255.nii.gz"]
    assert (tmp_path / "table.md").read_text() == (ROOT / "docs" / "benchmarks" / "odd-files.md").read_text()


def test_a_label_along_other_axes_than_its_dicom_image_is_brought_to_it(real_data: Path) -> None:
    import numpy as np
    import SimpleITK as sitk

    from autoseg.data.volumes import align, read_image, read_label

    folder = real_data / "odd" / "dicom" / "ct_20_0.977x0.977x2"
    path = real_data / "odd" / "mismatch" / "label_LAS_vs_dicom_LPS_512x512x20.nii.gz"
    image = read_image((folder,))
    label = align(read_label(path), image.geometry, path, folder)
    oracle = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))
    np.testing.assert_array_equal(label.array[0], oracle)
    assert "LAS instead of LPS" in label.remarks[-1].found
    assert image.array[0][label.array[0] == 5].mean() > 0, "liver, not air"
