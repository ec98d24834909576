"""Fields of smooth random displacements, as batchgeneratorsv2 makes them, from one seed a sample."""

import math

import torch

from autoseg.augment._noise import draw_noise
from autoseg.augment._rows import send


def make_displacements(
    seeds: torch.Tensor,
    sigma: torch.Tensor,
    magnitude: torch.Tensor,
    moving: tuple[bool, ...],
    patch_size: tuple[int, ...],
    device: torch.device,
) -> torch.Tensor:
    """Return displacements in voxels (N, 3, *patch) along z, y and x, of mean 0.

    Noise is smoothed by ``sigma`` (N, 3) voxels, one width for each component of the displacement, and scaled so that
    its largest value is ``magnitude`` (N, 3), which is 0 along an axis that is not ``moving``. The slices along such an
    axis move alike.
    """
    size = [length if moves else 1 for length, moves in zip(patch_size, moving)]
    noise = draw_noise(torch.empty((len(seeds), 3, *size), device=device), seeds)
    field = smooth_periodically(noise, sigma)
    largest = field.abs().amax((2, 3, 4), keepdim=True).clamp_min(1e-8)
    field *= send(magnitude, device)[..., None, None, None] / largest
    field -= field.mean((2, 3, 4), keepdim=True)
    return field.expand(-1, -1, *patch_size)


def smooth_periodically(noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return ``noise`` (N, 3, Z, Y, X) convolved with a Gaussian of ``sigma`` (N, 3) voxels that wraps around.

    It is a product with the Gaussian's Fourier transform, ``scipy.ndimage.fourier_gaussian``, as one matrix an axis.
    """
    rows = noise.flatten(0, 1)
    widths = sigma.flatten()
    z, y, x = (send(_circulant(widths, size), rows.device) for size in rows.shape[1:])
    rows = y[:, None] @ (rows @ x.mT[:, None])
    return (z @ rows.flatten(2)).view_as(noise)


def _circulant(sigma: torch.Tensor, size: int) -> torch.Tensor:
    """Return matrices (N, size, size) that smooth a periodic axis by each of ``sigma`` (N,)."""
    frequency = torch.fft.rfftfreq(size, dtype=torch.float64)
    response = torch.exp(-2 * (math.pi * sigma.double()[:, None] * frequency).square())
    kernel = torch.fft.irfft(response.to(torch.complex128), n=size)
    places = torch.arange(size)
    matrices: torch.Tensor = kernel[:, (places[:, None] - places) % size].float()
    return matrices
