"""Cut and damaged NIfTI files are noticed; orientations are stored to the last bit."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from autoseg.data.nifti import is_nifti, read_nifti
from autoseg.data.nifti_grid import store_direction
from autoseg.errors import VolumeError


def find_defect(path: Path) -> str | None:
    """Return why a file cannot be read, or None."""
    try:
        read_nifti(path, as_float=True)
    except VolumeError as error:
        return str(error)
    return None


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> dict[str, Path]:
    image = nibabel.Nifti1Image(rng.integers(0, 999, (20, 21, 22)).astype(np.int16), np.eye(4))
    found = {ending: tmp_path / f"whole{ending}" for ending in (".nii", ".nii.gz")}
    for path in found.values():
        nibabel.save(image, path)
    return found


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_whole_file_has_no_defect(files: dict[str, Path], ending: str) -> None:
    assert is_nifti(files[ending]) and find_defect(files[ending]) is None


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_cut_file_is_noticed(files: dict[str, Path], ending: str, share: float) -> None:
    content = files[ending].read_bytes()
    files[ending].write_bytes(content[: int(share * len(content))])
    assert "truncated" in (find_defect(files[ending]) or "")


def test_one_missing_byte_is_noticed(files: dict[str, Path]) -> None:
    for path in files.values():
        path.write_bytes(path.read_bytes()[:-1])
        assert find_defect(path)


def test_a_zipped_cut_file_says_how_much_is_there(files: dict[str, Path]) -> None:
    content = files[".nii"].read_bytes()
    files[".nii.gz"].write_bytes(gzip.compress(content[:5000]))
    assert f"it holds {(5000 - 352) // 2} of {20 * 21 * 22} voxels" in (find_defect(files[".nii.gz"]) or "")


def test_bytes_behind_the_volume_and_several_gzip_members_are_no_defect(files: dict[str, Path]) -> None:
    content = files[".nii"].read_bytes()
    files[".nii"].write_bytes(content + b"more")
    files[".nii.gz"].write_bytes(gzip.compress(content[:7000]) + gzip.compress(content[7000:]))
    assert find_defect(files[".nii"]) is None and find_defect(files[".nii.gz"]) is None


def test_an_unzipped_file_named_gz_is_no_defect(files: dict[str, Path]) -> None:
    files[".nii.gz"].write_bytes(files[".nii"].read_bytes())
    assert find_defect(files[".nii.gz"]) is None


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
def test_a_flipped_byte_in_a_gzip_file_is_noticed(files: dict[str, Path], position: float) -> None:
    content = bytearray(files[".nii.gz"].read_bytes())
    content[int(position * len(content))] ^= 0x10
    files[".nii.gz"].write_bytes(content)
    assert "damaged" in (find_defect(files[".nii.gz"]) or "")


def test_big_endian_headers_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "big.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), ">f4"), np.eye(4), nibabel.Nifti1Header(endianness=">")), path)
    assert find_defect(path) is None
    path.write_bytes(path.read_bytes()[:-4])
    assert "truncated" in (find_defect(path) or "")


@pytest.mark.parametrize("seed", range(10))
def test_a_direction_that_came_from_a_file_is_stored_exactly(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(rng=rng).as_matrix() * rng.uniform(0.3, 5, 3)
    first, second = tmp_path / "first.nii.gz", tmp_path / "second.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), affine), first)
    image = sitk.ReadImage(str(first))
    sitk.WriteImage(image, str(second))
    store_direction(second, image.GetDirection())
    assert sitk.ReadImage(str(second)).GetDirection() == image.GetDirection()
    assert nibabel.load(second).header["sform_code"] > 0
