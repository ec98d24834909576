"""Logits of a volume from overlapping tiles, mirrored copies and several networks, slice after slice.

Tiling, importance map and mirroring follow nnU-Net (Isensee et al., 2021), so that both give the same logits for the
same network. The logits of a whole volume need not exist at any time: tiles are computed from the first slice to the
last, a slice is complete once all tiles that reach it are done, and its memory is used again once it has been read.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoseg.train.device import DTYPES, Precision, choose_memory_format, choose_precision

BATCH_VOXELS = 128**3
"""Voxels in one forward pass: tiles are stacked up to this, one at least.

A patch of 128^3 is work enough for a GPU, so that stacking more of these would cost memory for little; patches of 512^2
or 40x56x40 are not, and are stacked. A plan for 8 GB trains on batches of about this size and keeps the activations of
all layers meanwhile; prediction keeps those of a few.
"""
CPU_BATCH_VOXELS = 2**17
"""The same on a CPU, which one small tile keeps busy: measured, more of them at once cost memory and save no time."""
OUTPUT_BYTES = 256 * 10**6
"""The logits of a forward pass may take this much, unless a single tile's take more: many classes mean fewer tiles."""
CONSTANT_BYTES = 256 * 10**6
"""The logits of a constant tile are kept for the next such tile if they take no more than this."""
SIGMA = 1 / 8
"""Standard deviation of the importance map in patch sizes (nnU-Net)."""
DEVICE_SHARE = 0.5
"""Part of the free GPU memory that volume-sized arrays may take; the rest is for the network."""

