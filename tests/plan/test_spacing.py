"""Target spacing, transpose and median shape."""

from typing import Any

import pytest

from autoseg.errors import PlanError
from autoseg.plan.spacing import choose_grid, coarsened


def test_the_coarsest_axis_comes_first(make_fingerprint: Any) -> None:
    grid = choose_grid(make_fingerprint(spacing=(0.5, 0.7, 3.0), shape=(200, 180, 40)))
    assert grid.transpose == (2, 0, 1)
    assert grid.spacing == (3.0, 0.5, 0.7)
    assert grid.median_shape == (40, 200, 180)


def test_a_coarse_axis_takes_the_tenth_percentile(make_fingerprint: Any) -> None:
    spacings = [(float(z), 0.5, 0.5) for z in range(2, 12)]
    grid = choose_grid(make_fingerprint(spacing=spacings, shape=[(20, 256, 256)] * 10))
    assert grid.coarse
    assert grid.spacing == (pytest.approx(2.9), 0.5, 0.5)


def test_a_fine_percentile_stays_coarser_than_the_other_axes(make_fingerprint: Any) -> None:
    spacings = [(0.4, 1.0, 1.0)] * 3 + [(5.0, 1.0, 1.0)] * 7
    grid = choose_grid(make_fingerprint(spacing=spacings, shape=[(20, 256, 256)] * 10))
    assert grid.spacing[0] == pytest.approx(1.0 + 1e-5)


def test_many_slices_keep_the_median(make_fingerprint: Any) -> None:
    spacings = [(float(z), 0.5, 0.5) for z in range(2, 12)]
    assert not choose_grid(make_fingerprint(spacing=spacings, shape=[(120, 256, 256)] * 10)).coarse


def test_downsampling_coarsens_every_axis(make_fingerprint: Any) -> None:
    grid = choose_grid(make_fingerprint(), downsample=2.0)
    assert grid.spacing == (2.0, 2.0, 2.0)
    assert grid.median_shape == (18, 25, 18)  # 17.5 rounds to the even 18, as in numpy


def test_slices_keep_their_own_spacing_and_are_coarsened_in_plane(make_fingerprint: Any) -> None:
    fingerprint = make_fingerprint(spacing=(0.5, 0.7, 3.0), shape=(200, 180, 40))
    grid = choose_grid(fingerprint, dimensions=2, downsample=2.0)
    assert grid.spacing == (3.0, 1.0, 1.4)
    assert (grid.network_spacing, grid.network_shape) == ((1.0, 1.4), (100, 90))


def test_an_axis_of_one_voxel_comes_first(make_fingerprint: Any) -> None:
    fingerprint = make_fingerprint(spacing=(1.0, 1.5, 1.5), shape=(1, 200, 256))
    grid = choose_grid(fingerprint, dimensions=2)
    assert (grid.transpose, grid.network_shape, grid.is_flat) == ((0, 1, 2), (200, 256), True)


def test_the_finest_axes_are_coarsened_first(make_fingerprint: Any) -> None:
    steps = coarsened(choose_grid(make_fingerprint(spacing=(5.0, 2.4, 1.0), shape=(50, 100, 300))))
    first, second = next(steps), next(steps)
    assert first.spacing == pytest.approx((5.0, 2.4 * 1.03, 1.03))
    assert second.spacing == pytest.approx((5.0, 2.4 * 1.03**2, 1.03**2))
    grid = next(one for one in steps if one.spacing[2] > 2.5)
    assert grid.spacing[0] == 5.0
    assert next(steps).spacing[0] == pytest.approx(5.15)


def test_slices_and_nothing_are_refused(make_fingerprint: Any) -> None:
    with pytest.raises(PlanError, match="1 x 256 x 256 .* 2-D"):
        choose_grid(make_fingerprint(spacing=(999.0, 1.0, 1.0), shape=(1, 256, 256)))
    with pytest.raises(PlanError, match="no case"):
        choose_grid(make_fingerprint(num_cases=0, num_training=1))
    with pytest.raises(PlanError, match="at least 1"):
        choose_grid(make_fingerprint(), downsample=0.5)
