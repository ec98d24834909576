"""Low resolution: channels are sampled more coarsely, then interpolated back."""

import torch

from autoseg.augment import Parameters
from autoseg.augment._draw import Axes, PositiveRange, Probability, draw_flags, draw_uniform, select_axes
from autoseg.augment._matrices import filter_channels
from autoseg.documents import Document

COMMUTES_WITH_MIRRORING = True


class Config(Document):
    """nnU-Net's low resolution. For flat patches use axes (1, 2).

    Attributes:
        probability: of changing a sample.
        probability_channel: of changing a channel of such a sample.
        scale: range of the factors by which the number of voxels along each axis is reduced.
        axes: the spatial axes that are reduced.
    """

    probability: Probability = 0.25
    probability_channel: Probability = 0.5
    scale: PositiveRange = (0.5, 1.0)
    axes: Axes = (0, 1, 2)


def sample(config: Config, shape: tuple[int, ...], generator: torch.Generator) -> Parameters:
    """Draw which channels are changed, (B, C), and their scale along each axis, (B, C, 3)."""
    samples = draw_flags(config.probability, (shape[0], 1), generator)
    channels = draw_flags(config.probability_channel, shape[:2], generator)
    scale = draw_uniform(config.scale, (*shape[:2], 1), generator)
    allowed = select_axes(config.axes)
    return {"applied": samples & channels, "scale": torch.where(allowed, scale, 1.0)}


def apply(images: torch.Tensor, classes: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the nearest voxels of the coarse grid, and interpolate these linearly."""
    return filter_channels(images, parameters["applied"], parameters["scale"], make_coarsening), classes


def make_coarsening(scale: torch.Tensor, size: int) -> torch.Tensor:
    """Return matrices (N, size, size) that coarsen an axis to each of ``scale`` (N,) and bring it back.

    Grids are aligned at the outer edges: it is PyTorch's ``nearest-exact`` down and ``linear`` up.
    """
    coarse = (scale.double() * size).round().clamp_min(1).unsqueeze(-1)
    place = ((torch.arange(size) + 0.5) * coarse / size - 0.5).clamp_min(0)
    lower = place.floor()
    upper = torch.minimum(lower + 1, coarse - 1)
    share = place - lower
    matrix = torch.zeros(*scale.shape, size, size)
    for index, weight in ((lower, 1 - share), (upper, share)):
        nearest = ((index + 0.5) * size / coarse).floor().long().clamp_max(size - 1)
        matrix.scatter_add_(-1, nearest.unsqueeze(-1), weight.float().unsqueeze(-1))
    return matrix
