"""Metrics against the package surface-distance, of whose definition they are a faster implementation."""

from pathlib import Path

import numpy as np
import pytest
import surface_distance as oracle
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from autoseg.data.volumes import read_label
from autoseg.evaluate import metrics
from autoseg.evaluate.metrics import (
    average_surface_distance,
    count_overlap,
    dice,
    hausdorff_95,
    surface_dice,
    surface_distances,
    volume_ml,
)

SPACING = (2.5, 0.8, 1.1)
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # of the oracle itself


def blob(rng: np.random.Generator, shape=(12, 20, 18), threshold: float = 0.03) -> np.ndarray:
    return gaussian_filter(rng.standard_normal(shape), 2) > threshold


def assert_equals_oracle(reference: np.ndarray, predicted: np.ndarray, spacing=SPACING) -> None:
    found = oracle.compute_surface_distances(reference, predicted, spacing)
    assert dice(reference, predicted) == pytest.approx(oracle.compute_dice_coefficient(reference, predicted), abs=1e-12)
    assert hausdorff_95(reference, predicted, spacing) == pytest.approx(
        oracle.compute_robust_hausdorff(found, 95), rel=1e-9
    )
    for tolerance in (0.0, 0.5, 1.0, 2.0, 4.0):
        expected = oracle.compute_surface_dice_at_tolerance(found, tolerance)
        assert surface_dice(reference, predicted, spacing, tolerance) == pytest.approx(expected, abs=1e-9)
    there, back = oracle.compute_average_surface_distance(found)
    weights = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    assert average_surface_distance(reference, predicted, spacing) == pytest.approx(
        np.average([there, back], weights=weights)
    )


