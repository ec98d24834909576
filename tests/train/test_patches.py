"""Patches: nnU-Net's rules, and randomness that depends on nothing but its key."""

from collections import Counter

import numpy as np
import pytest

from autoseg.train.patches import (
    PURPOSES,
    Geography,
    Patch,
    box_around,
    draw_case,
    draw_patch,
    is_forced,
    make_generator,
    make_seed,
)


def _geography(shape: tuple[int, ...], **foreground: list[tuple[int, int, int]]) -> Geography:
    voxels = {int(key[1:]): np.array(values, dtype=np.int32).reshape(-1, 3) for key, values in foreground.items()}
    return Geography(shape, lambda: voxels)


@pytest.mark.parametrize(
    ("batch_size", "oversampling", "expected"),
    [(2, 0.33, 1), (9, 0.33, 3), (5, 0.33, 2), (4, 0.0, 0), (3, 1.0, 3), (1, 0.33, 0), (12, 0.33, 4)],
)
def test_the_last_samples_are_forced(batch_size: int, oversampling: float, expected: int) -> None:
    forced = [is_forced(sample, batch_size, oversampling) for sample in range(batch_size)]
    assert forced == [False] * (batch_size - expected) + [True] * expected


def test_keys_give_different_numbers_and_the_same_key_the_same() -> None:
    keys = [(s, p, e, i, b) for s in (0, 1) for p in PURPOSES for e in (0, 1) for i in (0, 1) for b in (0, 1)]
    drawn = [tuple(make_generator(*key).integers(2**63, size=4)) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [tuple(make_generator(*key).integers(2**63, size=4)) for key in keys]
    assert 0 <= make_seed(2**70, "weights", 0, 0) < 2**63


def test_a_sample_may_draw_much_without_reaching_the_next_one() -> None:
    first = make_generator(0, "training", 0, 0, 0).integers(2**63, size=10_000)
    following = make_generator(0, "training", 0, 0, 1).integers(2**63, size=10_000)
    assert not set(first.tolist()) & set(following.tolist())


def test_cases_are_equally_likely(rng: np.random.Generator) -> None:
    counts = Counter(draw_case("abcd", rng) for _ in range(4000))
    assert set(counts) == set("abcd")
    assert min(counts.values()) > 850


def test_a_forced_patch_is_centred_on_its_voxel(rng: np.random.Generator) -> None:
    patch = draw_patch("a", _geography((40, 40, 40), _1=[(20, 19, 21)]), (8, 9, 10), rng, forced=True)
    assert patch == Patch("a", (16, 15, 16))


def test_a_forced_patch_stays_inside_the_image(rng: np.random.Generator) -> None:
    patch = draw_patch("a", _geography((40, 40, 40), _1=[(0, 39, 21)]), (8, 8, 8), rng, forced=True)
    assert patch.lower == (0, 32, 17)


def test_rare_classes_are_seen_as_often_as_frequent_ones(rng: np.random.Generator) -> None:
    many = [(20, 20, x) for x in range(5, 15)] * 20
    geography = _geography((40, 40, 40), _1=many, _2=[(30, 30, 30)], _3=[])
    lower = [draw_patch("a", geography, (2, 2, 2), rng, forced=True).lower for _ in range(1000)]
    rare = sum(corner == (29, 29, 29) for corner in lower)
    assert 430 < rare < 570
    assert len(set(lower)) == 11


def test_without_foreground_a_forced_patch_lies_anywhere(rng: np.random.Generator) -> None:
    lower = {draw_patch("a", _geography((10, 4, 4)), (4, 4, 4), rng, forced=True).lower for _ in range(200)}
    assert lower == {(z, 0, 0) for z in range(7)}


@pytest.mark.parametrize("forced", [False, True])
def test_a_small_image_stands_in_the_middle_of_the_patch(forced: bool, rng: np.random.Generator) -> None:
    geography = _geography((5, 6, 20), _1=[(4, 0, 3)])
    patch = draw_patch("a", geography, (8, 8, 8), rng, forced=forced)
    assert patch.lower[:2] == (-1, -1)
    assert 0 <= patch.lower[2] <= 12


def test_unforced_patches_do_not_read_the_foreground(rng: np.random.Generator) -> None:
    def refuse() -> dict[int, np.ndarray]:
        raise AssertionError("read")

    draw_patch("a", Geography((8, 8, 8), refuse), (4, 4, 4), rng, forced=False)


def test_the_source_box_has_the_patch_in_its_middle() -> None:
    box = box_around(Patch("a", (0, 10, 5)), (4, 4, 5), (10, 4, 7))
    assert box == (slice(-3, 7), slice(10, 14), slice(4, 11))
