"""One case there and back: exact in geometry for every orientation, close in overlap where it is resampled."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import resize

from autoseg.data.dataset import Case
from autoseg.data.labels import OUTSIDE_CLASS, Labels, Region
from autoseg.data.volumes import read_label, write_volume
from autoseg.documents import parse_document, to_text
from autoseg.errors import VolumeError
from autoseg.plan.plan import Normalization
from autoseg.preprocess.case import (
    CaseProperties,
    describe_sources,
    preprocess_case,
    resampled_shape,
)
from autoseg.preprocess.restore import restore_segmentation

LABELS = Labels.from_names({"background": 0, "liver": 3, "spleen": 300})
REGIONS = Labels(
    labels={"background": 0, "edema": 1, "core": 2},
    regions={"whole": Region(labels=(1, 2), value=1), "core": Region(labels=(2,), value=2)},
)
SPACING = (2.0, 0.7, 1.3)
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def _direction(order: tuple[int, ...], signs: tuple[int, ...]) -> tuple[float, ...]:
    return tuple((np.eye(3)[list(order)] * signs).ravel().tolist())


def _raw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image with empty margins of different widths, and a label within it."""
    image = np.zeros((2, 12, 14, 16), dtype=np.float32)
    image[:, 1:10, 3:13, 2:12] = rng.standard_normal((2, 9, 10, 10)) + 50
    label = np.zeros(image.shape[1:], dtype=np.int16)
    label[1:10, 3:13, 2:12] = rng.choice([0, 3, 300], (9, 10, 10))
    return image, label


def _one_hot(classes: np.ndarray, num_classes: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([classes == c for c in range(num_classes)]).astype(np.float32))


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5] + ORIENTATIONS[-2:])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_without_resampling_the_way_back_is_exact(rng, build_plan, write_case, order, signs, transpose):
    image, label = _raw(rng)
    case = write_case("case", image, label, spacing=SPACING, direction=_direction(order, signs))
    spacing = preprocess_case(case, build_plan(LABELS, channels=2)).properties.spacing
    plan = build_plan(LABELS, channels=2, transpose=transpose, spacing=tuple(spacing[a] for a in transpose))
    done = preprocess_case(case, plan)
    assert done.image.dtype == np.float32 and done.classes.dtype == np.int16
    assert sorted(done.image.shape[1:]) == [9, 10, 10]
    found = restore_segmentation(_one_hot(done.classes, 3), done.properties, plan)
    np.testing.assert_array_equal(found, label)
    assert found.dtype == np.int16


def test_all_orientations_give_the_same_preprocessed_case(rng, build_plan, write_case):
    """A file that stores the same patient along other axes."""
    image, label = _raw(rng)
    plan = build_plan(LABELS, channels=2, spacing=(1.5, 1.0, 1.0), normalization=_schemes(2, "none"))
    expected = preprocess_case(write_case("lps", image, label, spacing=SPACING), plan)
    case = write_case(
        "ras",
        image[:, :, ::-1, ::-1],
        label[:, ::-1, ::-1],
        spacing=SPACING,
        origin=(10 + 1.3 * 15, -20 + 0.7 * 13, 30.0),
        direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    )
    found = preprocess_case(case, plan)
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.classes, expected.classes)


def _schemes(count: int, name: str, *, use_mask: bool = False) -> tuple[Normalization, ...]:
    return (Normalization(scheme=name, use_mask=use_mask, lower=None, upper=None, mean=None, std=None),) * count


def test_the_steps_are_crop_normalise_resample_in_this_order(rng, build_plan, write_case):
    image, label = _raw(rng)
    plan = build_plan(LABELS, channels=2, spacing=(1.5, 1.0, 1.0))
    done = preprocess_case(write_case("case", image, label, spacing=SPACING), plan)
    cropped = image[:, 1:10, 3:13, 2:12].astype(float)
    shape = (12, 7, 13)  # 9 * 2 / 1.5, 10 * 0.7, 10 * 1.3
    for channel, found in zip(cropped, done.image):
        normal = (channel - channel.mean()) / channel.std()
        np.testing.assert_allclose(found, resize(normal, shape, 3, mode="edge", anti_aliasing=False), atol=1e-4)
    assert done.properties.box == ((1, 10), (3, 13), (2, 12))
    assert done.properties.shape == done.classes.shape == shape


