"""Gaussian blur, along each axis of each channel by a width of its own."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import PositiveRange, Probability, draw_flags, draw_uniform
from autoseg.augment._matrices import filter_channels
from autoseg.documents import Document

TRUNCATE = 6.0
"""Width of the kernel in standard deviations (batchgeneratorsv2); it is rounded to an odd number of voxels."""

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """nnU-Net's blur.

    Attributes:
        probability: of changing a sample.
        probability_channel: of changing a channel of such a sample.
        sigma: range of the standard deviation in voxels.
        axes_alike: whether one deviation serves all axes of a channel.
    """

    probability: Probability = 0.2
    probability_channel: Probability = 0.5
    sigma: PositiveRange = (0.5, 1.0)
    axes_alike: bool = False


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which channels are changed, (B, C), and their deviations, (B, C, 3)."""
    samples = draw_flags(config.probability, (shape[0], 1), generator)
    channels = draw_flags(config.probability_channel, shape[:2], generator)
    sigma = draw_uniform(config.sigma, (*shape[:2], 3), generator)
    sigma = sigma[..., :1].expand_as(sigma).clone() if config.axes_alike else sigma
    return {"applied": samples & channels, "sigma": sigma}


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Blur the chosen channels; the image is reflected at its border."""
    return filter_channels(images, parameters["applied"], parameters["sigma"], make_blur), classes


def make_blur(sigma: torch.Tensor, size: int) -> torch.Tensor:
    """Return matrices (N, size, size) that blur an axis by each of ``sigma`` (N,), in voxels."""
    half = ((sigma * TRUNCATE + 0.5) / 2).floor().unsqueeze(-1)
    widest = int(half.max())
    taps = torch.arange(-widest, widest + 1)
    weights = torch.exp(-0.5 * (taps / sigma.unsqueeze(-1)).square()) * (taps.abs() <= half)
    weights = weights / weights.sum(-1, keepdim=True)
    sources = _reflect(torch.arange(size)[:, None] + taps, size)
    matrix = torch.zeros(*sigma.shape, size, size)
    spread = weights.unsqueeze(-2).expand(*sigma.shape, size, len(taps))
    return matrix.scatter_add_(-1, sources.expand_as(spread), spread)


def _reflect(index: torch.Tensor, size: int) -> torch.Tensor:
    """Return positions outside [0, size) mirrored at the outermost voxels' centres, as often as needed."""
    period = max(2 * (size - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, (period - index).remainder(period)) if size > 1 else torch.zeros_like(index)
