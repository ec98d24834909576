"""Target spacing, transpose and resampled shapes: nnU-Net's rules (Isensee et al. 2021, supplementary note 2)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.plan import rules


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid that all cases are resampled to.

    Attributes:
        transpose: which canonical axis (z, y, x) becomes which axis of the preprocessed volume; the coarsest comes
            first.
        spacing: mm, after ``transpose``; in 2-D the first one is only the coarsest axis's median.
        median_shape: median over the cases of the resampled shape in voxels, after ``transpose``.
        median_voxels: voxels of the median image; of a coarsened grid before its shape is rounded.
        coarse: whether the coarsest axis got a percentile instead of the median.
        dimensions: number of axes that the network sees, the last ones.
    """

    transpose: tuple[int, int, int]
    spacing: tuple[float, float, float]
    median_shape: tuple[float, float, float]
    median_voxels: float
    coarse: bool
    dimensions: Literal[2, 3] = 3

    @property
    def network_spacing(self) -> tuple[float, ...]:
        """The spacing along the axes that the network sees."""
        return self.spacing[-self.dimensions :]

    @property
    def network_shape(self) -> tuple[float, ...]:
        """The median shape along the axes that the network sees."""
        return self.median_shape[-self.dimensions :]

    @property
    def is_flat(self) -> bool:
        """Whether the images have a single slice."""
        return self.median_shape[0] <= 1


def choose_grid(fingerprint: Fingerprint, *, downsample: float = 1.0, dimensions: Literal[2, 3] = 3) -> Grid:
    """Return the target grid; ``downsample`` coarsens it by that factor along every axis that the network sees.

    Raises:
        PlanError: there are no cases, or the images are too thin for the dimensions.
    """
    if not fingerprint.cases:
        raise PlanError(f"{fingerprint.dataset}: the fingerprint holds no case, so nothing can be planned")
    if downsample < 1:
        raise PlanError(f"downsample: {downsample} would refine the images; give a factor of at least 1")
    spacings = np.array([case.spacing for case in fingerprint.cases], dtype=float)
    shapes = np.array([case.shape_after_crop for case in fingerprint.cases], dtype=float)
    target, coarse = _target_spacing(spacings, shapes)
    first = _first_axis(target, shapes)
    order = (first, *(axis for axis in range(3) if axis != first))
    factors = np.array([downsample if dimensions == 3 or axis != first else 1.0 for axis in range(3)])
    target = target * factors
    resampled = np.round(spacings / target * shapes)[:, order]
    median = np.median(resampled, axis=0)
    z, y, x = (float(v) for v in target[list(order)])
    grid = Grid(
        transpose=(order[0], order[1], order[2]),
        spacing=(z, y, x),
        median_shape=(float(median[0]), float(median[1]), float(median[2])),
        median_voxels=float(np.prod(median)),
        coarse=coarse,
        dimensions=dimensions,
    )
    _check_thickness(grid, fingerprint.dataset)
    return grid


def coarsened(grid: Grid) -> Iterator[Grid]:
    """Yield ever coarser grids, by nnU-Net's steps of 3 %: first the axes finer than half the coarsest, then all."""
    spacing = np.array(grid.spacing)
    while True:
        ratio = spacing.max() / spacing
        spacing = spacing * np.where((ratio > rules.LOW_RESOLUTION_SIMILAR) | (ratio.max() <= rules.LOW_RESOLUTION_SIMILAR),
                                     rules.LOW_RESOLUTION_STEP, 1.0)  # fmt: skip
        shape = np.array(grid.spacing) / spacing * np.array(grid.median_shape)
        z, y, x = (float(value) for value in spacing)
        nz, ny, nx = (float(round(value)) for value in shape)
        yield replace(grid, spacing=(z, y, x), median_shape=(nz, ny, nx), median_voxels=math.prod(shape.tolist()))


def _check_thickness(grid: Grid, dataset: str) -> None:
    shape = " x ".join(f"{n:g}" for n in grid.median_shape)
    if grid.dimensions == 3 and min(grid.median_shape) <= 1:
        raise PlanError(
            f"{dataset}: the median image is {shape} voxels after resampling, so it is 2-D; networks in 3-D need more "
            f"than one slice; plan in 2-D, e.g. nnunet_2d"
        )
    if min(grid.network_shape) <= 1:
        raise PlanError(f"{dataset}: the median image is {shape} voxels after resampling; it is not even 2-D")


def _first_axis(target: np.ndarray, shapes: np.ndarray) -> int:
    """Return the axis that comes first: the coarsest, or the one that the images have a single voxel of."""
    single = np.flatnonzero(np.median(shapes, axis=0) <= 1)
    return int(single[0]) if len(single) == 1 else int(np.argmax(target))


def _target_spacing(spacings: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return the median spacing, in which a coarse axis of few voxels takes a low percentile instead."""
    target, shape = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    widest = max(target[others])
    coarse = target[worst] > rules.ANISOTROPY * widest and shape[worst] * rules.ANISOTROPY < min(shape[others])
    if coarse:
        low = float(np.percentile(spacings[:, worst], rules.COARSE_AXIS_PERCENTILE))
        target[worst] = low if low >= widest else widest + rules.COARSE_AXIS_MARGIN
    return target, bool(coarse)
