"""Smooth bumps: Gaussians at random places in or near the patch, from 0 to 1 within it."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import draw_uniform
from autoseg.augment._rows import send

PLACE = (-0.5, 1.5)
"""Range of the centre along an axis, 0 and 1 being the patch's edges (DA5)."""

NARROWEST = 6
"""A bump's width is between the patch's edge and this part of it, uniform in its logarithm (DA5)."""


def draw_bumps(shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw ``centre`` and ``width`` of a bump for each channel of a batch of ``shape``, in voxels, (B, C, 3)."""
    size = torch.tensor(shape[2:], dtype=torch.float32)
    centre = draw_uniform(PLACE, (*shape[:2], 3), generator) * size
    narrowest = (size // NARROWEST).clamp_min(1).log()
    place = torch.rand((*shape[:2], 3), generator=generator)
    return {"centre": centre, "width": torch.exp(narrowest + (size.log() - narrowest) * place)}


def make_bumps(centre: torch.Tensor, width: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return bumps like ``rows`` (N, Z, Y, X) from (N, 3) on the CPU: each one's least value is 0, its largest 1.

    An axis's part is the Gaussian's integral over each voxel. Parts are scaled on the CPU, so nothing underflows.
    """
    parts = [_integrate(centre[:, axis], width[:, axis], size) for axis, size in enumerate(rows.shape[1:])]
    lowest = torch.stack([part.amin(1) for part in parts]).prod(0)
    scale = 1 / (1 - lowest).clamp_min(1e-12)
    z, y, x = (send(part.float(), rows.device) for part in (parts[0] * scale[:, None], *parts[1:]))
    floor = send((lowest * scale).float(), rows.device)
    bumps = z[:, :, None, None] * (y[:, :, None] * x[:, None])[:, None]
    return bumps.sub_(floor[:, None, None, None])


def _integrate(centre: torch.Tensor, width: torch.Tensor, size: int) -> torch.Tensor:
    """Return the integral of Gaussians over each voxel of an axis, float64 (N, size), the largest being 1."""
    edges = torch.arange(size + 1, dtype=torch.float64) - 0.5
    steps = torch.special.ndtr((edges - centre.double()[:, None]) / width.double()[:, None]).diff(dim=1)
    scaled: torch.Tensor = steps / steps.amax(1, keepdim=True)
    return scaled
