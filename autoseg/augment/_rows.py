"""Changing some rows of a batch, chosen by flags on the CPU.

The indices come from the CPU, so that the device is never waited for, and the work is that of the chosen rows alone.
"""

from collections.abc import Callable

import torch

ChangeRows = Callable[..., torch.Tensor]


def change_samples(
    images: torch.Tensor, applied: torch.Tensor, change: ChangeRows, *parameters: torch.Tensor
) -> torch.Tensor:
    """Return ``images`` (B, ...) with ``change(rows, *parameters of these rows)`` in place of the flagged samples.

    ``applied`` is bool (B,) on the CPU, and the parameters have the batch as first axis. Without a flag the images
    themselves are returned.
    """
    rows = applied.nonzero().flatten()
    if not len(rows):
        return images
    chosen = [parameter[rows].to(images.device, non_blocking=True) for parameter in parameters]
    if len(rows) == len(images):
        return change(images, *chosen)
    changed = change(take_rows(images, rows), *chosen)
    return images.index_copy(0, rows.to(images.device, non_blocking=True), changed)


def take_rows(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the ``rows`` of ``values``, ascending indices on the CPU; a view where they follow one another."""
    first, count = int(rows[0]), len(rows)
    if int(rows[-1]) - first == count - 1:
        return values.narrow(0, first, count)
    return values.index_select(0, rows.to(values.device, non_blocking=True))


def change_channels(
    images: torch.Tensor, applied: torch.Tensor, change: ChangeRows, *parameters: torch.Tensor
) -> torch.Tensor:
    """Do the same with single channels: flags and parameters are (B, C, ...), ``change`` gets rows (N, Z, Y, X)."""
    rows = images.flatten(0, 1)
    changed = change_samples(rows, applied.flatten(), change, *(parameter.flatten(0, 1) for parameter in parameters))
    return images if changed is rows else changed.view_as(images)


def spread(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return ``values`` (N,) shaped to be combined with ``rows`` (N, ...)."""
    return values.view(-1, *(1 for _ in rows.shape[1:]))


def mean_and_std(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and (n - 1) standard deviation of each of the rows (N, ...), each shaped to be combined with them.

    The sums are taken in float64, so that their order, which depends on the number of rows, does not matter.
    """
    flat = rows.flatten(1)
    count = flat.shape[1]
    mean = flat.sum(1, dtype=torch.float64) / count
    square = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64).square()
    std = ((square - count * mean.square()) / max(count - 1, 1)).clamp_min(0).sqrt()
    return spread(mean.to(rows.dtype), rows), spread(std.to(rows.dtype), rows)


def range_of(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return minimum and maximum of each of the rows (N, ...), each shaped to be combined with them."""
    low, high = rows.flatten(1).aminmax(dim=1)
    return spread(low, rows), spread(high, rows)