Floats = NDArray[np.float32]
Flips = tuple[int, ...]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Tiling:
    """How a volume is cut into tiles, and what computes them.

    Attributes:
        networks: in evaluation mode on ``device``; each gives logits or a list of logits, finest first. Averaged.
        patch_size: size of a tile in voxels; a smaller image is padded with zeros on both sides.
        tile_step: largest distance between neighbouring tiles as a part of the patch size.
        mirror_axes: spatial axes (0, 1, 2) of the image to mirror, in every combination.
        num_outputs: channels of the logits.
        device: where the networks compute.
        precision: of the training; a device that is not quick at it computes in what it would train in.
        batch_voxels: stack tiles and mirrored copies up to this many voxels.
    """

    networks: tuple[nn.Module, ...]
    patch_size: tuple[int, ...]
    tile_step: float
    mirror_axes: tuple[int, ...]
    num_outputs: int
    device: torch.device
    precision: Precision
    batch_voxels: int = BATCH_VOXELS

    def row_bytes(self, shape: Sequence[int], window: int) -> int:
        """Return the bytes of logits that are held for each row of the second axis of an image (z, y, x)."""
        depth, _, width = (max(size, patch) for size, patch in zip(shape, self.patch_size))
        return 4 * self.num_outputs * min(depth, self.patch_size[0] + window) * width


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

    Tiles are weighted by ``importance_map``; all combinations of mirrored axes and all networks are averaged. The
    arguments are those of ``Tiling``.
    """
    networks = (network,) if isinstance(network, nn.Module) else tuple(network)
    tiling = Tiling(
        networks, tuple(patch_size), tile_step, tuple(mirror_axes), num_outputs, device, precision, batch_voxels
    )
    _, depth, rows, _ = image.shape
    return LogitStream(tiling, image, slice(0, rows), window=depth).read_whole()


class LogitStream:
    """The logits of a strip of an image, from the first slice to the last.

    A ring of slices on the device (on the CPU where it does not fit there) holds the sums of the tiles that reach them.
    Tiles of one value are computed once for each value: in air, cropped or clipped, most networks see nothing else.
    """

    def __init__(self, tiling: Tiling, image: torch.Tensor, strip: slice, *, window: int) -> None:
        """Prepare; nothing is computed yet.

        Args:
            tiling: the tiles.
            image: preprocessed (C, Z, Y, X), float32.
            strip: rows of the second axis whose logits are wanted; tiles that do not reach them are left out.
            window: the most slices that are read at once.
        """
        self._tiling = tiling
        self._precision = choose_precision(tiling.precision, tiling.device)
        padded, inside = _pad(image, tiling.patch_size)
        shape = tuple(padded.shape[1:])
        self._size, self._before, self._columns = shape[0], inside[0].start, inside[2]
        self._after = shape[0] - inside[0].stop
        self._strip = slice(strip.start + inside[1].start, strip.stop + inside[1].start)
        depth = min(shape[0], tiling.patch_size[0] + window)
        size = (tiling.num_outputs, depth, strip.stop - strip.start, shape[2])
        home = _home(tiling.device, image.element_size() * padded.numel() + 4 * math.prod(size))
        self._image = padded.to(home)
        self._ring = torch.zeros(size, device=home)
        starts = [tile_starts(*axis, tiling.tile_step) for axis in zip(shape, tiling.patch_size)]
        self._profiles = [_profile(patch).to(home) for patch in tiling.patch_size]
        self._totals = [_total_weights(*axis) for axis in zip(shape, starts, self._profiles)]
        self._starts = starts
        self._layers = [starts[0]] if depth == shape[0] else [[start] for start in starts[0]]
        self._num_done = self._oldest = 0
        self._weight = _outer(self._profiles) / (len(tiling.networks) * 2 ** len(tiling.mirror_axes))
        self._constant: tuple[list[float], torch.Tensor] | None = None

    def channels(self, rows: slice) -> Iterator[Floats]:
        """Yield the logits of each channel in the slices ``rows``, on the CPU; neither end of ``rows`` ever goes back.

        Computes the tiles that are still missing for them.
        """
        first, last = rows.start + self._before, rows.stop + self._before
        self._forget(first)
        while self._num_ready < last:
            self._run_layer()
            self._forget(first)
        z, y, x = self._totals
        total = z[first:last, None, None] * y[self._strip, None] * x
        for channel in self._ring:
            slices = torch.cat([channel[part] for part in self._slots(first, last)]) / total
            yield slices[..., self._columns].cpu().numpy()

    def read_whole(self) -> torch.Tensor:
        """Return all logits (R, Z, strip, X), on the CPU; only a stream whose window is the whole image can."""
        while self._num_done < len(self._layers):
            self._run_layer()
        z, y, x = self._totals
        self._ring /= z[:, None, None] * y[self._strip, None] * x
        return self._ring[:, self._before : self._size - self._after, :, self._columns].cpu()

    @property
    def _num_ready(self) -> int:
        """How many slices no further tile reaches."""
        return self._layers[self._num_done][0] if self._num_done < len(self._layers) else self._size

    def _forget(self, first: int) -> None:
        """Clear the complete slices before ``first``."""
        until = min(first, self._num_ready)
        for part in self._slots(self._oldest, until) if until > self._oldest else ():
            self._ring[:, part] = 0
        self._oldest = max(self._oldest, until)

    def _slots(self, start: int, stop: int) -> list[slice]:
        """Return where the slices from ``start`` to ``stop`` are in the ring: one piece, or two around its end."""
        depth = self._ring.shape[1]
        low, length = start % depth, stop - start
        if low + length <= depth:
            return [slice(low, low + length)]
        return [slice(low, depth), slice(0, low + length - depth)]

    @torch.inference_mode()
    def _run_layer(self) -> None:
        """Compute the tiles of the next layer, and add them up."""
        size = self._tiling.patch_size
        reaching = [s for s in self._starts[1] if s < self._strip.stop and s + size[1] > self._strip.start]
        corners = itertools.product(self._layers[self._num_done], reaching, self._starts[2])
        boxes = [_box(corner, size) for corner in corners]
        same = self._are_constant(boxes)
        self._compute([box for box, constant in zip(boxes, same) if not constant], self._add)
        for box in (box for box, constant in zip(boxes, same) if constant):
            self._add(box, self._of_constant(box))
        self._num_done += 1

    def _compute(self, boxes: Sequence[Box], use: Callable[[Box, torch.Tensor], object]) -> None:
        """Give ``use`` the logits of each mirrored copy of each tile, summed over the networks and turned back."""
        tiling = self._tiling
        voxels = min(tiling.batch_voxels, OUTPUT_BYTES // (4 * tiling.num_outputs))
        batch_size = max(1, voxels // math.prod(tiling.patch_size))
        for batch in _batched(_mirrored(boxes, tiling.mirror_axes), batch_size):
            self._compute_batch(batch, use)

    def _compute_batch(self, batch: Sequence[tuple[Box, Flips]], use: Callable[[Box, torch.Tensor], object]) -> None:
        """Do so for one forward pass, whose logits are gone before the next: of many classes they are large."""
        tiles = torch.stack([self._image[(slice(None), *box)].flip([a + 1 for a in f]) for box, f in batch])
        logits = _forward(self._tiling.networks, tiles.to(self._tiling.device), self._precision).to(self._ring.device)
        for (box, flips), tile in zip(batch, logits):
            use(box, tile.flip([a + 1 for a in flips]) if flips else tile)

    def _add(self, box: Box, tile: torch.Tensor) -> None:
        """Add the part of a tile's weighted logits that lies in the strip."""
        low, high = max(box[1].start, self._strip.start), min(box[1].stop, self._strip.stop)
        inside = slice(low - box[1].start, high - box[1].start)
        rows, done = slice(low - self._strip.start, high - self._strip.start), 0
        for part in self._slots(box[0].start, box[0].stop):
            slices = slice(done, done + part.stop - part.start)
            self._ring[:, part, rows, box[2]].addcmul_(tile[:, slices, inside], self._weight[slices, inside])
            done = slices.stop

    def _are_constant(self, boxes: Sequence[Box]) -> list[bool]:
        """Return which tiles hold a single value a channel; none, where keeping their logits would take too much."""
        num_bytes = 4 * self._tiling.num_outputs * math.prod(self._tiling.patch_size)
        if num_bytes > CONSTANT_BYTES or not boxes:
            return [False] * len(boxes)
        tiles = (self._image[(slice(None), *box)] for box in boxes)
        flags: list[bool] = torch.stack([(tile == tile[:, :1, :1, :1]).all() for tile in tiles]).tolist()
        return flags

    def _of_constant(self, box: Box) -> torch.Tensor:
        """Return the logits of a constant tile, summed over its mirrored copies; the last value's are kept."""
        value = self._image[:, box[0].start, box[1].start, box[2].start].tolist()
        if self._constant is None or self._constant[0] != value:
            total = torch.zeros((self._tiling.num_outputs, *self._tiling.patch_size), device=self._ring.device)
            self._compute([box], lambda _, tile: total.add_(tile))
            self._constant = value, total
        return self._constant[1]


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


def _box(corner: Sequence[int], size: Sequence[int]) -> Box:
    z, y, x = (slice(start, start + length) for start, length in zip(corner, size))
    return z, y, x


def _mirrored(boxes: Sequence[Box], mirror_axes: Sequence[int]) -> Iterator[tuple[Box, Flips]]:
    """Yield every tile with every combination of mirrored axes."""
    combinations = [c for n in range(len(mirror_axes) + 1) for c in itertools.combinations(mirror_axes, n)]
    return itertools.product(boxes, combinations)


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


def _total_weights(size: int, starts: Sequence[int], profile: torch.Tensor) -> torch.Tensor:
    """Return the sum of all tiles' weights along an axis; the tiles form a grid, so theirs is a product of three."""
    total = torch.zeros(size, device=profile.device)
    for start in starts:
        total[start : start + len(profile)] += profile
    return total
