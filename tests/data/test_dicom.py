"""DICOM series: slices by position, against SimpleITK's own series reader; what cannot be one volume is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.dataset import find_images
from autoseg.data.dicom import is_dicom_folder
from autoseg.data.volumes import read_image
from autoseg.errors import VolumeError

AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.fixture
def write_series(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes an array (z, y, x) as a DICOM series, its files named in a shuffled order."""

    def write(
        array: np.ndarray, name: str = "series", *, axes: tuple[float, ...] = AXES, step: Any = None, uid: str = "1.2.3"
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        way = 2.5 * np.cross(axes[:3], axes[3:]) if step is None else np.array(step)
        names = np.random.default_rng(4).permutation(len(array))
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        for index, (number, part) in enumerate(zip(names, array)):
            image = sitk.GetImageFromArray(part[None])
            image.SetSpacing((0.75, 1.5, 2.5))
            tags = {
                "0008|0060": "CT", "0020|000e": uid, "0020|000d": "1.2", "0008|0018": f"{uid}.{index}",
                "0020|0032": "\\".join(f"{v:.6g}" for v in np.array([10.0, -20.0, 30.0]) + index * way),
                "0020|0037": "\\".join(f"{v:.8g}" for v in axes), "0028|1052": "-1024", "0028|1053": "1",
            }  # fmt: skip
            for key, value in tags.items():
                image.SetMetaData(key, value)
            writer.SetFileName(str(folder / f"IM{number:04d}.dcm"))
            writer.Execute(image)
        for path in folder.iterdir():
            path.rename(path.with_suffix(""))  # many archives use no ending
        return folder

    return write


@pytest.fixture
def array(rng: np.random.Generator) -> np.ndarray:
    """Voxels as stored."""
    return rng.integers(0, 2000, (6, 5, 7)).astype(np.int16)


@pytest.mark.parametrize("axes", [AXES, (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (0.96, 0.28, 0.0, -0.28, 0.96, 0.0)])
def test_slices_are_put_in_order_by_position(write_series: Callable[..., Path], array: np.ndarray, axes: tuple) -> None:
    folder = write_series(array, axes=axes)
    assert is_dicom_folder(folder)
    volume = read_image((folder,))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    oracle = reader.Execute()
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(oracle))
    np.testing.assert_array_equal(volume.array[0], array)
    np.testing.assert_allclose(volume.geometry.origin, oracle.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(volume.geometry.spacing, oracle.GetSpacing()[::-1], rtol=1e-5)
    np.testing.assert_allclose(volume.geometry.direction, oracle.GetDirection(), atol=1e-6)


def test_a_real_series(real_data: Path) -> None:
    folder = real_data / "odd" / "dicom" / "ct_20_0.977x0.977x2"
    volume = read_image((folder,))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    oracle = reader.Execute()
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(oracle))
    assert volume.array.min() == -1024  # Hounsfield units
    np.testing.assert_allclose(volume.geometry.origin, oracle.GetOrigin())
    np.testing.assert_allclose(volume.geometry.direction, oracle.GetDirection())


def test_a_tilted_gantry_is_remarked_on(write_series: Callable[..., Path], array: np.ndarray) -> None:
    volume = read_image((write_series(array, step=(0.0, 0.5, 2.5)),))
    assert volume.geometry.spacing == (2.5, 1.5, 0.75)
    assert "tilted gantry: the last slice is shifted by 2.5 mm" in volume.remarks[0].found


def test_missing_doubled_and_foreign_slices_are_refused(write_series: Callable[..., Path], array: np.ndarray) -> None:
    folder = write_series(array)
    positions = {sitk.ReadImage(str(path)).GetOrigin()[2]: path for path in folder.iterdir()}
    kept = positions[37.5].read_bytes()
    positions[37.5].unlink()
    with pytest.raises(VolumeError, match="slices are missing.*5 mm behind"):
        read_image((folder,))
    positions[37.5].write_bytes(kept)
    (folder / "copy").write_bytes(kept)
    with pytest.raises(VolumeError, match="copy.*same position"):
        read_image((folder,))
    (folder / "copy").unlink()
    read_image((folder,))
    write_series(array[:2], "series", uid="9.9")  # overwrites two of the slices by another series
    with pytest.raises(VolumeError, match="2 DICOM series"):
        read_image((folder,))


def test_damaged_slices_are_refused(write_series: Callable[..., Path], array: np.ndarray) -> None:
    folder = write_series(array)
    path = sorted(folder.iterdir())[2]
    content = path.read_bytes()
    for share in (0.3, 0.6, 0.97):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(VolumeError):
            read_image((folder,))


def test_other_files_of_the_folder_are_left_out(write_series: Callable[..., Path], array: np.ndarray) -> None:
    folder = write_series(array)
    (folder / "LICENSE.txt").write_text("x" * 500)
    assert read_image((folder,)).array.shape == (1, 6, 5, 7)
    empty = folder.parent / "empty"
    empty.mkdir()
    assert not is_dicom_folder(empty)
    with pytest.raises(VolumeError, match="no DICOM files"):
        read_image((empty,))


def test_series_are_found_for_prediction(write_series: Callable[..., Path], array: np.ndarray, tmp_path: Path) -> None:
    write_series(array, "scan 1"), write_series(array, "scan 2")
    assert [case.name for case in find_images(tmp_path, ("CT",))] == ["scan 1", "scan 2"]
    (only,) = find_images(tmp_path / "scan 1", ("CT",))
    assert only.name == "scan 1" and read_image(only.images).array.shape == (1, 6, 5, 7)
