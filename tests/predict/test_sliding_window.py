"""The sliding window against a slow loop over single tiles, and against what must hold for any network."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from autoseg.predict.sliding_window import importance_map, predict_logits, tile_starts
from autoseg.train.device import DTYPES, choose_precision

CPU = torch.device("cpu")


class Recorder(nn.Module):
    """Passes the image on, or what ``function`` makes of it, as a deep supervision list; keeps the batch sizes."""

    def __init__(self, function=lambda x: x) -> None:
        super().__init__()
        self.function = function
        self.batch_sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.batch_sizes.append(len(x))
        return [self.function(x), torch.full((1,), torch.nan)]


def convolution(channels: int = 2, outputs: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(channels, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(4, outputs, 3, padding=1)
    ).eval()


def predict(
    network, image: torch.Tensor, patch=(8, 12, 10), step=0.5, axes=(), outputs=None, **options
) -> torch.Tensor:
    outputs = outputs or image.shape[0]
    options = {"precision": "fp32", **options}
    return predict_logits(
        network, image, patch_size=patch, tile_step=step, mirror_axes=axes, num_outputs=outputs, device=CPU, **options
    )


def starts_by_loop(size: int, patch: int, step: float) -> list[int]:
    """The fewest tiles that lie at most patch x step apart and cover the axis, found by trying."""
    if size <= patch:
        return [0]
    count = next(n for n in itertools.count(2) if (size - patch) / (n - 1) <= patch * step + 1e-9)
    return [int(np.rint(i * (size - patch) / (count - 1))) for i in range(count)]


def naive(network: nn.Module, image: torch.Tensor, patch, step: float, axes, outputs: int) -> torch.Tensor:
    """One tile, one mirroring and one voxel sum at a time, in float64."""
    shape = image.shape[1:]
    padding = [max(p - s, 0) for p, s in zip(patch, shape)]
    big = np.pad(image.numpy(), [(0, 0), *((m // 2, m - m // 2) for m in padding)])
    impulse = np.zeros(patch)
    impulse[tuple(p // 2 for p in patch)] = 1
    weight = gaussian_filter(impulse, [p / 8 for p in patch], mode="constant")
    weight /= weight.max()
    total, weights = np.zeros((outputs, *big.shape[1:])), np.zeros(big.shape[1:])
    for corner in itertools.product(*(starts_by_loop(s, p, step) for s, p in zip(big.shape[1:], patch))):
        box = tuple(slice(c, c + p) for c, p in zip(corner, patch))
        for mirrored in itertools.product((False, True), repeat=len(axes)):
            flips = [a + 1 for a, m in zip(axes, mirrored) if m]
            tile = np.flip(big[(slice(None), *box)], flips).copy()
            with torch.no_grad():
                output = network(torch.from_numpy(tile)[None])[0].double().numpy()
            total[(slice(None), *box)] += weight * np.flip(output, flips)
            weights[box] += weight
    inside = tuple(slice(m // 2, m // 2 + s) for m, s in zip(padding, shape))
    return torch.from_numpy((total / weights)[(slice(None), *inside)])


@pytest.mark.parametrize("shape", [(20, 31, 23), (8, 12, 10), (5, 7, 30), (1, 25, 9), (3, 4, 5)])
@pytest.mark.parametrize("axes", [(), (1,), (0, 1, 2)])
def test_equals_the_naive_loop(shape, axes) -> None:
    network, image = convolution(), torch.randn(2, *shape)
    result = predict(network, image, axes=axes, outputs=3)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), naive(network, image, (8, 12, 10), 0.5, axes, 3), rtol=1e-5, atol=1e-6)


def test_a_single_slice_with_flat_tiles_equals_the_naive_loop() -> None:
    network, image = convolution(), torch.randn(2, 1, 37, 29)
    result = predict(network, image, patch=(1, 16, 16), axes=(1, 2), outputs=3)
    torch.testing.assert_close(
        result.double(), naive(network, image, (1, 16, 16), 0.5, (1, 2), 3), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("step", [0.3, 0.5, 1.0])
def test_the_identity_gives_the_image_back_and_constants_stay(step: float) -> None:
    image = torch.randn(2, 19, 30, 11)
    torch.testing.assert_close(predict(Recorder(), image, step=step, axes=(0, 2)), image, rtol=1e-5, atol=1e-6)
    constant = Recorder(lambda x: torch.full_like(x, 3.5))
    torch.testing.assert_close(predict(constant, image, step=step), torch.full_like(image, 3.5))


def test_mirroring_an_equivariant_network_changes_nothing() -> None:
    image = torch.randn(1, 17, 20, 21)
    network = Recorder(lambda x: nn.functional.avg_pool3d(x, 3, stride=1, padding=1))
    plain, mirrored = predict(network, image), predict(network, image, axes=(0, 1, 2))
    torch.testing.assert_close(plain, mirrored, rtol=1e-5, atol=1e-6)


def test_batches_fill_the_voxel_limit_and_change_nothing() -> None:
    network, image = convolution(), torch.randn(2, 20, 20, 20)
    single, limit = Recorder(network), 5 * 8 * 12 * 10 + 17
    one = predict(single, image, axes=(0, 1), outputs=3, batch_voxels=1)
    many = Recorder(network)
    five = predict(many, image, axes=(0, 1), outputs=3, batch_voxels=limit)
    jobs = 4 * math.prod(len(tile_starts(20, p, 0.5)) for p in (8, 12, 10))
    assert single.batch_sizes == [1] * jobs
    assert set(many.batch_sizes[:-1]) == {5} and sum(many.batch_sizes) == jobs
    torch.testing.assert_close(one, five, rtol=1e-5, atol=1e-6)


def test_several_networks_are_averaged() -> None:
    first, second, image = convolution(seed=1), convolution(seed=2), torch.randn(2, 12, 20, 14)
    alone = [predict(network, image, outputs=3, axes=(2,)) for network in (first, second)]
    together = predict([first, second], image, outputs=3, axes=(2,))
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2, rtol=1e-5, atol=1e-6)


def test_the_network_computes_in_what_the_device_trains_in() -> None:
    seen = []

    def note(x: torch.Tensor) -> torch.Tensor:
        seen.append(nn.functional.conv3d(x, torch.ones(1, 1, 1, 1, 1)).dtype)
        return x

    image = torch.randn(1, 8, 12, 10)
    for precision in ("bf16", "fp16", "fp32"):
        assert predict(Recorder(note), image, precision=precision).dtype == torch.float32
    assert seen == [DTYPES[choose_precision(precision, CPU)] for precision in ("bf16", "fp16", "fp32")]


def test_the_result_is_an_ordinary_tensor_that_may_be_changed_in_place() -> None:
    result = predict(Recorder(), torch.randn(1, 9, 12, 10))
    result += 1
    assert not result.is_inference()


def test_tiles_begin_where_the_fewest_even_steps_are() -> None:
    for size, patch, step in itertools.product(range(1, 70, 3), (4, 7, 16), (0.25, 0.5, 1.0)):
        assert tile_starts(size, patch, step) == starts_by_loop(size, patch, step), (size, patch, step)
    assert tile_starts(9, 1, 0.5) == list(range(9))


def test_the_importance_map_is_a_normalized_gaussian_with_positive_corners() -> None:
    weight = importance_map((16, 9, 1))
    assert weight.shape == (16, 9, 1) and weight[8, 4, 0] == 1 == weight.max()
    assert importance_map((128, 128, 128)).min() > 0
    impulse = np.zeros((16, 9, 1))
    impulse[8, 4, 0] = 1
    expected = gaussian_filter(impulse, (2, 9 / 8, 1 / 8), mode="constant")
    np.testing.assert_allclose(weight, expected / expected.max(), rtol=1e-5, atol=1e-9)
