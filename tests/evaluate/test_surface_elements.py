"""The surface elements against the table of the original implementation, and against surfaces whose area is known."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import correlate
from surface_distance import lookup_tables

from autoseg.evaluate.surface_elements import CORNERS, FULL, element_areas, surface_elements

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 2.0, 5.0), (5.0, 0.7, 0.7), (0.37, 1.9, 1.1)]
KERNEL = np.asarray(lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_of_all_neighbourhoods_equal_the_original_table(spacing) -> None:
    expected = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    theirs = [sum(int(KERNEL[c]) for bit, c in enumerate(CORNERS) if code >> bit & 1) for code in range(FULL + 1)]
    np.testing.assert_allclose(element_areas(spacing), expected[theirs], rtol=1e-12)


def test_areas_do_not_depend_on_inside_and_outside_or_on_mirroring() -> None:
    areas = element_areas((2.0, 1.0, 0.5))
    for code in range(FULL + 1):
        assert areas[code] == pytest.approx(areas[FULL - code])
        for axis in range(3):
            mirrored = [tuple(1 - v if a == axis else v for a, v in enumerate(c)) for c in CORNERS]
            assert areas[code] == pytest.approx(
                areas[sum(1 << CORNERS.index(m) for b, m in enumerate(mirrored) if code >> b & 1)]
            )


def test_elements_stand_where_the_voxels_differ(rng: np.random.Generator) -> None:
    mask = rng.random((5, 7, 6)) < 0.4
    points, areas = surface_elements(mask, (2.0, 1.0, 1.5))
    codes = correlate(np.pad(mask, [(0, 1)] * 3).astype(np.uint8), KERNEL, mode="constant")
    np.testing.assert_array_equal(points, np.argwhere((codes != 0) & (codes != FULL)))
    expected = lookup_tables.create_table_neighbour_code_to_surface_area((2.0, 1.0, 1.5))[codes]
    np.testing.assert_allclose(areas, expected[tuple(points.T)])


def test_a_box_has_the_area_of_its_faces() -> None:
    mask = np.ones((40, 50, 60), dtype=bool)
    spacing = np.array([2.0, 1.0, 0.5])
    z, y, x = np.array(mask.shape) * spacing
    _, areas = surface_elements(mask, tuple(spacing))
    assert areas.sum() == pytest.approx(2 * (z * y + z * x + y * x), rel=0.03)  # edges are cut off by half a voxel


def test_a_single_slice_has_a_contour_and_no_faces() -> None:
    """The original's 2-D table, times the thickness of the slice."""
    for values in itertools.product((False, True), repeat=4):
        mask = np.zeros((1, 4, 4), dtype=bool)
        mask[0, 1:3, 1:3] = np.reshape(values, (2, 2))
        points, areas = surface_elements(mask, (3.0, 1.2, 0.7))
        lengths = lookup_tables.create_table_neighbour_code_to_contour_length((1.2, 0.7))
        kernel = np.asarray(lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL)
        codes = correlate(np.pad(mask[0], [(0, 1)] * 2).astype(np.uint8), kernel, mode="constant")
        inner = np.argwhere((codes != 0) & (codes != 15))
        np.testing.assert_array_equal(points[:, 1:], inner)
        np.testing.assert_allclose(areas, 3.0 * lengths[codes[tuple(inner.T)]])
        assert (points[:, 0] == 0).all()