def test_properties_survive_their_document(rng, build_plan, write_case):
    done = preprocess_case(write_case("Fall 1 ä", *_raw(rng)), build_plan(LABELS, channels=2))
    assert parse_document(to_text(done.properties), CaseProperties, where="here") == done.properties
    assert [source.name for source in done.properties.sources] == [
        "Fall 1 ä_0000.nii.gz",
        "Fall 1 ä_0001.nii.gz",
        "Fall 1 ä.nii.gz",
    ]


def test_a_coarse_axis_is_found_after_the_transpose(rng, build_plan, write_case):
    image, label = _raw(rng)
    case = write_case("case", image, label, spacing=(1.0, 1.0, 5.0))
    settings = {"transpose": (2, 0, 1), "spacing": (2.5, 1.2, 1.2), "normalization": _schemes(2, "none")}
    plan = build_plan(LABELS, channels=2, **settings)
    done = preprocess_case(case, plan)
    np.testing.assert_array_equal(done.image[:, 0::2], done.image[:, 1::2])  # each slice twice


def test_a_label_is_read_only_if_wanted(rng, build_plan, write_case):
    case = write_case("case", *_raw(rng))
    plan = build_plan(LABELS, channels=2)
    assert preprocess_case(case, plan, with_label=False).classes is None
    assert preprocess_case(Case("case", case.images, None), plan).classes is None
    assert len(preprocess_case(case, plan, with_label=False).properties.sources) == 2


def test_within_a_mask_the_outside_stays_zero_and_is_marked(build_plan, write_case, rng):
    image = np.zeros((1, 12, 12, 12), dtype=np.float32)
    ball = np.linalg.norm(np.indices((12, 12, 12)) - 5.5, axis=0) < 5
    image[0][ball] = rng.standard_normal(ball.sum()) + 100
    case = write_case("case", image, np.where(ball, 3, 0).astype(np.int16))
    done = preprocess_case(case, build_plan(LABELS, normalization=_schemes(1, "zscore", use_mask=True)))
    inside = ball[tuple(slice(low, high) for low, high in done.properties.box)]
    assert not done.image[0][~inside].any() and (done.classes[~inside] == OUTSIDE_CLASS).all()
    assert (done.classes[inside] >= 0).all()
    assert done.image[0][inside].std() == pytest.approx(1, abs=1e-4)


def test_an_image_of_zeros_is_kept_whole(build_plan, write_case):
    case = write_case("case", np.zeros((1, 5, 6, 7), np.float32), np.zeros((5, 6, 7), np.uint8))
    done = preprocess_case(case, build_plan(LABELS))
    assert done.image.shape == (1, 5, 6, 7) and not done.image.any()


def test_ignored_voxels_stay_ignored(rng, build_plan, write_case):
    labels = Labels.from_names({"background": 0, "liver": 1, "ignore": 2})
    label = np.zeros((8, 8, 8), dtype=np.uint8)
    label[2:5], label[5:] = 1, 2
    case = write_case("case", rng.random((1, 8, 8, 8), dtype=np.float32) + 1, label)
    done = preprocess_case(case, build_plan(labels, spacing=(0.5, 1.0, 1.0)))
    np.testing.assert_array_equal(done.classes[:, 0, 0], [0] * 4 + [1] * 6 + [-1] * 6)


