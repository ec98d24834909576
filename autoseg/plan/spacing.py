"""Target spacing, transpose and resampled shapes: nnU-Net's rules (Isensee et al. 2021, supplementary note 2)."""

from dataclasses import dataclass

import numpy as np

from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.plan import rules


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid that all cases are resampled to.

    Attributes:
        transpose: which canonical axis (z, y, x) becomes which axis of the preprocessed volume; the coarsest comes
            first. spacing: mm, after ``transpose``. median_shape: median over the cases of the resampled shape in
            voxels, after ``transpose``. coarse: whether the coarsest axis got a percentile instead of the median.
    """

    transpose: tuple[int, int, int]
    spacing: tuple[float, float, float]
    median_shape: tuple[float, float, float]
    coarse: bool

    @property
    def anisotropic(self) -> bool:
        """Whether the coarsest axis is more than three times as coarse as the finest."""
        return max(self.spacing) / min(self.spacing) > rules.ANISOTROPY


def choose_grid(fingerprint: Fingerprint, *, downsample: float = 1.0) -> Grid:
    """Return the target grid; ``downsample`` coarsens it by that factor along every axis.

    Raises:
        PlanError: there are no cases, or the images are 2-D.
    """
    if not fingerprint.cases:
        raise PlanError(f"{fingerprint.dataset}: the fingerprint holds no case, so nothing can be planned")
    if downsample < 1:
        raise PlanError(f"downsample: {downsample} would refine the images; give a factor of at least 1")
    spacings = np.array([case.spacing for case in fingerprint.cases], dtype=float)
    shapes = np.array([case.shape_after_crop for case in fingerprint.cases], dtype=float)
    target, coarse = _target_spacing(spacings, shapes)
    target = target * downsample
    first = int(np.argmax(target))
    order = (first, *(axis for axis in range(3) if axis != first))
    resampled = np.round(spacings / target * shapes)[:, order]
    median = np.median(resampled, axis=0)
    if median.min() <= 1:
        shape = " x ".join(f"{n:g}" for n in median)
        raise PlanError(
            f"{fingerprint.dataset}: the median image is {shape} voxels after resampling, so it is 2-D; "
            f"autoseg plans 3-D networks, which need more than one slice"
        )
    z, y, x = (float(v) for v in target[list(order)])
    return Grid(
        transpose=(order[0], order[1], order[2]),
        spacing=(z, y, x),
        median_shape=(float(median[0]), float(median[1]), float(median[2])),
        coarse=coarse,
    )


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
