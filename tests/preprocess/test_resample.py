"""Resampling against scikit-image and batchgenerators, which nnU-Net uses, and against a slice by slice loop."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import resize

import autoseg.preprocess.resample as resample_module
from autoseg.preprocess.resample import (
    coarse_axis,
    matrix_bands,
    resample_classes,
    resample_image,
)

SHAPES = [
    ((20, 33, 27), (31, 25, 40)),
    ((7, 12, 9), (3, 24, 18)),
    ((10, 10, 10), (5, 5, 5)),
    ((1, 20, 20), (1, 30, 15)),
    ((3, 5, 2), (9, 4, 7)),
    ((2, 70, 150), (2, 140, 70)),
]


def _image(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return ndimage.gaussian_filter(rng.standard_normal((2, *shape)), (0, 1, 1, 1)).astype(np.float32) * 100 + 500


def _classes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Blobs of the classes -1 to 3, and some noise."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    classes = np.digitize(smooth / smooth.std(), [-1.5, 0.3, 0.8, 1.3]) - 1
    return np.where(rng.random(shape) < 0.02, rng.integers(0, 4, shape), classes).astype(np.int16)


@pytest.mark.parametrize(("old", "new"), SHAPES)
@pytest.mark.parametrize("order", [0, 1, 3])
def test_images_equal_scikit_image(rng, old, new, order):
    image = _image(rng, old)
    found = resample_image(image, new, order=order, separate_axis=None)
    expected = [resize(c.astype(float), new, order, mode="edge", anti_aliasing=False) for c in image]
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-4 * image.std()


def test_values_stay_within_the_range_of_the_channel(rng):
    image = np.zeros((1, 9, 9, 9), dtype=np.float32)
    image[0, 3:6, 3:6, 3:6] = 1
    found = resample_image(image, (17, 17, 17), order=3, separate_axis=None)
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.4])
def test_a_coarse_axis_takes_the_nearest_slice(rng, axis, factor):
    image = _image(rng, (8, 12, 10))
    new = [13, 9, 17]
    new[axis] = round(image.shape[1 + axis] * factor)
    found = resample_image(image, new, order=3, separate_axis=axis)
    assert np.abs(found - _separately(image, new, axis)).max() < 1e-4 * image.std()


def _separately(image: np.ndarray, new: list[int], axis: int) -> np.ndarray:
    """Resize slice by slice with scikit-image, then take the nearest slices with scipy."""
    in_plane = [size for a, size in enumerate(new) if a != axis]
    results = []
    for channel in image.astype(float):
        slices = [resize(s, in_plane, 3, mode="edge", anti_aliasing=False) for s in np.moveaxis(channel, axis, 0)]
        stack = np.stack(slices)
        positions = (np.arange(new[axis]) + 0.5) * (len(stack) / new[axis]) - 0.5
        grid = np.meshgrid(positions, *(np.arange(n) for n in stack.shape[1:]), indexing="ij")
        results.append(np.moveaxis(ndimage.map_coordinates(stack, grid, order=0, mode="nearest"), 0, axis))
    return np.stack(results)


def test_an_unchanged_shape_returns_the_array_itself(rng):
    image, classes = _image(rng, (4, 5, 6)), _classes(rng, (4, 5, 6))
    assert resample_image(image, (4, 5, 6), order=3, separate_axis=0) is image
    assert resample_classes(classes, (4, 5, 6), order=1, separate_axis=0) is classes


@pytest.mark.parametrize(("old", "new"), SHAPES)
@pytest.mark.parametrize("lowest", [-1, 0, 1])
def test_classes_equal_batchgenerators(rng, old, new, lowest):
    oracle = pytest.importorskip("batchgenerators.augmentations.utils").resize_segmentation
    classes = np.maximum(_classes(rng, old), lowest)
    found = resample_classes(classes, new, order=1, separate_axis=None)
    assert found.dtype == np.int16
    different = found != oracle(classes, new, 1)
    # There, ties are found by exact equality, and where 2/3 x 3/4 should be 1/2 rounding decides.
    assert not (different & (_lead(classes, new) > 1e-9)).any()
    assert different.mean() < 0.02


def _lead(classes: np.ndarray, new: tuple[int, ...]) -> np.ndarray:
    """By how much the first class's interpolated indicator exceeds the second's."""
    masks = [(classes == c).astype(float) for c in range(-1, 4)]
    scores = np.sort([resize(m, new, 1, mode="edge", anti_aliasing=False) for m in masks], axis=0)
    return scores[-1] - scores[-2]


@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_classes_of_order_0_equal_scikit_image(rng, old, new):
    classes = _classes(rng, old)
    expected = resize(classes.astype(float), new, 0, mode="edge", anti_aliasing=False)
    np.testing.assert_array_equal(resample_classes(classes, new, order=0, separate_axis=None), expected)


@pytest.mark.parametrize("depth", [5, 20])
def test_classes_with_a_coarse_axis_are_those_of_each_slice(rng, depth):
    classes = _classes(rng, (10, 12, 14))
    found = resample_classes(classes, (depth, 17, 9), order=1, separate_axis=0)
    slices = [resample_classes(s[None], (1, 17, 9), order=1, separate_axis=None)[0] for s in classes]
    expected = [slices[int(np.floor((i + 0.5) * 10 / depth))] for i in range(depth)]
    np.testing.assert_array_equal(found, expected)


def test_a_tie_goes_to_the_nearest_voxel_and_not_to_the_larger_label():
    classes = np.array([1, 2, 1, 2], dtype=np.int16).reshape(1, 1, 4)
    for size, expected in ((2, [2, 2]), (8, [1, 1, 2, 2, 1, 1, 2, 2])):
        found = resample_classes(classes, (1, 1, size), order=1, separate_axis=None)
        np.testing.assert_array_equal(found[0, 0], expected)


def test_a_map_of_one_class_stays_that_class():
    for label in (-1, 0, 3):
        found = resample_classes(np.full((4, 4, 4), label, dtype=np.int16), (7, 3, 5), order=1, separate_axis=None)
        np.testing.assert_array_equal(found, label)


def test_classes_that_lie_between_all_new_voxels_may_vanish():
    classes = np.zeros((9, 9, 9), dtype=np.int16)
    classes[0, 0, 0] = 1
    assert resample_classes(classes, (3, 3, 3), order=1, separate_axis=None).max() == 0


@pytest.mark.parametrize(
    ("current", "new", "expected"),
    [
        ((5.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
        ((1.0, 3.5, 1.0), (9.0, 1.0, 1.0), 1),  # the current spacing goes first
        ((1.0, 1.0, 1.0), (1.0, 1.0, 3.1), 2),
        ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), None),  # not above the threshold
        ((0.24, 1.25, 1.25), (1.0, 1.0, 1.0), None),  # two coarse axes
        ((0.24, 1.25, 1.25), (4.0, 1.0, 1.0), None),  # and these decide, not the new spacing (as nnU-Net)
        ((0.24, 1.25000002, 1.25), (1.0, 1.0, 1.0), None),  # rounding of a header is no anisotropy
    ],
)
def test_coarse_axis(current, new, expected):
    assert coarse_axis(current, new, 3.0) == expected


def test_bands_cover_each_row_once_and_leave_out_nothing_that_matters():
    dense = ndimage.zoom(np.eye(300), (200 / 300, 1), order=3, mode="nearest", grid_mode=True)
    bands = matrix_bands(300, 200, 3)
    rebuilt = np.zeros_like(dense)
    for band in bands:
        rebuilt[band.rows, band.columns] += band.weights
    np.testing.assert_allclose(rebuilt, dense, atol=1e-7)
    assert sum(band.weights.size for band in bands) < dense.size * 0.6


@pytest.mark.parametrize("separate_axis", [None, 0, 2])
@pytest.mark.parametrize("shape", [(12, 20, 9), (5, 33, 40)])
def test_tensors_are_resampled_as_arrays_are(rng, shape, separate_axis):
    image = rng.normal(size=(9, 21, 30)).astype(np.float32)
    found = resample_module._resample_channel(torch.from_numpy(image), shape, 3, separate_axis)
    expected = resample_image(image[None], shape, order=3, separate_axis=separate_axis)[0]
    assert found.shape == shape and np.allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_resamples_as_the_cpu_does(rng):
    image, shape = rng.normal(size=(2, 9, 21, 30)).astype(np.float32), (12, 20, 9)
    found = resample_image(image, shape, order=3, separate_axis=None, device=torch.device("cuda"))
    assert np.allclose(found, resample_image(image, shape, order=3, separate_axis=None), atol=1e-5)