def test_overlapping_regions_are_written_in_their_order(rng, build_plan, write_case):
    label = np.zeros((8, 9, 10), dtype=np.uint8)
    label[2:6, 2:7], label[3:5, 3:5, 2:8] = 1, 2
    case = write_case("case", rng.random((1, 8, 9, 10), dtype=np.float32) + 1, label)
    plan = build_plan(REGIONS)
    done = preprocess_case(case, plan)
    logits = torch.from_numpy(np.stack([done.classes > 0, done.classes == 2]) * 20.0 - 10)
    np.testing.assert_array_equal(restore_segmentation(logits, done.properties, plan), label)
    logits[0] = -1  # a core without the whole is still written
    np.testing.assert_array_equal(restore_segmentation(logits, done.properties, plan), np.where(label == 2, 2, 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_restoring_equals_resizing_all_logits_and_then_the_argmax(rng, build_plan, write_case, dtype):
    image, label = _raw(rng)
    case = write_case("case", image, label, spacing=SPACING)
    plan = build_plan(LABELS, channels=2, spacing=(1.5, 1.0, 1.0))
    properties = preprocess_case(case, plan).properties
    smooth = ndimage.gaussian_filter(rng.standard_normal((3, *properties.shape)), (0, 2, 2, 2))
    logits = torch.from_numpy(smooth).to(dtype)
    scaled = [resize(c, (9, 10, 10), 1, mode="edge", anti_aliasing=False) for c in logits.double().numpy()]
    expected = np.array([0, 3, 300])[np.argmax(scaled, axis=0)]
    found = restore_segmentation(logits, properties, plan)
    assert (found[1:10, 3:13, 2:12] == expected).mean() > 0.999
    assert found.sum() == found[1:10, 3:13, 2:12].sum()


def test_a_resampled_case_comes_back_nearly_the_same(rng, build_plan, write_case):
    ball = np.linalg.norm((np.indices((30, 40, 32)).T - (14, 20, 15)).T, axis=0) < 10
    image = (ball + rng.random((1, 30, 40, 32)) + 1).astype(np.float32)
    case = write_case("case", image, np.where(ball, 3, 0).astype(np.int16), spacing=(1.2, 0.8, 1.0))
    plan = build_plan(LABELS)
    done = preprocess_case(case, plan)
    found = restore_segmentation(_one_hot(done.classes, 3), done.properties, plan)
    assert _dice(found == 3, ball) > 0.97


def test_a_label_on_another_grid_is_refused(rng, build_plan, write_case):
    image, label = _raw(rng)
    case = write_case("case", image, None)
    path = case.images[0].with_name("other.nii.gz")
    geometry = read_label(case.images[0]).geometry.model_copy(update={"spacing": (1.0, 1.0, 2.0)})
    write_volume(path, label, geometry)
    with pytest.raises(VolumeError, match="another grid"):
        preprocess_case(Case("case", case.images, path), build_plan(LABELS, channels=2))


def test_an_undeclared_label_is_refused(rng, build_plan, write_case):
    image, label = _raw(rng)
    with pytest.raises(VolumeError, match=r"case.nii.gz: label values.* are not declared"):
        preprocess_case(write_case("case", image, label), build_plan(REGIONS, channels=2))


def test_logits_of_another_shape_are_refused(rng, build_plan, write_case):
    plan = build_plan(LABELS, channels=2)
    properties = preprocess_case(write_case("case", *_raw(rng)), plan).properties
    with pytest.raises(ValueError, match="case: logits of"):
        restore_segmentation(torch.zeros(3, 4, 4, 4), properties, plan)


def test_resampled_shape_rounds_halves_to_even_and_keeps_a_voxel():
    assert resampled_shape((5, 7, 1), (0.5, 0.5, 0.1), (1.0, 1.0, 1.0)) == (2, 4, 1)


@pytest.mark.parametrize("name", ["hippocampus_003", "hippocampus_004", "hippocampus_006"])
def test_hippocampus_survives_resampling(real_data, build_plan, name):
    folder = real_data / "Dataset004_Hippocampus"
    case = Case(name, (folder / "imagesTr" / f"{name}_0000.nii.gz",), folder / "labelsTr" / f"{name}.nii.gz")
    plan = build_plan(Labels.from_names({"background": 0, "Anterior": 1, "Posterior": 2}), spacing=(0.8, 0.9, 0.7))
    done = preprocess_case(case, plan)
    found = restore_segmentation(_one_hot(done.classes, 3), done.properties, plan)
    label = read_label(case.label).array[0]
    assert found.dtype == np.uint8 and found.shape == label.shape
    assert min(_dice(found == value, label == value) for value in (1, 2)) > 0.95


def test_the_slices_of_a_dicom_folder_and_a_4d_file_are_sources_once(tmp_path):
    folder, file = tmp_path / "series", tmp_path / "a.nii"
    folder.mkdir()
    for path in (folder / "IM1", folder / "IM2", file):
        path.write_bytes(b"x")
    sources = describe_sources(Case("c", (folder, file, file), None), None)
    assert [source.name for source in sources] == ["IM1", "IM2", "a.nii"]
    (folder / "IM2").write_bytes(b"xy")
    assert describe_sources(Case("c", (folder, file, file), None), None) != sources


def test_the_document_that_says_a_pictures_spacing_is_a_source(tmp_path):
    image = tmp_path / "imagesTr" / "case_0000.png"
    image.parent.mkdir()
    image.write_bytes(b"picture")
    case, description = Case("case", (image,), None), tmp_path / "dataset.json"
    assert [source.name for source in describe_sources(case, None)] == ["case_0000.png"]
    description.write_text('{"spacing": [0.5, 0.5]}')
    before = describe_sources(case, None)
    assert [source.name for source in before] == ["case_0000.png", "dataset.json"]
    description.write_text('{"spacing": [0.25, 0.25]}')
    assert describe_sources(case, None) != before
