"""The box that is read for rotated and scaled patches, and the vote on classes."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from autoseg.augment import spatial
from autoseg.augment._sampling import _vote, sample_classes
from autoseg.data.labels import OUTSIDE_CLASS

PATCH = (20, 31, 26)


def draw_certain(seed: int, batch: int = 2, **config: object) -> tuple[spatial.Config, dict[str, torch.Tensor]]:
    full = spatial.Config(probability_rotation=1.0, probability_scaling=1.0, **config)
    return full, spatial.sample(full, (batch, 1, *PATCH), torch.Generator().manual_seed(seed))


def box_of(config: spatial.Config, parameters: dict[str, torch.Tensor], patch_size: tuple[int, ...]) -> tuple[int, ...]:
    """The box that holds those of all samples."""
    return tuple(spatial.source_sizes(config, parameters, patch_size).amax(0).tolist())


@pytest.mark.parametrize("seed", range(5))
def test_box_covers_the_patch_and_keeps_its_centre(seed: int) -> None:
    config, parameters = draw_certain(seed, rotation_degrees=(8.0, 8.0, 8.0), scaling=(0.9, 1.1))
    sizes = spatial.source_sizes(config, parameters, PATCH)
    corners = torch.tensor(list(itertools.product(*[(-(n - 1) / 2, (n - 1) / 2) for n in PATCH])))
    reach = (parameters["matrix"] @ corners.T).abs().amax(2)
    for source, wanted_of_sample in zip(sizes.tolist(), reach.tolist()):
        for size, read, wanted in zip(PATCH, source, wanted_of_sample):
            assert (read - size) % 2 == 0
            assert (read - 1) / 2 >= wanted - 1e-3
            assert read == size or (read - 3) / 2 < wanted


def test_covered_box_gives_what_the_whole_image_gives() -> None:
    config, parameters = draw_certain(1, rotation_degrees=(8.0, 8.0, 8.0), scaling=(0.9, 1.1))
    source = box_of(config, parameters, PATCH)
    whole = torch.randn(2, 1, *(size + 24 for size in PATCH))
    classes = (whole[:, 0] > 0).short()
    middle = spatial.crop_centre(whole, source), spatial.crop_centre(classes, source)
    expected, found = spatial.apply(whole, classes, parameters), spatial.apply(*middle, parameters)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-4)
    assert (found[1] == expected[1]).float().mean() > 0.999


def test_box_is_the_patch_where_nothing_is_transformed() -> None:
    config = spatial.Config(probability_rotation=0.0, probability_scaling=0.0)
    parameters = spatial.sample(config, (3, 1, *PATCH), torch.Generator())
    assert box_of(config, parameters, PATCH) == PATCH
    assert torch.equal(parameters["matrix"], torch.eye(3).expand(3, 3, 3))


def test_box_is_never_larger_than_what_nnunet_reads() -> None:
    """205 voxels an axis is nnU-Net's own figure for patches of 128 and rotations by 30 degrees."""
    config = spatial.Config(probability_rotation=1.0, probability_scaling=1.0, scaling=(1.4, 1.4))
    patch_size = (128, 128, 128)
    parameters = spatial.sample(config, (8, 1, *patch_size), torch.Generator().manual_seed(0))
    assert all(204 <= size <= 206 for size in box_of(config, parameters, patch_size))


def test_flat_patches_stay_in_their_slices() -> None:
    config, parameters = draw_certain(0, rotation_degrees=(180.0, 0.0, 0.0), scaling_axes=(1, 2))
    assert box_of(config, parameters, PATCH)[0] == PATCH[0]
    images = torch.zeros(2, 1, *PATCH)
    images[:, :, 7] = 1
    changed, _ = spatial.apply(images, images[:, 0].short(), parameters)
    assert changed[:, :, 7].sum() > 0
    assert changed[:, :, :7].sum() == changed[:, :, 8:].sum() == 0


def test_batch_is_read_in_one_box_and_the_rest_is_cropped() -> None:
    """A sample that is not transformed is the exact middle of the box that another sample needs."""
    config = spatial.Config(probability_rotation=0.5, probability_scaling=0.0)
    parameters = spatial.sample(config, (4, 1, *PATCH), torch.Generator().manual_seed(2))
    applied = parameters["applied"]
    assert applied.any() and not applied.all()
    source = box_of(config, parameters, PATCH)
    images = torch.randn(4, 1, *source)
    changed, _ = spatial.apply(images, images[:, 0].short(), parameters)
    assert changed.shape == (4, 1, *PATCH)
    assert torch.equal(changed[~applied], spatial.crop_centre(images, PATCH)[~applied])


def test_vote_is_the_argmax_of_interpolated_indicators() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(-1, 9, (2, 9, 8, 7), generator=generator).short()
    grid = torch.rand(2, 12, 12, 12, 3, generator=generator) * 2.6 - 1.3
    indicators = (classes[:, None] == torch.arange(-1, 9)[:, None, None, None]).double()
    scores = F.grid_sample(indicators, grid.double(), align_corners=False)
    scores = torch.cat([1 - scores.sum(1, keepdim=True), scores], dim=1)  # the first stands for what is outside
    names = torch.tensor([OUTSIDE_CLASS, *range(-1, 9)])
    expected = names[scores.argmax(1)]
    second, first = scores.topk(2, dim=1).values.flip(1).unbind(1)
    clear = first - second > 1e-4
    assert clear.float().mean() > 0.95
    assert torch.equal(sample_classes(classes, grid.permute(0, 4, 1, 2, 3))[clear].long(), expected[clear])


def test_the_vote_on_all_positions_is_that_on_mixed_ones() -> None:
    """The CPU votes only where classes meet; other devices vote everywhere."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 3, (1, 1, 4, 4, 4), generator=generator).float()
    classes = F.interpolate(coarse, scale_factor=5)[:, 0].short()
    positions = torch.rand(2, 3, 15, 15, 15, generator=generator) * 2.4 - 1.2
    padded = F.pad(classes, (1,) * 6, value=OUTSIDE_CLASS).expand(2, -1, -1, -1).contiguous()
    x, y, z = (plane.flatten() for plane in positions.unbind(1))
    everywhere = _vote(padded, (z, y, x), torch.arange(2).repeat_interleave(15**3))
    found = sample_classes(classes.expand(2, -1, -1, -1).contiguous(), positions)
    assert torch.equal(found, everywhere.view(2, 15, 15, 15))
