"""Exchange of axes along which the patch is equally long."""

from collections import Counter
from itertools import permutations

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import Axes, Probability, draw_flags, draw_integers
from autoseg.augment._rows import put_rows, take_rows
from autoseg.documents import Document


class Config(Document):
    """DA5's exchange of axes.

    Attributes:
        probability: of exchanging the axes of a sample, in one of all orders, the present one included.
        axes: the spatial axes that are exchanged; leave out one whose sides must be told apart.
    """

    probability: Probability = 0.5
    axes: Axes = (0, 1, 2)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw the order of the axes, (B, 3): which old axis is in each place."""
    orders = torch.tensor(_orders(config.axes, shape[2:]))
    applied = draw_flags(config.probability, shape[:1], generator)
    chosen = draw_integers((0, len(orders) - 1), shape[:1], generator)
    return {"order": orders[chosen * applied]}


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Exchange the axes of images and classes. The loop is over the at most five other orders."""
    orders = parameters["order"]
    for order in sorted({tuple(row) for row in orders.tolist()} - {(0, 1, 2)}):
        rows = (orders == torch.tensor(order)).all(1).nonzero().flatten()
        for volumes in (images, classes):
            lead = range(volumes.dim() - 3)
            put_rows(volumes, rows, take_rows(volumes, rows).permute(*lead, *(len(lead) + a for a in order)).clone())
    return images, classes


def _orders(axes: tuple[int, ...], size: tuple[int, ...]) -> list[list[int]]:
    """Return the orders of the axes among ``axes`` that share the commonest length; the first changes nothing."""
    length = Counter(size[axis] for axis in axes).most_common(1)[0][0] if axes else None
    alike = [axis for axis in sorted(axes) if size[axis] == length]
    orders = []
    for new in permutations(alike):
        order = [0, 1, 2]
        for place, axis in zip(alike, new):
            order[place] = axis
        orders.append(order)
    return orders