@pytest.mark.parametrize("seed", range(6))
def test_random_shapes_equal_the_original(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_equals_oracle(blob(rng), blob(rng))
    assert_equals_oracle(blob(rng, threshold=0.1), rng.random((12, 20, 18)) < 0.01)


def test_shifted_eroded_and_grown_shapes_equal_the_original(rng: np.random.Generator) -> None:
    mask = blob(rng)
    for other in (np.roll(mask, 1, 0), np.roll(mask, 2, 2), binary_erosion(mask), binary_dilation(mask, iterations=2)):
        assert_equals_oracle(mask, other)


def test_shapes_on_the_border_and_single_voxels_equal_the_original() -> None:
    mask, other = np.zeros((2, 6, 9, 7), dtype=bool)
    mask[:, :4] = True
    other[0, 0, 0] = True
    assert_equals_oracle(mask, other)
    plane = np.zeros_like(mask)
    plane[3] = True
    assert_equals_oracle(plane, np.roll(plane, 1, 0))
    assert_equals_oracle(plane, plane[:, ::-1].copy())


@pytest.mark.parametrize("name", ["_nearest_by_tree", "_nearest_by_map"])
def test_tree_and_map_find_the_same_distances(
    name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "VOXELS_PER_POINT", 0 if name == "_nearest_by_tree" else 10**9)
    called = []
    original = getattr(metrics, name)
    monkeypatch.setattr(metrics, name, lambda *arguments: called.append(name) or original(*arguments))
    assert_equals_oracle(blob(rng), blob(rng))
    assert called


def test_a_single_slice_is_measured_along_its_contour(rng: np.random.Generator) -> None:
    for axis in range(3):
        reference, predicted = blob(rng, (1, 30, 26)), blob(rng, (1, 30, 26))
        spacing = (9.0, 0.8, 1.1)
        found = oracle.compute_surface_distances(reference[0], predicted[0], spacing[1:])
        moved = [np.moveaxis(mask, 0, axis) for mask in (reference, predicted)]
        where = [1, 2]
        where.insert(axis, 0)
        turned = tuple(spacing[i] for i in where)
        assert hausdorff_95(*moved, turned) == pytest.approx(oracle.compute_robust_hausdorff(found, 95))
        assert surface_dice(*moved, turned, 1.0) == pytest.approx(oracle.compute_surface_dice_at_tolerance(found, 1.0))


def test_equal_masks_are_perfect(rng: np.random.Generator) -> None:
    mask = blob(rng)
    values = dice(mask, mask), hausdorff_95(mask, mask, SPACING), surface_dice(mask, mask, SPACING, 0.0)
    assert values == (1, 0, 1)
    assert average_surface_distance(mask, mask, SPACING) == 0


def test_two_empty_masks_are_undefined() -> None:
    empty = np.zeros((4, 5, 6), dtype=bool)
    assert dice(empty, empty) is None
    assert hausdorff_95(empty, empty, SPACING) is None
    assert surface_dice(empty, empty, SPACING, 1.0) is None
    assert average_surface_distance(empty, empty, SPACING) is None


@pytest.mark.parametrize("reverse", [False, True])
def test_one_empty_mask_is_the_worst_possible(reverse: bool) -> None:
    empty = np.zeros((4, 5, 6), dtype=bool)
    mask = empty.copy()
    mask[1:3, 2, 2] = True
    pair = (empty, mask) if reverse else (mask, empty)
    diagonal = float(np.linalg.norm(np.array([4, 5, 6]) * SPACING))
    assert dice(*pair) == 0
    assert surface_dice(*pair, SPACING, 1e6) == 0
    assert hausdorff_95(*pair, SPACING) == pytest.approx(diagonal)
    assert average_surface_distance(*pair, SPACING) == pytest.approx(diagonal)


def test_no_distance_exceeds_the_diagonal() -> None:
    near, far = np.zeros((2, 4, 5, 6), dtype=bool)
    near[0, 0, 0] = far[-1, -1, -1] = True
    diagonal = float(np.linalg.norm(np.array([4, 5, 6]) * SPACING))
    assert (hausdorff_95(near, far, SPACING) or 0) <= diagonal


def test_a_distance_equal_to_the_tolerance_counts_whatever_float32_made_of_the_spacing() -> None:
    first, second = np.zeros((2, 8, 8, 8), dtype=bool)
    first[:4], second[:5] = True, True
    for value in (1.0, float(np.float32(0.1)) * 10, 1.0000002):
        found = surface_distances(first, second, (value, 1.0, 1.0))
        assert found is not None and found.dice(1.0) == 1
        assert found.dice(0.99) < 1


def test_volume_is_in_millilitres() -> None:
    assert volume_ml(np.ones((10, 10, 10), dtype=bool), (2.0, 1.0, 0.5)) == pytest.approx(1.0)


def test_real_labels_equal_the_original(real_data: Path) -> None:
    for path in sorted((real_data / "Dataset004_Hippocampus" / "labelsTr").glob("*.nii.gz"))[:3]:
        volume = read_label(path)
        for value in (1, 2):
            mask = volume.array[0] == value
            for other in (np.roll(mask, 1, 0), binary_erosion(mask), volume.array[0] > 0):
                assert_equals_oracle(mask, other, volume.geometry.spacing)


@pytest.mark.parametrize("seed", range(4))
def test_overlaps_equal_counting_voxel_by_voxel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, predicted = blob(rng, (4, 5, 6)), blob(rng, (4, 5, 6), threshold=0.0)
    first, second = ({tuple(p) for p in np.argwhere(mask)} for mask in (reference, predicted))
    overlap = count_overlap(reference, predicted)
    assert overlap.iou == pytest.approx(len(first & second) / len(first | second))
    assert overlap.sensitivity == pytest.approx(len(first & second) / len(first))
    assert overlap.precision == pytest.approx(len(first & second) / len(second))


def test_overlaps_of_empty_masks_are_the_worst_or_undefined() -> None:
    empty, mask = np.zeros((2, 3, 4, 5), dtype=bool)
    mask[1, 1] = True
    for pair in ((empty, mask), (mask, empty)):
        overlap = count_overlap(*pair)
        assert (overlap.dice, overlap.iou, overlap.sensitivity, overlap.precision) == (0, 0, 0, 0)
    both = count_overlap(empty, empty)
    assert (both.dice, both.iou, both.sensitivity, both.precision) == (None, None, None, None)
