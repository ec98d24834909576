"""Slices of a validation patch: always the same ones, with the right regions in the right colours."""

import numpy as np
import pytest
import torch

from autoseg.preprocess.preview import COLOURS
from autoseg.train.examples import EDGE, GAP, Examples, draw_examples, is_due, take_examples


def test_about_as_many_pictures_however_long_the_training() -> None:
    for epochs in (1, 3, 25, 100, 1000):
        due = [epoch for epoch in range(1, epochs + 1) if is_due(epoch, epochs)]
        assert due[0] == 1 and due[-1] == epochs
        assert min(epochs, 20) <= len(due) <= 40


def _batch(depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (4, 2, depth, 6, 5) whose values are sample * 1000 + depth, and classes (4, depth, 6, 5)."""
    values = torch.arange(4)[:, None] * 1000 + torch.arange(depth)
    images = values[:, None, :, None, None].expand(4, 2, depth, 6, 5).float()
    classes = torch.zeros((4, depth, 6, 5), dtype=torch.int16)
    classes[:, :, :3], classes[:, :, 3:, 0] = 1, -1
    return images, classes


@pytest.mark.parametrize(
    ("depth", "shown"),
    [(16, [3004, 3008, 3012]), (2, [3000, 3001]), (1, [1000, 2000, 3000])],
    ids=["a patch", "a flat patch", "slices"],
)
def test_slices_are_those_of_the_last_patch_or_in_2d_of_the_last_patches(depth: int, shown: list[int]) -> None:
    images, classes = _batch(depth)
    membership = torch.tensor([[False, True, False], [False, False, True]])
    logits = torch.zeros((4, 3, depth, 6, 5))
    logits[:, 2] = 1
    found = take_examples(images, classes, logits, membership, overlapping=False)
    assert found.image[:, 0, 0].tolist() == shown
    assert found.reference.shape == found.predicted.shape == (len(shown), 2, 6, 5)
    assert found.reference[:, 0, :3].all() and not found.reference[:, 0, 3:].any() and not found.reference[:, 1].any()
    assert found.predicted[:, 1].all() and not found.predicted[:, 0].any()


def test_regions_that_overlap_are_taken_each_by_itself() -> None:
    images, classes = _batch(4)
    membership = torch.tensor([[False, True, True], [False, False, True]])
    logits = torch.stack([torch.ones((4, 4, 6, 5)), -torch.ones((4, 4, 6, 5))], dim=1)
    found = take_examples(images, classes, logits, membership, overlapping=True)
    assert found.predicted[:, 0].all() and not found.predicted[:, 1].any()


def test_the_picture_has_a_column_each_for_image_reference_and_prediction() -> None:
    image = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (2, 8, 1))
    reference, predicted = np.zeros((2, 2, 8, 8), bool), np.zeros((2, 2, 8, 8), bool)
    reference[:, 0, :4] = True
    predicted[:, 1] = True
    picture = draw_examples(Examples(image, reference, predicted))
    assert picture.shape == (2 * EDGE + GAP, 3 * EDGE + 2 * GAP, 3)
    tiles = [picture[:EDGE, start : start + EDGE].astype(int) for start in (0, EDGE + GAP, 2 * (EDGE + GAP))]
    assert np.ptp(tiles[0], axis=2).max() == 0  # grey
    washed = tiles[1][10, 10] - tiles[0][10, 10] * 0.55
    assert washed == pytest.approx(0.45 * COLOURS[0].astype(float), abs=1)
    assert (tiles[1][EDGE // 2 + 2 :] == tiles[0][EDGE // 2 + 2 :]).all()
    assert tiles[2][-1, 10] - tiles[0][-1, 10] * 0.55 == pytest.approx(0.45 * COLOURS[1].astype(float), abs=1)


def test_an_image_of_one_grey_is_drawn() -> None:
    nothing = np.zeros((1, 1, 4, 4), bool)
    assert draw_examples(Examples(np.full((1, 4, 4), 7.0, np.float32), nothing, nothing)).max() == 255  # the gaps
