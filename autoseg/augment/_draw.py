"""How parameters are drawn: on the CPU, for the whole batch, whether or not a sample is then changed.

Everything is drawn for every sample, so that a sample's parameters do not depend on what befell the others.
"""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field

Probability = Annotated[float, Field(ge=0, le=1)]


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0 <= low <= high:
        raise ValueError("a range is [low, high] with 0 <= low <= high")
    return value


def _check_positive(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] <= 0:
        raise ValueError("the range must lie above 0")
    return value


def _check_axes(value: tuple[int, ...]) -> tuple[int, ...]:
    if not set(value) <= {0, 1, 2} or len(set(value)) < len(value):
        raise ValueError("axes are different ones of 0 (z), 1 (y) and 2 (x)")
    return value


def _check_indices(value: tuple[int, ...]) -> tuple[int, ...]:
    if any(index < 0 for index in value) or len(set(value)) < len(value):
        raise ValueError("indices are different ones, from 0")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_check_range)]
PositiveRange = Annotated[Range, AfterValidator(_check_positive)]
Indices = Annotated[tuple[int, ...], AfterValidator(_check_indices)]
Axes = Annotated[tuple[int, ...], AfterValidator(_check_axes)]


def select_axes(axes: tuple[int, ...]) -> torch.Tensor:
    """Return bool (3,): which of the spatial axes are among ``axes``."""
    return torch.tensor([axis in axes for axis in range(3)])


def draw_flags(probability: float, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return bool flags of ``shape``, each true with ``probability``."""
    return torch.rand(shape, generator=generator) < probability


def draw_uniform(limits: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return numbers of ``shape``, uniform between the limits."""
    low, high = limits
    return low + (high - low) * torch.rand(shape, generator=generator)


def draw_factors(limits: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return factors of ``shape``: half of them between the lower limit and 1, half between 1 and the upper one.

    So darkening is as likely as brightening, however lopsided the limits; nnU-Net draws its factors like this. Where
    both limits lie on one side of 1 the factors are uniform between them.
    """
    low, high = limits
    if low >= 1 or high <= 1:
        return draw_uniform(limits, shape, generator)
    below = draw_flags(0.5, shape, generator)
    place = torch.rand(shape, generator=generator)
    return torch.where(below, low + (1 - low) * place, 1 + (high - 1) * place)


def draw_integers(limits: tuple[int, int], shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return int64 numbers of ``shape``, uniform between the limits, both included."""
    return torch.randint(limits[0], limits[1] + 1, shape, generator=generator)


def draw_orders(batch: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return for each sample the numbers from 0 to ``count`` - 1 in any order, all equally likely, (B, count)."""
    return torch.rand((batch, count), generator=generator, dtype=torch.float64).argsort(1)
