"""Patch and batch size by predicted memory, against an exhaustive walk."""

import math
from typing import Any

import pytest

from autoseg.documents import Document
from autoseg.errors import PlanError
from autoseg.networks import available_architectures, load_architecture
from autoseg.plan import rules
from autoseg.plan.patch_size import Choice, choose_by_memory, choose_low_resolution, initial_patch, shrinking
from autoseg.plan.spacing import Grid, choose_grid


def _memory(config: Document, patch_size: tuple[int, ...], batch_size: int) -> float:
    return 0.5 + batch_size * math.prod(patch_size) / 1e6


@pytest.mark.parametrize("name", available_architectures())
@pytest.mark.parametrize("memory_gb", [3.0, 8.0, 40.0])
def test_the_first_patch_that_fits_is_found(name: str, memory_gb: float, make_fingerprint: Any) -> None:
    architecture = load_architecture(name)
    grid = choose_grid(make_fingerprint(spacing=(2.5, 0.8, 0.8), shape=(93, 512, 512), num_cases=50))
    choice = choose_by_memory(architecture, grid, 50, memory_gb=memory_gb, measure=_memory)
    walk = (fit for fit in shrinking(architecture, grid, initial_patch(grid)) if math.prod(fit.patch_size) > 32**3)
    first = next(fit for fit in walk if _memory(fit.config, fit.patch_size, 2) <= memory_gb)
    assert choice.fit == first
    assert all(n % d == 0 for n, d in zip(first.patch_size, architecture.divisor(first.config)))
    largest = int((memory_gb - 0.5) / (math.prod(first.patch_size) / 1e6) + 1e-6)
    assert choice.batch_size == max(2, min(largest, choice.coverage_batch))


def test_patches_shrink_strictly_until_nothing_is_left(make_fingerprint: Any) -> None:
    grid = choose_grid(make_fingerprint(shape=(36, 50, 35)))
    for name in available_architectures():
        architecture = load_architecture(name)
        fits = list(shrinking(architecture, grid, initial_patch(grid)))
        sizes = [math.prod(fit.patch_size) for fit in fits]
        assert sizes == sorted(set(sizes), reverse=True)
        assert 16**3 <= sizes[-1] <= max(2 * 16**3, math.prod(architecture.divisor(fits[-1].config)))


def test_a_batch_covers_at_most_a_twentieth_of_the_dataset(make_fingerprint: Any) -> None:
    grid = choose_grid(make_fingerprint(shape=(36, 50, 35)))
    choice = choose_by_memory(load_architecture("unet"), grid, 200, memory_gb=100.0, measure=_memory)
    assert choice.fit.patch_size == (40, 56, 40)
    assert choice.batch_size == choice.coverage_batch == round(36 * 50 * 35 * 200 * 0.05 / (40 * 56 * 40))


def test_too_small_a_budget_is_refused(make_fingerprint: Any) -> None:
    grid = choose_grid(make_fingerprint())
    unet = load_architecture("unet")
    with pytest.raises(PlanError, match="needs a device of") as refused:
        choose_by_memory(unet, grid, 10, memory_gb=0.4, measure=_memory)
    told = float(str(refused.value).split("give --memory ")[1].split()[0])
    usable = (told - rules.CONTEXT_GB) * rules.USABLE_MEMORY
    assert choose_by_memory(unet, grid, 10, memory_gb=usable, measure=_memory).batch_size >= rules.MIN_BATCH


def test_the_initial_patch_has_equal_extents_within_the_image(make_fingerprint: Any) -> None:
    large = choose_grid(make_fingerprint(spacing=(4.0, 1.0, 1.0), shape=(2000, 2000, 2000)))
    patch = initial_patch(large)
    assert patch[0] * 4 == pytest.approx(patch[1], abs=4)
    assert math.prod(patch) == pytest.approx(256**3, rel=0.02)
    assert initial_patch(choose_grid(make_fingerprint(shape=(36, 50, 35)))) == (36, 50, 35)


def test_a_patch_of_mostly_padding_is_refused(make_fingerprint: Any) -> None:
    thin = choose_grid(make_fingerprint(spacing=(10.0, 1.5, 1.5), shape=(7, 256, 256)))
    with pytest.raises(PlanError, match="7 x 256 x 256.* does not suit the data"):
        choose_by_memory(load_architecture("unetr"), thin, 50, memory_gb=8.0, measure=_memory)
    choose_by_memory(load_architecture("unet"), thin, 50, memory_gb=8.0, measure=_memory)


def test_low_resolution_is_coarsened_until_a_quarter_is_seen(make_fingerprint: Any) -> None:
    grid = choose_grid(make_fingerprint(shape=(400, 400, 400)))
    seen = []

    def choose(one: Grid) -> Choice:
        seen.append(one.spacing[0])
        return choose_by_memory(load_architecture("unet"), one, 50, memory_gb=8.0, measure=_memory)

    found = choose_low_resolution(grid, choose(grid), choose)
    assert found is not None
    coarse, choice = found
    assert seen == pytest.approx([1.03**step for step in range(len(seen))])
    assert math.prod(choice.fit.patch_size) / coarse.median_voxels >= 0.25
    assert coarse.median_shape == (round(400 / coarse.spacing[0]),) * 3
    small = choose_grid(make_fingerprint(shape=(200, 200, 200)))
    assert choose_low_resolution(small, choose(small), choose) is None
