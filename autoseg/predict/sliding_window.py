"""Logits of a whole volume from overlapping tiles, mirrored copies and several networks.

Tiling, importance map and mirroring follow nnU-Net (Isensee et al., 2021), so that both give the same logits for the
same network.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from autoseg.train.device import DTYPES, Precision, choose_memory_format, choose_precision

BATCH_VOXELS = 128**3
"""Voxels in one forward pass: tiles are stacked up to this, one at least.

A patch of 128^3 is work enough for a GPU, so that stacking more of these would cost memory for little; patches of 512^2
or 40x56x40 are not, and are stacked. A plan for 8 GB trains on batches of about this size and keeps the activations of
all layers meanwhile; prediction keeps those of a few.
"""
SIGMA = 1 / 8
"""Standard deviation of the importance map in patch sizes (nnU-Net)."""
DEVICE_SHARE = 0.5
"""Part of the free GPU memory that volume-sized arrays may take; the rest is for the network."""

Flips = tuple[int, ...]
Box = tuple[slice, slice, slice]


def predict_logits(
    network: nn.Module | Sequence[nn.Module],
    image: torch.Tensor,
    *,
    patch_size: Sequence[int],
    tile_step: float,
    mirror_axes: Sequence[int],
    num_outputs: int,
    device: torch.device,
    precision: Precision,
    batch_voxels: int = BATCH_VOXELS,
) -> torch.Tensor:
    """Return the float32 logits (num_outputs, Z, Y, X), on the CPU, of an image (C, Z, Y, X) of any size.

    Tiles are weighted by ``importance_map``; all combinations of mirrored axes and all networks are averaged.

    Args:
        network: in evaluation mode on ``device``; gives logits or a list of logits, finest first. Several are averaged.
        image: preprocessed, float32.
        patch_size: size of a tile in voxels; a smaller image is padded with zeros on both sides and cropped back.
        tile_step: largest distance between neighbouring tiles as a part of the patch size.
        mirror_axes: spatial axes (0, 1, 2) of the image to mirror.
        precision: of the training; a device that is not quick at it computes in what it would train in.
        batch_voxels: stack tiles and mirrored copies up to this many voxels.
    """
    precision = choose_precision(precision, device)
    networks = [network] if isinstance(network, nn.Module) else list(network)
    padded, inside = _pad(image, patch_size)
    shape = tuple(padded.shape[1:])
    home = _home(device, image.element_size() * padded.numel() + 4 * num_outputs * math.prod(shape))
    padded = padded.to(home)
    logits = torch.zeros((num_outputs, *shape), device=home)
    starts = [tile_starts(size, patch, tile_step) for size, patch in zip(shape, patch_size)]
    profiles = [_profile(patch).to(home) for patch in patch_size]
    weight = _outer(profiles) / (len(networks) * 2 ** len(mirror_axes))
    batch_size = max(1, batch_voxels // math.prod(patch_size))
    with torch.inference_mode():
        for batch in _batched(_jobs(starts, patch_size, mirror_axes), batch_size):
            tiles = torch.stack([padded[(slice(None), *box)].flip([a + 1 for a in flips]) for box, flips in batch])
            for (box, flips), tile in zip(batch, _forward(networks, tiles.to(device), precision).to(home)):
                logits[(slice(None), *box)].addcmul_(tile.flip([a + 1 for a in flips]), weight)
        _normalize(logits, starts, profiles)
    return logits[(slice(None), *inside)].cpu()


def tile_starts(size: int, patch: int, step: float) -> list[int]:
    """Return where tiles of ``patch`` voxels begin on an axis of ``size`` voxels, evenly at most patch x step apart.

    Tiles of one slice are one slice apart.
    """
    gap = max(size - patch, 0)
    count = math.ceil(gap / max(patch * step, 1)) + 1
    return [round(gap / (count - 1) * index) for index in range(count)] if count > 1 else [0]


def importance_map(patch_size: Sequence[int]) -> torch.Tensor:
    """Return the weight of each voxel of a tile: a Gaussian of an eighth of the patch size, 1 at the voxel size // 2.

    The smallest weight, in the farthest corner of a tile, is exp(-24), which float32 holds: no voxel is left without.
    """
    return _outer([_profile(patch) for patch in patch_size])


def _profile(patch: int) -> torch.Tensor:
    """Return the importance along one axis; the map is the product of three."""
    distance = torch.arange(patch, dtype=torch.float64) - patch // 2
    return torch.exp(-0.5 * (distance / (SIGMA * patch)) ** 2).float()


def _outer(profiles: Sequence[torch.Tensor]) -> torch.Tensor:
    z, y, x = profiles
    return z[:, None, None] * y[:, None] * x


def _pad(image: torch.Tensor, patch_size: Sequence[int]) -> tuple[torch.Tensor, Box]:
    """Pad an image with zeros on both sides to at least the patch size; also return the box that the image fills."""
    missing = [max(patch - size, 0) for size, patch in zip(image.shape[1:], patch_size)]
    before = [lack // 2 for lack in missing]
    z, y, x = (slice(low, low + size) for low, size in zip(before, image.shape[1:]))
    if not any(missing):
        return image, (z, y, x)
    margins = [margin for low, lack in zip(before[::-1], missing[::-1]) for margin in (low, lack - low)]
    return nn.functional.pad(image, margins), (z, y, x)


def _home(device: torch.device, num_bytes: int) -> torch.device:
    """Return where the volume-sized arrays stand: on the device if they fit beside the network, else on the CPU."""
    if device.type != "cuda":
        return device
    free, _ = torch.cuda.mem_get_info(device)
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return device if num_bytes <= DEVICE_SHARE * (free + reusable) else torch.device("cpu")


def _jobs(
    starts: list[list[int]], patch_size: Sequence[int], mirror_axes: Sequence[int]
) -> Iterator[tuple[Box, Flips]]:
    """Yield every tile with every combination of mirrored axes."""
    combinations = [c for n in range(len(mirror_axes) + 1) for c in itertools.combinations(mirror_axes, n)]
    for corner in itertools.product(*starts):
        z, y, x = (slice(start, start + size) for start, size in zip(corner, patch_size))
        for flips in combinations:
            yield (z, y, x), flips


def _batched(jobs: Iterator[tuple[Box, Flips]], size: int) -> Iterator[list[tuple[Box, Flips]]]:
    while batch := list(itertools.islice(jobs, size)):
        yield batch


def _forward(networks: Sequence[nn.Module], tiles: torch.Tensor, precision: Precision) -> torch.Tensor:
    """Return the summed finest logits of the networks, float32."""
    tiles = tiles.contiguous(memory_format=choose_memory_format(tiles.device))
    with torch.autocast(tiles.device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
        outputs = [network(tiles) for network in networks]
    finest = [output[0] if isinstance(output, (list, tuple)) else output for output in outputs]
    return torch.stack([logits.float() for logits in finest]).sum(0) if len(finest) > 1 else finest[0].float()


def _normalize(logits: torch.Tensor, starts: list[list[int]], profiles: Sequence[torch.Tensor]) -> None:
    """Divide by the sum of all tiles' weights in place: a product of three profiles, since the tiles form a grid."""
    for axis, (begins, profile) in enumerate(zip(starts, profiles)):
        total = torch.zeros(logits.shape[axis + 1], device=logits.device)
        for start in begins:
            total[start : start + len(profile)] += profile
        logits /= total.view([-1 if a == axis else 1 for a in range(3)])
