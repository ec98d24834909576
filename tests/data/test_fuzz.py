"""Property-based: whatever a file holds and is called, it is read rightly or refused in one line that names it. Nothing
else.
"""

import gzip
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from autoseg.data.dataset import find_dataset
from autoseg.data.formats import read_file
from autoseg.data.labels import IGNORED_CLASS, Labels
from autoseg.data.stored import Stored
from autoseg.data.workspace import Workspace
from autoseg.errors import VolumeError
from autoseg.fingerprint.extract import examine

PROFILE = settings(max_examples=100, deadline=None, derandomize=True)
NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, float("nan"), float("inf")])
DTYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8", "c8")
ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".mgz", ".mgh", ".gipl", ".gipl.gz", ".png", ".tif")


def read(path: Path) -> Stored | None:
    """Read a file in both ways; return what was read, or None where it is refused cleanly. Anything else fails."""
    found = []
    for as_float in (True, False):
        try:
            stored = read_file(path, as_float=as_float)
        except VolumeError as error:
            assert path.stem.split(".")[0] in str(error) and "\n" not in str(error) and ";" in str(error)
            found.append(None)
        else:
            assert stored.array.shape[1:] == stored.geometry.shape and min(stored.geometry.spacing) > 0
            assert np.isfinite(stored.array.astype(np.float64)).all()
            found.append(stored)
    return found[0] if all(found) else None


@st.composite
def nifti_contents(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Bytes of a NIfTI file with an odd header, and whether the header keeps nibabel's promises."""
    version = draw(st.sampled_from([nibabel.Nifti1Header, nibabel.Nifti2Header]))
    order = draw(st.sampled_from("<>"))
    header = version(endianness=order, check=False)
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    dtype = np.dtype(draw(st.sampled_from(DTYPES))).newbyteorder(order)
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header["magic"] = b"n+1" if version is nibabel.Nifti1Header else b"n+2"
    header["vox_offset"] = 352 if version is nibabel.Nifti1Header else 544
    header["scl_slope"], header["scl_inter"] = draw(NUMBERS), draw(NUMBERS)
    header["qform_code"], header["sform_code"] = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    header["pixdim"][:4] = draw(st.lists(NUMBERS, min_size=4, max_size=4))
    for row in ("srow_x", "srow_y", "srow_z"):
        header[row] = draw(st.lists(NUMBERS, min_size=4, max_size=4))
    for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x"):
        header[name] = draw(NUMBERS)
    if draw(st.integers(0, 9)) == 0:
        header["vox_offset"] = draw(NUMBERS) if version is nibabel.Nifti1Header else draw(st.integers(-99, 2**40))
    header["xyzt_units"] = draw(st.sampled_from([0, 1, 2, 3, 10, 255]))
    voxels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    content = bytearray(header.binaryblock + bytes(4) + voxels.tobytes(order="F"))
    damaged = draw(st.booleans())
    for _ in range(draw(st.integers(1, 4)) if damaged else 0):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content), damaged


@PROFILE
@given(nifti_contents(), st.booleans())
def test_headers(content: tuple[bytes, bool], packed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.nii.gz" if packed else "a.nii")
        path.write_bytes(gzip.compress(content[0]) if packed else content[0])
        stored = read(path)
        if stored is not None and not content[1]:
            expected = nibabel.load(path).get_fdata(dtype=np.float64).T
            np.testing.assert_allclose(stored.array.ravel(), expected.astype(np.float32).ravel(), rtol=1e-6, atol=1e-37)


def make_file(path: Path) -> None:
    array = np.random.default_rng(1).integers(1, 30000, (5, 6, 7)).astype(np.uint16)
    (path.parent / "dataset.json").write_text('{"spacing": [2, 1, 1]}')
    if path.suffix in (".mgz", ".mgh"):
        nibabel.save(nibabel.MGHImage(array.T.astype(np.int16), np.eye(4)), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array[0] if path.suffix == ".png" else array), str(path))


