"""The fingerprint against numbers that nibabel and plain numpy give; all problems of a dataset at once."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import skimage.measure

from autoseg.data.dataset import find_dataset
from autoseg.data.workspace import Workspace
from autoseg.errors import DatasetError
from autoseg.fingerprint import extract
from autoseg.fingerprint.extract import extract_fingerprint
from autoseg.fingerprint.fingerprint import Fingerprint, read_fingerprint

RAS = np.diag([1.0, 1.0, 1.0, 1.0])
LABELS = {"background": 0, "organ": 1, "lesion": 5, "ignore": 9}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cases of two channels, stored RAS, LPS and PIR, of different spacing, with empty margins."""
    root = tmp_path / "Dataset001_Odd"
    for number, (spacing, axes) in enumerate(
        [((1.0, 1.5, 3.0), "RAS"), ((0.5, 0.75, 2.0), "LPS"), ((2.0, 1.25, 1.0), "PIR")]
    ):
        rng = np.random.default_rng(number)
        affine = np.diag([*spacing, 1.0])
        images = [np.zeros((12, 14, 10), np.float32) for _ in range(2)]
        for image in images:
            image[1 + number : 11, 2:13, 1:9] = rng.normal(50 * (number + 1), 30, (10 - number, 11, 8))
        label = np.zeros((12, 14, 10), np.uint8)
        label[4:9, 5:9, 3:6], label[5:7, 5:7, 4:6], label[0, 0, 0] = 1, 5, 9
        if number == 1:
            label[label == 5] = 1
        for name, array in [(f"imagesTr/c{number}_{c:04d}", image) for c, image in enumerate(images)] + [
            (f"labelsTr/c{number}", label)
        ]:
            path = root / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(array, affine)
            turn = nibabel.orientations.ornt_transform(
                nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes)
            )
            nibabel.save(image.as_reoriented(turn), path)
    describe(root, channel_names={"0": "T1", "1": "T2"}, labels=LABELS)
    return root


def describe(root: Path, **fields: Any) -> None:
    (root / "dataset.json").write_text(json.dumps({"numTraining": 3, "file_ending": ".nii.gz", **fields}))


def measure(folder: Path, workers: int = 1) -> Fingerprint:
    return extract_fingerprint(find_dataset(str(folder), Workspace(folder)), num_workers=workers)


def by_hand(folder: Path, case: str) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Return image (C, z, y, x), label and spacing in the file's own order of axes."""
    images = [nibabel.load(folder / "imagesTr" / f"{case}_{c:04d}.nii.gz") for c in range(2)]
    label = np.asarray(nibabel.load(folder / "labelsTr" / f"{case}.nii.gz").dataobj)
    return np.stack([image.get_fdata().T for image in images]), label.T, images[0].header.get_zooms()[::-1]


def test_each_case_equals_what_is_found_by_hand(folder: Path) -> None:
    found = measure(folder)
    assert [case.orientation for case in found.cases] == ["RAS", "LPS", "PIR"]
    for case in found.cases:
        image, label, spacing = by_hand(folder, case.name)
        nonzero = np.argwhere(image.any(axis=0))
        extent = np.ptp(nonzero, axis=0) + 1
        order = [0, 1, 2] if case.orientation != "PIR" else [1, 2, 0]  # file axes x, y, z run to P, I and R
        assert case.shape == tuple(label.shape[axis] for axis in order)
        assert case.shape_after_crop == tuple(extent[axis] for axis in order)
        np.testing.assert_allclose(case.spacing, [spacing[axis] for axis in order], rtol=1e-6)
        assert case.label_voxels == {name: int((label == value).sum()) for name, value in LABELS.items()}


def test_intensities_equal_those_of_all_foreground_voxels(folder: Path) -> None:
    """Every case weighs the same, whatever the number of its voxels."""
    found = measure(folder)
    for channel, intensities in enumerate(found.intensities):
        values = []
        for case in found.cases:
            image, label, _ = by_hand(folder, case.name)
            values.append(image[channel][(label > 0) & (label != 9)])
        weights = np.concatenate([np.full(part.size, 1 / part.size) for part in values]) / len(values)
        everything = np.concatenate(values)
        mean = (weights * everything).sum()
        assert intensities.mean == pytest.approx(mean, rel=1e-6)
        assert intensities.std == pytest.approx(np.sqrt((weights * (everything - mean) ** 2).sum()), rel=1e-6)
        assert (intensities.min, intensities.max) == (everything.min(), everything.max())
        for quantile, value in (
            (0.005, intensities.percentile_00_5),
            (0.5, intensities.median),
            (0.995, intensities.percentile_99_5),
        ):
            below, above = weights[everything < value].sum(), weights[everything <= value].sum()
            assert below <= quantile + 1e-9 and above >= quantile - 1e-9
    relative = [np.prod(case.shape_after_crop) / np.prod(case.shape) for case in found.cases]
    assert found.median_relative_size_after_cropping == pytest.approx(np.median(relative))


