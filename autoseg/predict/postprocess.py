"""Postprocessing: what is done to a segmentation's connected components, as a document that was learnt and is applied.

Components are of 26 neighbours, as for lesions in the metrics.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from autoseg.data.labels import Labels
from autoseg.documents import Document

NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


class Step(Document):
    """What is done to one region.

    Attributes:
        region: its name.
        action: ``keep_largest`` removes all components but the largest; ``remove_small`` those below ``volume_ml``;
            ``fill_holes`` gives enclosed background to the region.
        volume_ml: for ``remove_small``, else null.
        dice_before, dice_after: the region's mean Dice on the validation cases without and with the step.
    """

    region: str
    action: Literal["keep_largest", "remove_small", "fill_holes"]
    volume_ml: float | None = Field(gt=0)
    dice_before: float
    dice_after: float


class Postprocessing(Document):
    """postprocessing.json: the steps, in the order in which they are applied, learnt on ``num_cases`` cases."""

    schema_: Literal["autoseg.postprocessing.1"] = Field(default="autoseg.postprocessing.1", alias="schema")
    num_cases: int
    steps: tuple[Step, ...]


def postprocess(
    segmentation: NDArray[Any], steps: tuple[Step, ...], labels: Labels, spacing: tuple[float, float, float]
) -> NDArray[Any]:
    """Return a segmentation after the steps; the given one is not changed.

    Args:
        segmentation: label values (Z, Y, X).
        steps: of a ``Postprocessing``; of regions that the labels have.
        labels: label scheme.
        spacing: mm (z, y, x).
    """
    result = segmentation.copy()
    for step in steps:
        mask = np.isin(result, labels.regions[step.region].labels)
        if not mask.any():
            continue
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        part, inside = result[box], mask[box]
        if step.action == "fill_holes":
            part[ndimage.binary_fill_holes(inside) & (part == 0)] = labels.regions[step.region].value
        else:
            part[_surplus(inside, step, float(np.prod(spacing)) / 1000)] = value_below(step.region, labels)
    return result


def value_below(region: str, labels: Labels) -> int:
    """Return the value of voxels that are taken from a region: of the last earlier region that holds it, else 0."""
    own, below = set(labels.regions[region].labels), 0
    for name, other in labels.regions.items():
        if name == region:
            break
        if own < set(other.labels):
            below = other.value
    return below


def _surplus(mask: NDArray[np.bool_], step: Step, voxel_ml: float) -> NDArray[np.bool_]:
    """Return the voxels of the components that a step removes."""
    components, count = ndimage.label(mask, structure=NEIGHBOURS)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    if step.action == "keep_largest":
        kept = np.arange(count + 1) == 1 + int(np.argmax(sizes[1:]))
    else:
        kept = sizes * voxel_ml >= (step.volume_ml or 0.0)
    kept[0] = True
    removed: NDArray[np.bool_] = ~kept[components]
    return removed