@PROFILE
@given(st.sampled_from(ENDINGS), st.floats(0, 1))
def test_truncated_files(ending: str, share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        make_file(path)
        whole = read(path)
        cut = path.with_suffix(".raw") if ending == ".mhd" else path
        content = cut.read_bytes()
        cut.write_bytes(content[: int(share * len(content))])
        found = read(path)
        assert whole is not None
        if found is not None:
            np.testing.assert_array_equal(found.array, whole.array)


@PROFILE
@given(st.sampled_from(ENDINGS), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_files(ending: str, changes: list[tuple[float, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        make_file(path)
        content = bytearray(path.read_bytes())
        for place, value in changes:
            content[int(place * len(content))] = value
        path.write_bytes(content)
        read(path)


@st.composite
def label_arrays(draw: st.DrawFn) -> tuple[Labels, np.ndarray]:
    """Labels and an array of values, most of them declared, as some file might store them."""
    values = draw(st.lists(st.integers(-300, 70000), min_size=1, max_size=6, unique=True).filter(lambda v: 0 not in v))
    names = {"background": 0, **{f"l{n}": value for n, value in enumerate(values)}}
    if len(values) > 1 and draw(st.booleans()):
        names["ignore"] = names.pop("l0")
    pool = st.sampled_from([0, *values]) | st.integers(-400, 80000)
    numbers = np.array(draw(st.lists(pool, min_size=1, max_size=12)), dtype=np.float64)
    jitter = draw(st.sampled_from([0.0, 3e-8, 1e-4, 0.01, 0.4]))
    dtype = np.dtype(draw(st.sampled_from(["u1", "i2", "u2", "i4", "i8", "u8", "f4", "f8"])))
    if dtype.kind == "f":
        return Labels.from_names(names), (numbers + jitter).astype(dtype).reshape(1, 1, -1)
    limits = np.iinfo(dtype)
    assume(limits.min <= numbers.min() and numbers.max() <= limits.max)
    return Labels.from_names(names), numbers.astype(dtype).reshape(1, 1, -1)


@PROFILE
@given(label_arrays())
@example((Labels.from_names({"background": 0, "a": 1}), np.full((1, 1, 1), 0.9999999702)))
def test_label_values(case: tuple[Labels, np.ndarray]) -> None:
    labels, values = case
    plain = [float(value) for value in values.ravel()]
    whole = all(abs(value - round(value)) <= 1e-3 for value in plain)
    declared = all(round(value) in labels.labels.values() for value in plain)
    try:
        classes = labels.encode(values, "a.nii")
    except VolumeError as error:
        assert not (whole and declared) and str(error).startswith("a.nii: ") and "\n" not in str(error)
        return
    assert whole and declared
    for value, number in zip(plain, classes.ravel().tolist()):
        if round(value) == labels.ignore_value:
            assert number == IGNORED_CLASS
        else:
            assert labels.class_values[number] == round(value)
    assert labels.decode(classes).ravel().tolist() == [round(value) for value in plain]


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=25
)


@settings(PROFILE, max_examples=60)
@given(st.lists(NAMES, min_size=2, max_size=3, unique=True), st.sampled_from([".nii.gz", ".nrrd"]))
@example(["Fall 1 ä", "Müller_0000"], ".nii.gz")
@example(["a", "a_0000"], ".nii.gz")
def test_file_names(names: list[str], ending: str) -> None:
    assume(not any(name.startswith(".") for name in names))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "Größe 1"
        for part in ("imagesTr", "labelsTr"):
            (root / part).mkdir(parents=True)
        label = np.zeros((3, 4, 5), np.uint8)
        label[1, 1:3, 1:3] = 1
        for name in names:
            image = np.random.default_rng(len(name)).normal(size=label.shape).astype(np.float32)
            sitk.WriteImage(sitk.GetImageFromArray(image), str(root / "imagesTr" / f"{name}_0000{ending}"))
            sitk.WriteImage(sitk.GetImageFromArray(label), str(root / "labelsTr" / f"{name}{ending}"))
        (root / "dataset.json").write_text(
            f'{{"channel_names": {{"0": "MR"}}, "labels": {{"background": 0, "a": 1}}, "file_ending": "{ending}"}}'
        )
        found = examine(find_dataset(str(root), Workspace(Path(folder))), num_workers=1)
        assert found.fingerprint is not None and found.problems.errors == 0
        assert [case.name for case in found.fingerprint.cases] == sorted(names)


def test_the_reader_of_this_test_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoseg.data import formats

    make_file(tmp_path / "a.nrrd")
    assert read(tmp_path / "a.nrrd") is not None
    monkeypatch.setitem(formats.READERS, ".nrrd", lambda path, *, as_float: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        read(tmp_path / "a.nrrd")