def test_components_are_skimages(folder: Path) -> None:
    """A speck apart and one that touches by a corner, in the first case."""
    path = folder / "labelsTr" / "c0.nii.gz"
    image = nibabel.load(path)
    label = np.asarray(image.dataobj).copy()
    label[10, 9, 8], label[9, 9, 6] = 1, 1
    nibabel.save(nibabel.Nifti1Image(label, image.affine), path)
    found = measure(folder)
    volumes = []
    for case in found.cases:
        _, label, spacing = by_hand(folder, case.name)
        regions = skimage.measure.label(label == 1, connectivity=3)
        own = np.sort(np.bincount(regions.ravel())[1:] * np.prod(spacing, dtype=float))
        volumes.append(own)
        entry = case.components["organ"]
        assert entry.count == len(own)
        assert [entry.min_mm3, entry.median_mm3, entry.max_mm3] == pytest.approx([own[0], np.median(own), own[-1]])
        assert case.field_of_view_mm == pytest.approx(np.array(case.shape) * case.spacing)
    together = found.components["organ"]
    assert found.cases[0].components["organ"].count == 2
    assert together.count == sum(map(len, volumes))
    quartiles = [together.quartile_1_mm3, together.median_mm3, together.quartile_3_mm3]
    assert quartiles == pytest.approx(np.quantile(np.concatenate(volumes), [0.25, 0.5, 0.75]))
    assert found.cases[1].components["lesion"].count == 0 and found.cases[1].components["lesion"].max_mm3 is None
    assert set(found.components) == {"organ", "lesion"}


def test_whole_numbers_are_never_sampled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (folder / "imagesTr").iterdir():
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.rint(image.get_fdata()).astype(np.int16), image.affine), path)
    everything = measure(folder)
    monkeypatch.setattr(extract, "MAX_VALUES", 3)
    assert measure(folder) == everything


def test_equal_weights_give_numpys_quantiles(rng: np.random.Generator) -> None:
    values = rng.normal(size=1001).astype(np.float32)
    found = extract._weighted_quantiles(values, np.ones(1001), (0.005, 0.25, 0.5, 0.995))
    np.testing.assert_array_equal(found, np.quantile(values, (0.005, 0.25, 0.5, 0.995), method="inverted_cdf"))


def test_weighted_quantiles_equal_repeated_values(rng: np.random.Generator) -> None:
    values, repeats = rng.normal(size=50).astype(np.float32), rng.integers(1, 9, 50)
    quantiles = (0.07, 0.31, 0.5, 0.93)
    found = extract._weighted_quantiles(values, repeats.astype(float), quantiles)
    np.testing.assert_array_equal(found, np.quantile(np.repeat(values, repeats), quantiles, method="inverted_cdf"))


def test_the_number_of_threads_changes_nothing(folder: Path) -> None:
    assert measure(folder, 1) == measure(folder, 3)


def test_a_sample_of_the_values_is_near_all_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = measure(folder)
    monkeypatch.setattr(extract, "MAX_VALUES", 90)
    sampled = measure(folder)
    assert sampled == measure(folder) != everything
    for a, b in zip(sampled.intensities, everything.intensities):
        assert (a.mean, a.std, a.min, a.max) == (b.mean, b.std, b.min, b.max)
        assert abs(a.median - b.median) < b.std / 2


def test_the_document_survives_its_file(folder: Path, tmp_path: Path) -> None:
    from autoseg.documents import write_document

    found = measure(folder)
    write_document(tmp_path / "fingerprint.json", found)
    assert read_fingerprint(tmp_path / "fingerprint.json") == found
    assert found.label_scheme.ignore_value == 9


def test_progress_is_told_of_each_case(folder: Path) -> None:
    seen: list[str] = []
    extract_fingerprint(
        find_dataset(str(folder), Workspace(folder)), num_workers=2, on_case=lambda case: seen.append(case.name)
    )
    assert sorted(seen) == ["c0", "c1", "c2"]


def test_all_problems_come_in_one_message(folder: Path) -> None:
    (folder / "imagesTr" / "c0_0000.nii.gz").write_bytes(b"rubbish")
    label = nibabel.load(folder / "labelsTr" / "c1.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.full(label.shape, 3, np.uint8), label.affine), folder / "labelsTr" / "c1.nii.gz"
    )
    label = nibabel.load(folder / "labelsTr" / "c2.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(label.dataobj), label.affine @ np.diag([1, 1, 2, 1])),
        folder / "labelsTr" / "c2.nii.gz",
    )
    with pytest.raises(DatasetError) as caught:
        measure(folder, 2)
    message = str(caught.value)
    assert "c0_0000.nii.gz" in message and "label values 3" in message and "spacing" in message and "\n" not in message


def test_a_dataset_without_foreground_is_refused(folder: Path) -> None:
    for path in (folder / "labelsTr").iterdir():
        label = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), path)
    with pytest.raises(DatasetError, match="no case has a voxel of organ, lesion"):
        measure(folder)


def test_real_cases_have_the_statistics_that_numpy_finds(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "Dataset003_LiverMini"
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
        for path in source.joinpath(part).glob("ts_00*"):
            (tmp_path / part / path.name).symlink_to(path)
    (tmp_path / "dataset.json").write_text((source / "dataset.json").read_text())
    found = measure(tmp_path, 2)
    parts = []
    for case in found.cases:
        image = nibabel.load(tmp_path / "imagesTr" / f"{case.name}_0000.nii.gz").get_fdata()
        label = np.asarray(nibabel.load(tmp_path / "labelsTr" / f"{case.name}.nii.gz").dataobj)
        parts.append(image[label > 0])
        assert case.label_voxels["liver"] == (label == 1).sum()
    assert found.intensities[0].mean == pytest.approx(np.mean([part.mean() for part in parts]), rel=1e-6)
