"""Things that a previous stage missed: a connected component of a class that it found is taken away."""

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from autoseg.augment import Parameters
from autoseg.augment._draw import Probability, draw_flags, draw_orders
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True

NEIGHBOURS = np.ones((3, 3, 3))
"""Voxels that touch at a corner are connected."""


class Config(Document):
    """nnU-Net's removal of components, for the second stage of a cascade.

    Attributes:
        probability: of changing a sample.
        probability_label: of changing a class of such a sample.
        probability_other: of giving the component to another class instead of the background.
        largest_part: components of this part of the patch, or more, stay.
        num_labels: number of foreground classes.
    """

    probability: Probability = 0.2
    probability_label: Probability = 0.5
    probability_other: Probability = 0.0
    largest_part: Probability = 0.15
    num_labels: int = Field(default=1, ge=1)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw for the classes, (B, K): their ``order``, whether each is changed, ``place`` in [0, 1) among its components.

    And the class that gets a component, ``other``, 0 for the background; ``most`` (B,) is the voxels that stay.
    """
    batch, labels = shape[0], config.num_labels
    samples = draw_flags(config.probability, (batch, 1), generator)
    order = 1 + draw_orders(batch, labels, generator)
    applied = samples & draw_flags(config.probability_label, (batch, labels), generator)
    place = torch.rand((batch, labels), generator=generator, dtype=torch.float64)
    swapped = draw_flags(config.probability_other if labels > 1 else 0.0, (batch, labels), generator)
    step = 1 + (torch.rand((batch, labels), generator=generator) * (labels - 1)).long()  # to one of the other classes
    most = config.largest_part * torch.tensor(shape[2:]).prod().double()
    return {
        "order": order,
        "applied": applied,
        "place": place,
        "other": torch.where(swapped, (order - 1 + step) % labels + 1, 0),
        "most": most.expand(batch).clone(),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the components away; without a previous stage nothing is changed.

    They are found on the CPU, so the device is waited for where a sample is changed: alone among the augmentations.
    """
    if classes.dim() < images.dim():
        return images, classes
    for index in parameters["applied"].any(1).nonzero().flatten().tolist():
        found = classes[index, 1].cpu().numpy().copy()
        most = float(parameters["most"][index])
        for turn in parameters["applied"][index].nonzero().flatten().tolist():
            label, other = (int(parameters[name][index, turn]) for name in ("order", "other"))
            _take_away(found, label, float(parameters["place"][index, turn]), other, most)
        classes[index, 1] = torch.from_numpy(found).to(classes.device)
    return images, classes


def _take_away(found: NDArray[np.int16], label: int, place: float, other: int, most: float) -> None:
    """Give one component of a class, smaller than ``most`` voxels, to the class ``other``; in place."""
    components, count = ndimage.label(found == label, structure=NEIGHBOURS)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    small = 1 + np.flatnonzero(sizes[1:] < most)
    if len(small):
        found[components == small[int(place * len(small))]] = other
