"""Rotation by quarter turns in the plane of two axes along which the patch is equally long."""

from itertools import combinations

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import Axes, Probability, draw_flags, draw_integers
from autoseg.augment._rows import put_rows, take_rows
from autoseg.documents import Document

PLANES = tuple(combinations(range(3), 2))


class Config(Document):
    """DA5's quarter turns.

    Attributes:
        probability: of turning a sample: by 0 to 3 quarters, each equally likely, in one of the planes.
        axes: the spatial axes that are turned into each other; leave out one whose sides must be told apart.
    """

    probability: Probability = 0.5
    axes: Axes = (0, 1, 2)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw the planes, as indices of ``PLANES``, and the quarter turns, each (B,); 0 turns where nothing is changed."""
    size = shape[2:]
    planes = [index for index, (a, b) in enumerate(PLANES) if {a, b} <= set(config.axes) and size[a] == size[b]]
    applied = draw_flags(config.probability if planes else 0.0, shape[:1], generator)
    chosen = draw_integers((0, max(len(planes), 1) - 1), shape[:1], generator)
    return {
        "plane": torch.tensor(planes or [0])[chosen],
        "turns": draw_integers((0, 3), shape[:1], generator) * applied,
    }


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn images and classes. The loop is over the at most nine combinations of plane and turns."""
    drawn = torch.stack([parameters["plane"], parameters["turns"]], dim=1)
    for plane, turns in sorted({(plane, turns) for plane, turns in drawn.tolist() if turns}):
        rows = (drawn == torch.tensor([plane, turns])).all(1).nonzero().flatten()
        axes = [axis - 3 for axis in PLANES[plane]]
        for volumes in (images, classes):
            put_rows(volumes, rows, take_rows(volumes, rows).rot90(turns, axes))
    return images, classes
