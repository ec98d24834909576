"""Changing some rows of a batch in place, chosen by flags on the CPU.

The indices come from the CPU, so that the device is never waited for, and the work is that of the chosen rows alone.
"""

from collections.abc import Callable

import torch

ChangeRows = Callable[..., torch.Tensor]


def change_samples(
    images: torch.Tensor, applied: torch.Tensor, change: ChangeRows, *parameters: torch.Tensor
) -> torch.Tensor:
    """Put ``change(rows, *parameters of these rows)`` in place of the flagged samples of ``images`` (B, ...).

    ``applied`` is bool (B,) on the CPU, and the parameters have the batch as first axis. ``change`` may work in place.
    """
    rows = applied.nonzero().flatten()
    if len(rows):
        chosen = [send(parameter[rows], images.device) for parameter in parameters]
        part = take_rows(images, rows)
        changed = change(part, *chosen)
        if changed is not part or not is_run(rows):
            put_rows(images, rows, changed)
    return images


def change_channels(
    images: torch.Tensor, applied: torch.Tensor, change: ChangeRows, *parameters: torch.Tensor
) -> torch.Tensor:
    """Do the same with single channels: flags and parameters are (B, C, ...), ``change`` gets rows (N, Z, Y, X)."""
    channels = images.view(-1, *images.shape[2:])
    change_samples(channels, applied.flatten(), change, *(parameter.flatten(0, 1) for parameter in parameters))
    return images


def copy_mirrored(target: torch.Tensor, source: torch.Tensor, rows: torch.Tensor, mirrored: torch.Tensor) -> None:
    """Write the ``rows`` of ``source`` (B, ..., Z, Y, X) into ``target``, each along the axes that its flags say.

    ``rows`` are indices (N,) and ``mirrored`` is bool (N, 3), both on the CPU. The loop is over the at most eight
    combinations of axes.
    """
    for flags in sorted({tuple(row) for row in mirrored.tolist()}):
        chosen = rows[(mirrored == torch.tensor(flags)).all(1)]
        axes = [axis - 3 for axis, flag in enumerate(flags) if flag]
        part = take_rows(source, chosen)
        put_rows(target, chosen, part.flip(axes) if axes else part)


def take_rows(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the ``rows`` of ``values``, ascending indices on the CPU; a view where they follow one another."""
    if is_run(rows):
        return values.narrow(0, int(rows[0]), len(rows))
    return values.index_select(0, send(rows, values.device))


def put_rows(values: torch.Tensor, rows: torch.Tensor, new: torch.Tensor) -> None:
    """Write ``new`` in place of the ``rows`` of ``values``, ascending indices on the CPU."""
    if is_run(rows):
        values.narrow(0, int(rows[0]), len(rows)).copy_(new)
    else:
        values.index_copy_(0, send(rows, values.device), new)


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return small ``values`` from the CPU on the device. From pageable memory a copy might wait for the device."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


def is_run(rows: torch.Tensor) -> bool:
    """Whether ascending indices follow one another without a gap."""
    return int(rows[-1]) - int(rows[0]) == len(rows) - 1


def spread(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return ``values`` (N,) shaped to be combined with ``rows`` (N, ...)."""
    return values.view(-1, *(1 for _ in rows.shape[1:]))


def mean_of(rows: torch.Tensor) -> torch.Tensor:
    """Return the mean of each of the rows (N, ...), shaped to be combined with them.

    The sum is taken in float64, so that its order, which depends on the number of rows, does not matter.
    """
    return spread(rows.flatten(1).mean(1, dtype=torch.float64).to(rows.dtype), rows)


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
    flat = rows.flatten(1)
    return spread(flat.amin(1), rows), spread(flat.amax(1), rows)  # aminmax takes ten times as long on CPUs
