"""Normalisation: each channel's intensities become the network's input, in place. The schemes are nnU-Net's.

``ct`` clips to the fingerprint's foreground percentiles and uses the fingerprint's mean and standard deviation;
``zscore`` uses the image's own, within the nonzero mask if asked; ``rescale`` brings the image's range to [0, 1];
``rgb`` divides by 255.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import PlanError
from autoseg.plan.plan import Normalization
from autoseg.plurals import count

Floats = NDArray[np.float32]

SMALLEST_DIVISOR = 1e-8
"""A constant image has no deviation; it becomes 0 and not NaN (nnU-Net's value)."""

PART_SIZE = 1 << 18
"""Voxels squared at a time; their float64 copy fits the processor's cache."""


def normalize(array_czyx: Floats, schemes: Sequence[Normalization], mask: NDArray[np.bool_] | None) -> None:
    """Normalise each channel of a float32 image (C, Z, Y, X) in place.

    Args:
        array_czyx: the image.
        schemes: one a channel.
        mask: (Z, Y, X) where ``use_mask`` asks for it; voxels outside keep their value, which is 0.

    Raises:
        PlanError: the image has another number of channels than the plan.
    """
    if len(array_czyx) != len(schemes):
        raise PlanError(
            f"the image has {count(len(array_czyx), 'channel')}, the plan normalises {len(schemes)}; give one "
            f"file a channel"
        )
    for channel, scheme in zip(array_czyx, schemes):
        _normalize_channel(channel, scheme, mask if scheme.use_mask else None)


def _normalize_channel(channel: Floats, scheme: Normalization, mask: NDArray[np.bool_] | None) -> None:
    if scheme.scheme == "ct":
        _apply_ct(channel, scheme)
    elif scheme.scheme == "zscore" and mask is not None:
        inside = channel[mask]
        _standardize(inside)
        channel[mask] = inside
    elif scheme.scheme == "zscore":
        _standardize(channel)
    elif scheme.scheme == "rescale":
        channel -= channel.min()
        channel /= max(float(channel.max()), SMALLEST_DIVISOR)
    elif scheme.scheme == "rgb":
        channel /= 255.0


def _apply_ct(channel: Floats, scheme: Normalization) -> None:
    lower, upper, mean, std = scheme.lower, scheme.upper, scheme.mean, scheme.std
    if lower is None or upper is None or mean is None or std is None:
        raise PlanError(
            "preprocessing.normalization: 'ct' needs lower, upper, mean and std, found null; "
            "make the plan again with autoseg_plan"
        )
    np.clip(channel, lower, upper, out=channel)
    channel -= mean
    channel /= max(std, SMALLEST_DIVISOR)


def _standardize(values: Floats) -> None:
    """Subtract the mean and divide by the standard deviation; sums in float64, without a float64 copy."""
    if not values.size:
        return
    values -= values.mean(dtype=np.float64)
    parts = np.array_split(values.reshape(-1), values.size // PART_SIZE + 1)
    squares = sum(float(np.square(part, dtype=np.float64).sum()) for part in parts)
    values /= max(math.sqrt(squares / values.size), SMALLEST_DIVISOR)
