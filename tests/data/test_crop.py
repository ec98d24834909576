"""The nonzero box against a search over all voxels."""

import numpy as np
import pytest
from scipy import ndimage

from autoseg.data.crop import nonzero_box, nonzero_mask


@pytest.mark.parametrize("seed", range(6))
def test_the_box_holds_every_nonzero_voxel_and_no_empty_slice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.where(rng.random((2, 9, 11, 8)) > 0.995, rng.normal(size=(2, 9, 11, 8)), 0)
    voxels = np.argwhere(image.any(axis=0))
    box = nonzero_box(image)
    assert [part.start for part in box] == voxels.min(axis=0).tolist()
    assert [part.stop for part in box] == (voxels.max(axis=0) + 1).tolist()


def test_an_empty_image_is_kept_whole() -> None:
    assert nonzero_box(np.zeros((1, 3, 4, 5))) == (slice(0, 3), slice(0, 4), slice(0, 5))


def test_negative_values_count_as_content() -> None:
    image = np.zeros((1, 4, 4, 4))
    image[0, 1, 2, 3] = -5
    assert nonzero_box(image) == (slice(1, 2), slice(2, 3), slice(3, 4))


def test_holes_are_filled_and_do_not_change_the_box() -> None:
    image = np.zeros((2, 9, 9, 9))
    image[0, 2:7, 2:7, 2:7] = 1
    image[0, 4, 4, 4] = 0
    image[1, 4, 4, 8] = 1
    mask = nonzero_mask(image)
    assert mask[4, 4, 4] and mask[4, 4, 8] and mask.sum() == 5**3 + 1
    np.testing.assert_array_equal(mask, ndimage.binary_fill_holes(image.any(axis=0)))
    assert nonzero_box(mask[None]) == nonzero_box(image)
