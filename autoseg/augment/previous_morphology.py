"""Errors of a previous stage at the borders: classes that it found are dilated, eroded, closed or opened by a ball."""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field

from autoseg.augment import Parameters
from autoseg.augment._balls import dilate, erode
from autoseg.augment._draw import Probability, draw_flags, draw_integers, draw_orders
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True

STEPS = ((dilate,), (erode,), (dilate, erode), (erode, dilate))
"""What each operator does: dilation, erosion, closing, opening."""


def _check_radius(value: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= value[0] <= value[1] <= 16:
        raise ValueError("radii are [smallest, largest] from 1 to 16")
    return value


class Config(Document):
    """nnU-Net's random binary operators, for the second stage of a cascade.

    nnU-Net draws fractional radii, whose balls lie half a voxel off centre; here they are whole.

    Attributes:
        probability: of changing a sample.
        probability_label: of changing a class of such a sample.
        radius: smallest and largest radius of the ball in voxels.
        num_labels: number of foreground classes.
    """

    probability: Probability = 0.4
    probability_label: Probability = 0.5
    radius: Annotated[tuple[int, int], AfterValidator(_check_radius)] = (1, 8)
    num_labels: int = Field(default=1, ge=1)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw the ``order`` of the classes, (B, K), whether each is changed, its operator (of ``STEPS``) and radius."""
    drawn = shape[0], config.num_labels
    samples = draw_flags(config.probability, (shape[0], 1), generator)
    return {
        "order": 1 + draw_orders(*drawn, generator),
        "applied": samples & draw_flags(config.probability_label, drawn, generator),
        "operator": draw_integers((0, len(STEPS) - 1), drawn, generator),
        "radius": draw_integers(config.radius, drawn, generator),
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Change what was found, class after class; a class that grows takes the voxels of others. The loop is over these.

    Without a previous stage nothing is changed.
    """
    if classes.dim() == images.dim():
        for index, turn in parameters["applied"].nonzero().tolist():
            label, operator, radius = (int(parameters[name][index, turn]) for name in ("order", "operator", "radius"))
            change_class(classes[index, 1], label, operator, radius)
    return images, classes


def change_class(found: torch.Tensor, label: int, operator: int, radius: int) -> None:
    """Change one class of a map (Z, Y, X) in place."""
    before = found == label
    after = before
    for step in STEPS[operator]:
        after = step(after, radius)
    found.masked_fill_(before & ~after, 0).masked_fill_(after, label)
