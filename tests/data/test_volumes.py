"""Volumes: geometry and voxels against SimpleITK and nibabel, every orientation, exact ways back, and refusals."""

import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from autoseg.data.volumes import (
    Geometry,
    Volume,
    align,
    canonical_geometry,
    from_canonical,
    orientation_code,
    read_image,
    read_label,
    same_geometry,
    to_canonical,
    write_segmentation,
    write_volume,
)
from autoseg.errors import VolumeError

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
ORDERS = list(itertools.permutations(range(3)))
SIGNS = list(itertools.product((1, -1), repeat=3))
ORIENTATIONS = [np.eye(3)[:, list(order)] * signs for order in ORDERS for signs in SIGNS]
SHAPE, SPACING, ORIGIN = (4, 6, 9), (2.5, 0.75, 1.25), (11.5, -20.25, 30.0)


def tilted(degrees: float) -> np.ndarray:
    return Rotation.from_euler("xyz", (degrees, -degrees / 2, degrees / 3), degrees=True).as_matrix()


def geometry(matrix: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> Geometry:
    return Geometry(
        shape=shape, spacing=SPACING, origin=ORIGIN, direction=tuple(np.asarray(matrix, float).ravel().tolist())
    )


def position(grid: Geometry, index_zyx: np.ndarray) -> np.ndarray:
    """Where a voxel lies, as SimpleITK computes it."""
    image = sitk.Image(*[int(n) for n in grid.shape[::-1]], sitk.sitkUInt8)
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return np.array(image.TransformContinuousIndexToPhysicalPoint([float(n) for n in index_zyx[::-1]]))


def marked(shape: tuple[int, int, int]) -> np.ndarray:
    """An array that holds its own flat index, so that every voxel can be told."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("degrees", [0, 17])
def test_canonical_moves_no_voxel_in_the_patient(matrix: np.ndarray, degrees: float) -> None:
    grid = geometry(tilted(degrees) @ matrix)
    array = marked(SHAPE)
    canonical = to_canonical(Volume(array[None], grid))
    assert canonical.geometry == canonical_geometry(grid) and canonical.array.shape[1:] == canonical.geometry.shape
    for value in (0, 7, 100, array.size - 1):
        before = position(grid, np.argwhere(array == value)[0])
        after = position(canonical.geometry, np.argwhere(canonical.array[0] == value)[0])
        np.testing.assert_allclose(after, before, atol=1e-9)
    np.testing.assert_array_equal(from_canonical(canonical.array[0], grid), array)


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("degrees", [0, 17])
def test_canonical_is_what_simpleitk_and_nibabel_call_lps(matrix: np.ndarray, degrees: float) -> None:
    grid = geometry(tilted(degrees) @ matrix)
    image = sitk.GetImageFromArray(marked(SHAPE))
    image.SetSpacing(SPACING[::-1]), image.SetOrigin(ORIGIN), image.SetDirection(grid.direction)
    oracle = sitk.DICOMOrient(image, "LPS")
    found = to_canonical(Volume(marked(SHAPE)[None], grid))
    np.testing.assert_array_equal(found.array[0], sitk.GetArrayFromImage(oracle))
    np.testing.assert_allclose(found.geometry.origin, oracle.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(found.geometry.direction, oracle.GetDirection(), atol=1e-12)
    assert found.geometry.spacing == oracle.GetSpacing()[::-1]
    affine = np.diag([-1.0, -1.0, 1.0]) @ np.reshape(grid.direction, (3, 3)) * SPACING[::-1]
    assert orientation_code(grid) == "".join(nibabel.aff2axcodes(np.vstack([np.c_[affine, [0, 0, 0]], [0, 0, 0, 1]])))
    assert orientation_code(found.geometry) == "LPS"


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("degrees", [0, 31])
def test_a_nifti_file_comes_back_to_the_last_bit(tmp_path: Path, matrix: np.ndarray, degrees: float) -> None:
    """What is read from a NIfTI file and written again has exactly the same geometry."""
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    write_volume(first, marked(SHAPE), geometry(tilted(degrees) @ matrix))
    one = read_label(first)
    write_segmentation(second, one.array[0], one.geometry)
    other = read_label(second)
    assert other.geometry == one.geometry
    np.testing.assert_array_equal(other.array, one.array)
    assert same_geometry(one.geometry, geometry(tilted(degrees) @ matrix)) is None


@pytest.mark.parametrize("matrix", [np.eye(3), np.diag([-1.0, -1.0, 1.0]), tilted(23), ORIENTATIONS[37]])
def test_reading_agrees_with_nibabel(tmp_path: Path, matrix: np.ndarray, rng: np.random.Generator) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix * (1.25, 0.75, 2.5), (5, 6, 7)
    array = rng.normal(size=(9, 6, 4)).astype(np.float32)
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    volume = read_image((path,))
    np.testing.assert_array_equal(volume.array[0], array.T)
    to_lps = np.diag([-1.0, -1.0, 1.0])
    np.testing.assert_allclose(np.reshape(volume.geometry.direction, (3, 3)), to_lps @ matrix, atol=1e-6)
    np.testing.assert_allclose(volume.geometry.origin, to_lps @ (5, 6, 7), atol=1e-6)
    np.testing.assert_allclose(volume.geometry.spacing, (2.5, 0.75, 1.25), atol=1e-6)


def test_scaled_integers_and_big_endian_agree_with_nibabel(tmp_path: Path, rng: np.random.Generator) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    image = nibabel.Nifti1Image(rng.integers(-900, 900, (5, 6, 7)).astype(">i2"), np.eye(4), header)
    image.header.set_slope_inter(0.5, -3)
    path = tmp_path / "scaled.nii"
    image.header.set_data_dtype(">i2")
    nibabel.save(image, path)
    expected = nibabel.load(path).get_fdata(dtype=np.float32)
    np.testing.assert_allclose(read_image((path,)).array[0], expected.T, rtol=1e-6)
    np.testing.assert_allclose(read_label(path).array[0], expected.T, rtol=1e-6)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".gipl.gz"])
def test_every_format_keeps_voxels_and_grid(tmp_path: Path, write: Callable[..., Path], ending: str) -> None:
    matrix = np.eye(3) if "gipl" in ending else ORIENTATIONS[21]  # gipl knows no direction
    grid = geometry(matrix)
    path = tmp_path / f"Fall 1 ä{ending}"
    write_volume(path, marked(SHAPE), grid)
    volume = read_image((path,))
    np.testing.assert_array_equal(volume.array[0], marked(SHAPE))
    assert volume.array.dtype == np.float32 and same_geometry(volume.geometry, grid) is None


def test_channels_stored_along_other_axes_are_brought_to_the_first_ones_grid(tmp_path: Path) -> None:
    grid, other = geometry(np.eye(3)), geometry(ORIENTATIONS[29])
    paths = tmp_path / "a.nrrd", tmp_path / "b.nrrd"
    write_volume(paths[0], marked(SHAPE), grid)
    image = sitk.DICOMOrient(sitk.ReadImage(str(paths[0])), orientation_code(other))
    sitk.WriteImage(image, str(paths[1]))
    volume = read_image(paths)
    assert volume.geometry == grid
    np.testing.assert_array_equal(volume.array[0], volume.array[1])


@pytest.mark.parametrize(
    "change, named",
    [
        ({"spacing": (2.5, 0.75, 1.26)}, "spacing"),
        ({"origin": (11.5, -20.25, 31.0)}, "origin"),
        ({"direction": tuple(tilted(3).ravel().tolist())}, "direction"),
    ],
)
def test_another_grid_is_refused_and_says_what_differs(tmp_path: Path, change: dict, named: str) -> None:
    one, other = tmp_path / "one.nii", tmp_path / "other.nii"
    write_volume(one, marked(SHAPE), geometry(np.eye(3)))
    write_volume(other, marked(SHAPE), geometry(np.eye(3)).model_copy(update=change))
    with pytest.raises(VolumeError, match=f"other.nii: lies on another grid than one.nii: {named}"):
        read_image((one, other))


def test_rounding_of_headers_is_no_other_grid() -> None:
    grid = geometry(tilted(10))
    nearly = grid.model_copy(update={"spacing": (2.5001, 0.75, 1.25), "origin": (11.501, -20.25, 30.0)})
    assert same_geometry(grid, nearly) is None
    array = marked(SHAPE)[None]
    aligned = align(Volume(array, nearly), grid, Path("a"), Path("b"))
    assert aligned.geometry == grid and aligned.array is array


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_number_are_counted(tmp_path: Path, write: Callable[..., Path], bad: float) -> None:
    array = np.ones((3, 4, 5), np.float32)
    array[1, 2, 3] = array[0, 0, 0] = bad
    path = write(tmp_path / "x.nii.gz", array)
    for read in (lambda: read_image((path,)), lambda: read_label(path)):
        with pytest.raises(VolumeError, match="x.nii.gz: 2 of 60 voxels are NaN or infinite"):
            read()


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    colour = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "rgb.nrrd"))
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.complex64), np.eye(4)), tmp_path / "complex.nii")
    with pytest.raises(VolumeError, match="rgb.nrrd.*3 values a voxel"):
        read_image((tmp_path / "rgb.nrrd",))
    with pytest.raises(VolumeError, match="complex.nii.*complex"):
        read_image((tmp_path / "complex.nii",))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x1f\x8b\x08\x00rubbish"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_what_is_no_image_is_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=f"x{ending}"):
        read_image((path,))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="gone.nii: no such file"):
        read_label(tmp_path / "gone.nii")


def test_writing_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        write_volume(tmp_path / "a.nii", np.zeros((2, 2, 2)), geometry(np.eye(3)))
    with pytest.raises(VolumeError, match="cannot be written"):
        write_volume(tmp_path / "a.nonsense", marked(SHAPE), geometry(np.eye(3)))
    assert list(tmp_path.iterdir()) == []
    write_segmentation(tmp_path / "a.nii.gz", marked(SHAPE) > 5, geometry(np.eye(3)))
    assert read_label(tmp_path / "a.nii.gz").array.dtype == np.uint8
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
