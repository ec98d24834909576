"""Which patch of which case: a pure function of the seed, the epoch, the iteration and the sample.

No generator is carried from one draw to the next. A batch is therefore the same whichever thread reads it, however many
threads there are, and whether or not the training was interrupted before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Voxel = tuple[int, ...]
Purpose = Literal["training", "validation", "augmentation", "weights", "dropout"]

PURPOSES: tuple[Purpose, ...] = ("training", "validation", "augmentation", "weights", "dropout")
"""What randomness is needed for; a purpose's position is part of its generators' key, so the order must stay."""


@dataclass(frozen=True)
class Patch:
    """A box of one case.

    Attributes:
        case: the case's name.
        lower: the first voxel along each axis; negative where the image is smaller than the patch and gets padded.
    """

    case: str
    lower: Voxel


@dataclass(frozen=True)
class Geography:
    """What must be known of a case to place a patch in it: its shape, and how to get the voxels of each class."""

    shape: Voxel
    foreground: Callable[[], Mapping[int, NDArray[np.integer]]]


def make_generator(
    seed: int, purpose: Purpose, epoch: int, iteration: int, sample: int = 0, rank: int = 0
) -> np.random.Generator:
    """Return the source of randomness of one sample of one batch, in one of the processes that train together.

    Philox is a function of a key and a counter (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011). The
    lowest of the four counter words is left to it for counting its draws, so two samples never share a number.
    """
    key = np.array([seed % 2**64, PURPOSES.index(purpose) + rank * 2**8], dtype=np.uint64)
    counter = np.array([0, sample, iteration, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def make_seed(seed: int, purpose: Purpose, epoch: int, iteration: int, rank: int = 0) -> int:
    """Return a seed in [0, 2^63) for a generator of another library."""
    return int(make_generator(seed, purpose, epoch, iteration, rank=rank).integers(2**63))


def is_forced(sample: int, batch_size: int, oversampling: float) -> bool:
    """Whether this sample of the batch must show foreground.

    nnU-Net forces the last samples: all but round(batch_size x (1 - oversampling)). With a third and 2 samples it is 1.
    """
    return sample >= round(batch_size * (1 - oversampling))


def draw_case(cases: Sequence[str], rng: np.random.Generator) -> str:
    """Return one of the cases, every case being equally likely."""
    return cases[int(rng.integers(len(cases)))]


def draw_patch(case: str, geography: Geography, patch_size: Voxel, rng: np.random.Generator, *, forced: bool) -> Patch:
    """Draw a patch of a case.

    A forced patch is centred on a voxel of the foreground: first one of the classes that the case has is drawn, then
    one of its stored voxels, so that a small structure is seen as often as a large one. A case without foreground,
    like any sample that is not forced, gives a patch at a random position.
    """
    centre = _draw_foreground(geography.foreground(), rng) if forced else None
    if centre is None:
        return Patch(case, _draw_position(geography.shape, patch_size, rng))
    return Patch(case, _place_centred(centre, geography.shape, patch_size))


def box_around(patch: Patch, patch_size: Voxel, source_shape: Voxel) -> tuple[slice, ...]:
    """Return the box of ``source_shape`` with the patch in its middle; it may reach outside the image."""
    lower = [low - (source - size) // 2 for low, size, source in zip(patch.lower, patch_size, source_shape)]
    return tuple(slice(low, low + source) for low, source in zip(lower, source_shape))


def _draw_foreground(
    foreground: Mapping[int, NDArray[np.integer]], rng: np.random.Generator
) -> NDArray[np.integer] | None:
    present = sorted(key for key, voxels in foreground.items() if len(voxels))
    if not present:
        return None
    voxels = foreground[present[int(rng.integers(len(present)))]]
    chosen: NDArray[np.integer] = voxels[int(rng.integers(len(voxels)))]
    return chosen


def _draw_position(shape: Voxel, patch_size: Voxel, rng: np.random.Generator) -> Voxel:
    return tuple(int(rng.integers(low, high + 1)) for low, high in _range_of_lower(shape, patch_size))


def _place_centred(centre: NDArray[np.integer], shape: Voxel, patch_size: Voxel) -> Voxel:
    """Centre the patch on a voxel, then move it inside the image: what lies outside teaches nothing."""
    wanted = [int(voxel) - size // 2 for voxel, size in zip(centre, patch_size)]
    return tuple(min(max(low, first), last) for low, (first, last) in zip(wanted, _range_of_lower(shape, patch_size)))


def _range_of_lower(shape: Voxel, patch_size: Voxel) -> list[tuple[int, int]]:
    """Return the first and last possible lower corner an axis; a smaller image stands in the middle of the patch."""
    spare = [extent - size for extent, size in zip(shape, patch_size)]
    return [(0, room) if room >= 0 else (-(-room // 2), -(-room // 2)) for room in spare]
