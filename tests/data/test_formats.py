"""Every format against an independent reader; files that are cut short, odd or coloured are refused in one line."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data.formats import FILE_ENDINGS, read_file
from autoseg.data.volumes import read_image, read_label, same_geometry
from autoseg.errors import VolumeError

AFFINE = np.array([[0, -1.5, 0, 10], [0.75, 0, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1.0]])
"""RAS: x runs to anterior, y to left."""


def itk_image(array: np.ndarray) -> sitk.Image:
    """Return a SimpleITK image on the grid of AFFINE."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.75, 1.5, 2.5)), image.SetOrigin((-10.0, 20.0, 5.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    return image


def check(stored, array: np.ndarray) -> None:
    """Compare voxels and grid with those of AFFINE."""
    np.testing.assert_array_equal(stored.array[0], array)
    np.testing.assert_allclose(stored.geometry.spacing, (2.5, 1.5, 0.75), rtol=1e-6)
    np.testing.assert_allclose(stored.geometry.origin, (-10, 20, 5), rtol=1e-6)
    np.testing.assert_allclose(stored.geometry.direction, (0, 1, 0, -1, 0, 0, 0, 0, 1), atol=1e-6)


@pytest.fixture
def array(rng: np.random.Generator) -> np.ndarray:
    """Voxels (z, y, x)."""
    return rng.integers(-900, 900, (4, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_simpleitk_writes(tmp_path: Path, array: np.ndarray, ending: str, compressed: bool) -> None:
    path = tmp_path / f"Lunge ü{ending}"
    sitk.WriteImage(itk_image(array), str(path), compressed)
    check(read_file(path, as_float=True), array)
    assert read_file(path, as_float=False).array.dtype == np.int16


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgz", ".mgh"])
@pytest.mark.parametrize("version", [1, 2])
def test_what_nibabel_writes(tmp_path: Path, array: np.ndarray, ending: str, version: int) -> None:
    kind = nibabel.MGHImage if "mg" in ending else {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version]
    path = tmp_path / f"a b{ending}"
    nibabel.save(kind(array.T, AFFINE), path)
    check(read_file(path, as_float=True), array)
    assert read_file(path, as_float=False).array.dtype == np.int16


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", "<i4", ">f4", "<f8", "<i8", "<u8"])
def test_nifti_of_every_number_type(tmp_path: Path, dtype: str, rng: np.random.Generator) -> None:
    values = rng.integers(0, 100, (6, 5, 4)).astype(dtype)
    path = tmp_path / "a.nii.gz"
    header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    nibabel.save(nibabel.Nifti1Image(values, AFFINE, header, dtype=dtype), path)
    for as_float in (True, False):
        stored = read_file(path, as_float=as_float).array
        np.testing.assert_array_equal(stored[0], values.T)
        assert stored.dtype.isnative and (stored.dtype == np.float32) == (as_float or dtype == ">f4")


def test_the_volumes_of_a_4d_file_are_channels_and_it_is_read_once(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoseg.data import formats

    values = rng.normal(size=(6, 5, 4, 3)).astype(np.float32)
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    read, original = [], formats.READERS[".nii.gz"]
    monkeypatch.setitem(formats.READERS, ".nii.gz", lambda p, **o: (read.append(p), original(p, **o))[1])
    volume = read_image((path, path, path))
    np.testing.assert_array_equal(volume.array, values.T)
    assert read == [path]
    for wrong in ((path,), (path, path)):
        with pytest.raises(VolumeError, match="a 4-D image of 3 volumes"):
            read_image(wrong)


def test_a_4d_file_beside_a_3d_one(tmp_path: Path, rng: np.random.Generator) -> None:
    two, one = rng.normal(size=(6, 5, 4, 2)).astype(np.float32), rng.normal(size=(6, 5, 4)).astype(np.float32)
    paths = tmp_path / "two.nii", tmp_path / "one.nii"
    for path, values in zip(paths, (two, one)):
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    np.testing.assert_array_equal(read_image((paths[0], paths[1], paths[0])).array, [two.T[0], one.T, two.T[1]])


def test_axes_of_one_voxel_behind_the_third_count_for_nothing(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(array.T[..., None, None], AFFINE), path)
    check(read_file(path, as_float=True), array)


def test_a_2d_nifti_is_one_slice(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(array[0].T, AFFINE), path)
    check(read_file(path, as_float=True), array[:1])


@pytest.mark.parametrize("shape", [(6, 5, 4, 1, 3), (40,), (27307, 1, 6)])
def test_what_is_no_volume_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.float32), AFFINE), path)
    with pytest.raises(VolumeError, match="a.nii: (has 5 dimensions|is no volume)"):
        read_file(path, as_float=True)


def test_spacing_in_other_units_is_turned_into_millimetres(tmp_path: Path, array: np.ndarray) -> None:
    for version in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        image = version(array.T, np.diag([0.001, 0.002, 0.003, 1]))
        image.header.set_xyzt_units("meter")
        nibabel.save(image, tmp_path / "a.nii")
        np.testing.assert_allclose(read_file(tmp_path / "a.nii", as_float=True).geometry.spacing, (3, 2, 1), rtol=1e-5)


def test_a_sheared_sform_gives_way_to_the_qform_and_this_is_said(tmp_path: Path, array: np.ndarray) -> None:
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.9
    image = nibabel.Nifti1Image(array.T, AFFINE)
    image.set_qform(AFFINE, 1), image.set_sform(sheared, 1)
    nibabel.save(image, tmp_path / "a.nii")
    stored = read_file(tmp_path / "a.nii", as_float=True)
    check(stored, array)
    assert "sheared" in stored.remarks[0].found and "gantry" in stored.remarks[0].found
    assert stored.geometry == read_file(tmp_path / "a.nii", as_float=False).geometry


