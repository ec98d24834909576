"""Detection of lesions: not how many voxels are right, but how many lesions were found, and how many were made up.

A lesion is a connected component of a mask; voxels that touch by a face, an edge or a corner belong together (26
neighbours). A predicted and a reference lesion match if their intersection over union reaches a threshold. Each lesion
matches at most one other, and as many pairs as possible are made, so that one large blob does not find many lesions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

Mask = NDArray[np.bool_]

NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class LesionOverlaps:
    """The lesions of two masks and how they overlap.

    Attributes:
        num_reference: lesions of the reference.
        num_predicted: lesions of the prediction.
        pairs: (N, 2) indices of a reference and a predicted lesion that share a voxel.
        iou: (N,) intersection over union of each pair.
    """

    num_reference: int
    num_predicted: int
    pairs: NDArray[np.intp]
    iou: NDArray[np.float64]

    def num_found(self, threshold: float) -> int:
        """Return the greatest number of pairs of lesions whose intersection over union is at least ``threshold``."""
        rows, columns = self.pairs[self.iou >= threshold].T
        if not len(rows):
            return 0
        graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(self.num_reference, self.num_predicted))
        matched = maximum_bipartite_matching(graph.tocsr(), perm_type="column")
        return int(np.count_nonzero(matched >= 0))

    def f1(self, threshold: float) -> float | None:
        """Return twice the pairs over the lesions of both masks; 0 if one mask is empty, None if both are."""
        lesions = self.num_reference + self.num_predicted
        return 2 * self.num_found(threshold) / lesions if lesions else None


def find_lesions(reference: Mask, predicted: Mask) -> LesionOverlaps:
    """Find the lesions of two masks (Z, Y, X) of one shape, and their overlaps."""
    first, num_first = ndimage.label(reference, structure=NEIGHBOURS)
    second, num_second = ndimage.label(predicted, structure=NEIGHBOURS)
    common = reference & predicted
    codes, shared = np.unique(first[common].astype(np.int64) * (num_second + 1) + second[common], return_counts=True)
    pairs = np.stack([codes // (num_second + 1), codes % (num_second + 1)], axis=1)
    sizes = [np.bincount(labels.ravel(), minlength=n + 1) for labels, n in ((first, num_first), (second, num_second))]
    union = sizes[0][pairs[:, 0]] + sizes[1][pairs[:, 1]] - shared
    return LesionOverlaps(num_first, num_second, pairs.astype(np.intp) - 1, shared / union)


def metric_name(threshold: float) -> str:
    """Return the name of the F1 at an overlap threshold: ``lesion_f1_10`` for 0.1."""
    return f"lesion_f1_{100 * threshold:g}"


def score_lesions(reference: Mask, predicted: Mask, thresholds: Sequence[float]) -> dict[str, float | None]:
    """Return the F1 at each threshold, and the numbers of lesions."""
    found = find_lesions(reference, predicted)
    scores: dict[str, float | None] = {metric_name(threshold): found.f1(threshold) for threshold in thresholds}
    return scores | {"reference_lesions": found.num_reference, "predicted_lesions": found.num_predicted}


def describe_lesions(thresholds: Sequence[float]) -> dict[str, str]:
    """Return the definitions of what ``score_lesions`` gives."""
    texts = {
        metric_name(threshold): "twice the matched pairs of lesions over the lesions of both masks; a lesion is a "
        f"component of 26 neighbours, a pair matches at an intersection over union of at least {threshold:g}, each "
        "lesion once; 0 if one mask is empty, null if both are"
        for threshold in thresholds
    }
    return texts | {"reference_lesions": "lesions of the reference", "predicted_lesions": "lesions of the prediction"}
