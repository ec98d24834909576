"""Metrics of one mask against another: boolean arrays (Z, Y, X) with the spacing (z, y, x) in mm.

Surface metrics follow the definition of Nikolov et al., "Deep learning to achieve clinically applicable segmentation of
head and neck anatomy" (2018), and give the numbers of their package ``surface-distance``. What an empty mask means:

* Both masks are empty: None. Nothing is there and nothing was found, which is no measure of overlap.
* One is empty: overlaps are 0, sensitivity and precision too, and distances are the diagonal of the image, the largest
  that the image allows. A structure that was missed then never scores better than one found in the wrong place, and no
  case drops out of a mean because its prediction failed. A volume difference needs no such value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from autoseg.evaluate.boxes import common_box, occupied_box
from autoseg.evaluate.surface_elements import surface_elements

Mask = NDArray[np.bool_]

TOLERANCE_SLACK_MM = 1e-5
"""A distance this little above the tolerance counts as equal to it: NIfTI stores spacings in float32, so that
four steps of 0.7 mm are not exactly 2.8 mm."""
VOXELS_PER_POINT = 16
"""How many voxels of a distance map cost as much as one point of a search tree: measured 0.07 us against 1.1 us."""

TREE_THREADS = 2
"""That search a tree. Few, since the cases of a folder are scored in threads of their own."""


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces, element by element.

    Attributes:
        reference_distances: distance in mm of each element of the reference surface to the nearest element of the
            predicted one, infinite where there is none.
        reference_areas: area in mm^2 of these elements.
        predicted_distances: the same from the predicted surface to the reference.
        predicted_areas: area in mm^2 of these elements.
        worst: diagonal of the image in mm, given in place of an infinite distance.
    """

    reference_distances: NDArray[np.float64]
    reference_areas: NDArray[np.float64]
    predicted_distances: NDArray[np.float64]
    predicted_areas: NDArray[np.float64]
    worst: float

    def hausdorff(self, percent: float) -> float:
        """Return the larger of the two area-weighted percentiles of the distances, in mm."""
        sides = ((self.reference_distances, self.reference_areas), (self.predicted_distances, self.predicted_areas))
        return min(self.worst, max(_percentile(distances, areas, percent) for distances, areas in sides if len(areas)))

    def dice(self, tolerance: float) -> float:
        """Return the share of both surfaces' area that lies within ``tolerance`` mm of the other surface."""
        limit = tolerance + TOLERANCE_SLACK_MM
        near_reference = self.reference_areas[self.reference_distances <= limit].sum()
        near_predicted = self.predicted_areas[self.predicted_distances <= limit].sum()
        return float((near_reference + near_predicted) / (self.reference_areas.sum() + self.predicted_areas.sum()))

    def average(self) -> float:
        """Return the mean distance in mm over the area of both surfaces."""
        total = self.reference_distances @ self.reference_areas + self.predicted_distances @ self.predicted_areas
        return min(self.worst, float(total / (self.reference_areas.sum() + self.predicted_areas.sum())))


@dataclass(frozen=True)
class Overlap:
    """Voxels of two masks: of each, and of both at once. Every share is None if both masks are empty."""

    reference: int
    predicted: int
    common: int

    @property
    def dice(self) -> float | None:
        """Twice the common voxels over both masks' voxels (Dice, 1945); 0 if one is empty."""
        return self._share(2 * self.common, self.reference + self.predicted)

    @property
    def iou(self) -> float | None:
        """The common voxels over those of the union (Jaccard, 1912); 0 if one is empty."""
        return self._share(self.common, self.reference + self.predicted - self.common)

    @property
    def sensitivity(self) -> float | None:
        """The part of the reference that was found; 0 if either is empty, also where there was nothing to find."""
        return self._share(self.common, self.reference)

    @property
    def precision(self) -> float | None:
        """The part of the prediction that is right; 0 if either is empty, also where nothing was predicted."""
        return self._share(self.common, self.predicted)

    def _share(self, part: int, whole: int) -> float | None:
        if not self.reference and not self.predicted:
            return None
        return part / whole if whole else 0.0


def count_overlap(reference: Mask, predicted: Mask) -> Overlap:
    """Count the voxels of two masks of one shape."""
    common = int(np.count_nonzero(reference & predicted))
    return Overlap(int(np.count_nonzero(reference)), int(np.count_nonzero(predicted)), common)


def dice(reference: Mask, predicted: Mask) -> float | None:
    """Return twice the common voxels over both masks' voxels (Dice, 1945); 0 if one is empty, None if both are."""
    return count_overlap(reference, predicted).dice