def test_a_sheared_sform_alone_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.9
    image = nibabel.Nifti1Image(array.T, None)
    image.set_sform(sheared, 1)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(VolumeError, match="sheared grid .*resample"):
        read_file(tmp_path / "a.nii", as_float=True)


def test_doubtful_headers_are_remarked_on(tmp_path: Path, array: np.ndarray) -> None:
    plain = nibabel.Nifti1Image(array.T, None)
    plain.header["qform_code"] = plain.header["sform_code"] = 0
    nibabel.save(plain, tmp_path / "none.nii")
    both = nibabel.Nifti1Image(array.T, AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += 3
    both.set_sform(AFFINE, 1), both.set_qform(moved, 1)
    nibabel.save(both, tmp_path / "both.nii")
    assert "neither qform nor sform" in read_file(tmp_path / "none.nii", as_float=True).remarks[0].found
    assert "differs from its" in read_file(tmp_path / "both.nii", as_float=True).remarks[0].found


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("ending", sorted(set(FILE_ENDINGS) - {".nhdr", ".mhd"}))
def test_a_file_that_is_cut_short_is_never_read_wrongly(tmp_path: Path, ending: str, share: float) -> None:
    array = np.random.default_rng(1).integers(1, 30000, (7, 20, 30)).astype(np.uint16)
    (tmp_path / "dataset.json").write_text('{"spacing": [2, 1, 1]}')
    path = tmp_path / f"x{ending}"
    if ending in (".mgz", ".mgh"):
        nibabel.save(nibabel.MGHImage(array.T.astype(np.int16), AFFINE), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array[0] if ending == ".png" else array), str(path))
    whole, content = read_file(path, as_float=False).array, path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    try:
        found = read_file(path, as_float=False).array
    except VolumeError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_a_header_whose_voxels_are_missing_is_refused(tmp_path: Path, array: np.ndarray, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    for other in tmp_path.iterdir():
        if other != path:
            other.write_bytes(other.read_bytes()[:-9])
    with pytest.raises(VolumeError):
        read_file(path, as_float=True)
    for other in tmp_path.iterdir():
        if other != path:
            other.unlink()
    with pytest.raises(VolumeError):
        read_file(path, as_float=True)


def test_a_header_that_promises_a_terabyte_asks_for_no_memory(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float32), AFFINE)
    image.header["dim"][1:4] = 9000
    for path in (tmp_path / "a.nii", tmp_path / "a.nii.gz"):
        content = image.header.binaryblock + bytes(100)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        with pytest.raises(VolumeError, match="truncated"):
            read_file(path, as_float=True)


def test_pictures_take_their_spacing_from_dataset_json(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.integers(0, 65535, (9, 11)).astype(np.uint16)
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "a.tif"):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / name))
        with pytest.raises(VolumeError, match='stores no spacing.*"spacing": .0.5, 0.5.'):
            read_file(folder / name, as_float=True)
    for text, expected in (("[0.5, 0.25]", (1, 0.5, 0.25)), ("[3, 0.5, 0.25]", (3, 0.5, 0.25))):
        (tmp_path / "dataset.json").write_text(f'{{"spacing": {text}}}')
        for name in ("a.png", "a.tif"):
            stored = read_file(folder / name, as_float=False)
            np.testing.assert_array_equal(stored.array, array[None, None])
            assert stored.geometry.spacing == expected
    for wrong in ("[0.5]", "[0, 1]", '"x"', "[true, 1]"):
        (tmp_path / "dataset.json").write_text(f'{{"spacing": {wrong}}}')
        with pytest.raises(VolumeError, match="spacing"):
            read_file(folder / "a.png", as_float=True)


def test_coloured_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"spacing": [1, 1]}')
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 3), np.uint8), isVector=True), str(tmp_path / "a.png"))
    with pytest.raises(VolumeError, match="3 values a voxel"):
        read_file(tmp_path / "a.png", as_float=True)


def test_tiff_of_several_pages_is_a_volume(tmp_path: Path, array: np.ndarray) -> None:
    (tmp_path / "dataset.json").write_text('{"spacing": [2, 1, 1]}')
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.tiff"))
    np.testing.assert_array_equal(read_file(tmp_path / "a.tiff", as_float=True).array[0], array)


def test_stacked_masks_are_read_as_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    from autoseg.data.labels import Labels

    labels = Labels.from_names({"background": 0, "a": 3, "b": 7})
    classes = rng.integers(0, 3, (4, 5, 6))
    masks = np.stack([classes == n for n in range(3)]).astype(np.float64)
    for name, stack in (("all", masks), ("foreground", masks[1:])):
        path = tmp_path / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(stack.T, AFFINE), path)
        np.testing.assert_array_equal(read_label(path, labels).array[0], np.array([0, 3, 7])[classes])
        with pytest.raises(VolumeError, match="4-D mask"):
            read_label(path)


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(VolumeError, match="no known ending.*nii.gz"):
        read_file(tmp_path / "a.txt", as_float=True)


def test_unreadable_files_say_so(tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.nii", np.zeros((2, 3, 4), np.uint8))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(VolumeError, match="Permission denied"):
        read_file(path, as_float=True)


def test_real_odd_files_agree_with_simpleitk(real_data: Path) -> None:
    for name in (
        "affine/flair_oblique19.nii.gz",
        "affine/ct_oblique17_175x248x58.nii.gz",
        "formats/ct_lung_57x78x64.mha",
    ):
        path = real_data / "odd" / name
        image, volume = sitk.ReadImage(str(path)), read_image((path,))
        np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
        assert volume.geometry.direction == image.GetDirection() and volume.geometry.origin == image.GetOrigin()
        assert same_geometry(volume.geometry, read_label(path).geometry) is None
