"""Filters that are linear and separable, as one matrix an axis.

One matrix product an axis serves a whole batch whose channels all have filters of their own.
"""

from collections.abc import Callable

import torch

from autoseg.augment._rows import change_channels, send

MakeMatrices = Callable[[torch.Tensor, int], torch.Tensor]


def filter_channels(
    images: torch.Tensor, applied: torch.Tensor, strengths: torch.Tensor, make_matrices: MakeMatrices
) -> torch.Tensor:
    """Return ``images`` (B, C, Z, Y, X) with the flagged (B, C) channels filtered along each axis.

    ``make_matrices(strength, size)`` gives, for one axis of the ``strengths`` (B, C, 3) of the N flagged channels,
    their matrices (N, size, size): new from old values along the axis. They are made on the CPU.
    """
    chosen = strengths[applied]

    def change(rows: torch.Tensor) -> torch.Tensor:
        z, y, x = (send(make_matrices(chosen[:, axis], size), rows.device) for axis, size in enumerate(rows.shape[1:]))
        rows = y[:, None] @ (rows @ x.mT[:, None])
        return (z @ rows.flatten(2)).view_as(rows)

    return change_channels(images, applied, change)