def hausdorff_95(reference: Mask, predicted: Mask, spacing: Sequence[float]) -> float | None:
    """Return the 95th percentile of the area-weighted surface distances in mm, the larger of the two directions.

    The diagonal of the image if one mask is empty, None if both are.
    """
    surfaces = surface_distances(reference, predicted, spacing)
    return None if surfaces is None else surfaces.hausdorff(95)


def surface_dice(reference: Mask, predicted: Mask, spacing: Sequence[float], tolerance: float) -> float | None:
    """Return the normalised surface Dice at ``tolerance`` mm; 0 if one mask is empty, None if both are."""
    surfaces = surface_distances(reference, predicted, spacing)
    return None if surfaces is None else surfaces.dice(tolerance)


def average_surface_distance(reference: Mask, predicted: Mask, spacing: Sequence[float]) -> float | None:
    """Return the mean distance in mm over the area of both surfaces.

    The diagonal of the image if one mask is empty, None if both are.
    """
    surfaces = surface_distances(reference, predicted, spacing)
    return None if surfaces is None else surfaces.average()


def volume_ml(mask: Mask, spacing: Sequence[float]) -> float:
    """Return the volume of a mask in millilitres."""
    return float(np.count_nonzero(mask) * np.prod(spacing) / 1000)


def surface_distances(
    reference: Mask, predicted: Mask, spacing: Sequence[float], *, image_shape: Sequence[int] | None = None
) -> SurfaceDistances | None:
    """Measure the distances between the surfaces of two masks of one shape; None if both are empty.

    Args:
        reference: the mask, or a box of it that holds all of both masks (see ``common_box``).
        predicted: the same of the other mask.
        spacing: mm (z, y, x).
        image_shape: of the image that such a box was cut from, whose diagonal is the worst distance.
    """
    box = common_box((occupied_box(reference), occupied_box(predicted)), reference.shape)
    if box is None:
        return None
    first, first_areas = surface_elements(reference[box], spacing)
    second, second_areas = surface_elements(predicted[box], spacing)
    scale = np.asarray(spacing, dtype=float)
    return SurfaceDistances(
        reference_distances=_distances(first, second, scale),
        reference_areas=first_areas,
        predicted_distances=_distances(second, first, scale),
        predicted_areas=second_areas,
        worst=float(np.linalg.norm(np.asarray(image_shape or reference.shape) * scale)),
    )


def _distances(points: NDArray[np.intp], targets: NDArray[np.intp], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance in mm of each lattice point (N, 3) to the nearest target, infinite if there is none."""
    if not len(targets) or not len(points):
        return np.full(len(points), np.inf)
    extent = np.maximum(points.max(axis=0), targets.max(axis=0)) + 1
    first, second = (np.ravel_multi_index(tuple(one.T), extent) for one in (points, targets))
    apart = ~np.isin(first, second, assume_unique=True)  # much of two surfaces is often the same
    distances = np.zeros(len(points))
    distances[apart] = _distances_apart(points[apart], targets, scale, extent)
    return distances


def _distances_apart(
    points: NDArray[np.intp], targets: NDArray[np.intp], scale: NDArray[np.float64], extent: NDArray[np.intp]
) -> NDArray[np.float64]:
    dense = (len(points) + len(targets)) * VOXELS_PER_POINT / 2 > np.prod(extent)
    nearest = _nearest_by_map(points, targets, scale, extent) if dense else _nearest_by_tree(points, targets, scale)
    return np.asarray(np.linalg.norm((nearest - points) * scale, axis=1))  # from whole steps: equal distances are equal


def _nearest_by_tree(
    points: NDArray[np.intp], targets: NDArray[np.intp], scale: NDArray[np.float64]
) -> NDArray[np.intp]:
    tree = KDTree(targets * scale, compact_nodes=False, balanced_tree=False)
    return np.asarray(targets[tree.query(points * scale, workers=TREE_THREADS)[1]])


def _nearest_by_map(
    points: NDArray[np.intp], targets: NDArray[np.intp], scale: NDArray[np.float64], extent: NDArray[np.intp]
) -> NDArray[np.intp]:
    outside = np.ones(extent, dtype=bool)
    outside[tuple(targets.T)] = False
    nearest = distance_transform_edt(outside, sampling=scale, return_distances=False, return_indices=True)
    return np.asarray(nearest[(slice(None), *points.T)].T)


def _percentile(distances: NDArray[np.float64], areas: NDArray[np.float64], percent: float) -> float:
    """Return the smallest distance that at least ``percent`` of the area does not exceed."""
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    index = min(int(np.searchsorted(share, percent / 100)), len(order) - 1)
    return float(distances[order[index]])
