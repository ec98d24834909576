"""What is tried next, and which trial is not worth its end: Optuna's samplers and pruners by their names here."""

import itertools
import random
from typing import TYPE_CHECKING, Any, Literal, get_args

from autoseg.errors import PlanError
from autoseg.tune.space import Space

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SamplerName = Literal["tpe", "random", "cmaes", "grid", "nsga2"]
PrunerName = Literal["median", "hyperband", "none"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
PRUNERS: tuple[PrunerName, ...] = get_args(PrunerName)

STARTUP_TRIALS = 5
"""Trials whose ends a median is made of, before one is stopped by it."""

WARMUP_PART = 0.1
"""Part of the epochs in which no trial is stopped: the first ones say little."""

REDUCTION = 3
POPULATION = 10
"""Trials of a generation of NSGA-II; Optuna's own 50 suits searches of thousands."""

LARGEST_GRID = 100_000


def make_sampler(name: SamplerName, seed: int) -> "BaseSampler":
    """Return a sampler; the points of a grid are given to the study one by one, so its sampler chooses nothing."""
    from optuna import samplers

    if name == "tpe":
        return samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, constant_liar=True)
    if name == "cmaes":
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if name == "nsga2":
        return samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    return samplers.RandomSampler(seed=seed)


def make_pruner(name: PrunerName, epochs: int) -> "BasePruner":
    """Return a pruner of trainings of so many epochs."""
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=int(WARMUP_PART * epochs))
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=REDUCTION)
    return pruners.NopPruner()


def choose_pruner(sampler: SamplerName, pruner: PrunerName | None) -> PrunerName:
    """Return the pruner, by default the median, and none where there are two objectives.

    Raises:
        PlanError: a pruner was asked for with two objectives.
    """
    if sampler == "nsga2" and pruner not in (None, "none"):
        raise PlanError(f"--pruner {pruner}: a search with two objectives cannot stop trials early; leave it out")
    return pruner or ("none" if sampler == "nsga2" else "median")


def grid_points(space: Space, seed: int) -> list[dict[str, Any]]:
    """Return all combinations of a space's values, shuffled so that a part of them is spread over all.

    Raises:
        PlanError: a parameter has no end of values, or there are too many combinations.
    """
    axes = {key: parameter.points() for key, parameter in space.parameters.items()}
    if endless := [key for key, points in axes.items() if points is None]:
        raise PlanError(
            f"--sampler grid: {endless[0]} can be any number of its range; give it choices or a step in --space"
        )
    size = 1
    for points in axes.values():
        size *= len(points or ())
    if size > LARGEST_GRID:
        raise PlanError(f"--sampler grid: the space has {size:,} combinations; allowed are {LARGEST_GRID:,}")
    combinations = [
        dict(zip(axes, values)) for values in itertools.product(*(points or () for points in axes.values()))
    ]
    random.Random(seed).shuffle(combinations)
    return combinations


def check_sampler(name: SamplerName, space: Space) -> None:
    """Refuse a sampler that cannot search the space.

    Raises:
        PlanError: a grid without an end; CMA-ES with fewer than two numbers.
    """
    if name == "grid":
        grid_points(space, 0)
    numbers = [key for key, parameter in space.parameters.items() if parameter.choices is None]
    if name == "cmaes" and len(numbers) < 2:
        raise PlanError(
            f"--sampler cmaes: it searches numbers, two at least, and the space has {len(numbers)} (what has choices "
            "is drawn at random); take another sampler, or give more parameters low and high"
        )
