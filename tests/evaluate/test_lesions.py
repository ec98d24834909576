"""Detection of lesions against a flood fill and a search over all matchings."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from autoseg.evaluate.lesions import find_lesions, score_lesions


def flood(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Components by a flood fill over the 26 neighbours."""
    left = {tuple(p) for p in np.argwhere(mask).tolist()}
    components = []
    while left:
        found, front = set(), [left.pop()]
        while front:
            point = front.pop()
            found.add(point)
            for step in itertools.product((-1, 0, 1), repeat=3):
                neighbour = tuple(a + b for a, b in zip(point, step))
                if neighbour in left:
                    left.remove(neighbour)
                    front.append(neighbour)
        components.append(found)
    return components


def most_pairs(first: list[set], second: list[set], threshold: float) -> int:
    """The largest matching, by trying every choice for the first lesion in turn."""
    if not first:
        return 0
    best = most_pairs(first[1:], second, threshold)
    for index, other in enumerate(second):
        if first[0] & other and len(first[0] & other) / len(first[0] | other) >= threshold:
            best = max(best, 1 + most_pairs(first[1:], second[:index] + second[index + 1 :], threshold))
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5])
def test_random_shapes_equal_flood_fill_and_full_search(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.standard_normal((10, 14, 12)), 1.2)
    reference, predicted = noise > 0.12, gaussian_filter(rng.standard_normal(noise.shape), 1) * 0.3 + noise > 0.14
    first, second = flood(reference), flood(predicted)
    found = find_lesions(reference, predicted)
    assert (found.num_reference, found.num_predicted) == (len(first), len(second))
    assert found.num_found(threshold) == most_pairs(first, second, threshold)


def test_voxels_that_touch_by_a_corner_are_one_lesion_and_a_gap_parts_them() -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert find_lesions(mask, mask).num_reference == 2


def test_one_blob_finds_one_lesion_only() -> None:
    reference, predicted = np.zeros((2, 1, 1, 9), dtype=bool)
    reference[..., [0, 1, 2, 4, 5, 6]] = predicted[..., :7] = True
    assert score_lesions(reference, predicted, [0.1]) == {
        "lesion_f1_10": pytest.approx(2 / 3), "reference_lesions": 2, "predicted_lesions": 1,
    }  # fmt: skip


def test_an_overlap_equal_to_the_threshold_counts() -> None:
    reference, predicted = np.zeros((2, 2, 2, 4), dtype=bool)
    reference[0, 0, :2] = predicted[0, 0, :1] = True
    assert score_lesions(reference, predicted, [0.5, 0.51]) | {} == {
        "lesion_f1_50": 1.0, "lesion_f1_51": 0.0, "reference_lesions": 1, "predicted_lesions": 1,
    }  # fmt: skip


def test_nothing_to_find_is_undefined_and_nothing_found_is_0() -> None:
    empty, mask = np.zeros((2, 3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    assert score_lesions(empty, empty, [0.1])["lesion_f1_10"] is None
    assert score_lesions(mask, empty, [0.1])["lesion_f1_10"] == 0
    assert score_lesions(empty, mask, [0.1])["lesion_f1_10"] == 0
