"""Each augmentation, given the same parameters, against batchgeneratorsv2, which nnU-Net trains with."""

import pytest
import torch
from torch.nn import functional as F

from autoseg.augment import (
    Parameters,
    brightness,
    contrast,
    gamma,
    gaussian_blur,
    gaussian_noise,
    low_resolution,
    mirror,
    spatial,
)

pytest.importorskip("batchgeneratorsv2")

from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform  # noqa: E402
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform  # noqa: E402
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform  # noqa: E402
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform  # noqa: E402

TOLERANCE = 1e-5
"""Largest difference in standard deviations of the image."""


def make_smooth(shape: tuple[int, ...], seed: int = 0, width: int = 4) -> torch.Tensor:
    """Return noise that is smooth over ``width`` voxels."""
    coarse = [max(size // width, 1) for size in shape[2:]]
    noise = torch.randn(*shape[:2], *coarse, generator=torch.Generator().manual_seed(seed))
    volume = F.interpolate(noise, shape[2:], mode="trilinear")
    return volume / volume.std() * 3 + 1


def make_classes(shape: tuple[int, ...], num_classes: int = 4) -> torch.Tensor:
    """Return classes in smooth blobs; (B, Z, Y, X)."""
    volume = make_smooth((shape[0], 1, *shape[2:]), seed=1, width=10)[:, 0]
    edges = volume.flatten().quantile(torch.linspace(0, 1, num_classes + 1))[1:-1]
    return torch.bucketize(volume, edges).to(torch.int16)


def check_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < TOLERANCE * expected.std()


@pytest.mark.parametrize(
    ("angles", "factors"),
    [
        ((0.3, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ((0.0, -0.4, 0.0), (1.0, 1.0, 1.0)),
        ((0.0, 0.0, 0.5), (1.0, 1.0, 1.0)),
        ((0.0, 0.0, 0.0), (1.37, 1.37, 1.37)),
        ((0.5, -0.4, 0.3), (0.71, 0.71, 0.71)),
        ((-0.5, 0.5, 0.5), (1.4, 1.4, 1.4)),
    ],
)
@pytest.mark.parametrize("growth", [0, 10])
def test_spatial(angles: tuple[float, ...], factors: tuple[float, ...], growth: int) -> None:
    patch_size = (28, 31, 34)
    shape = (1, 2, *(size + growth for size in patch_size))
    images, classes = make_smooth(shape, width=10) - 1, make_classes(shape)
    transform = SpatialTransform(
        patch_size,
        0,
        False,
        p_rotation=1,
        rotation=lambda image, dim: angles[dim],
        p_scaling=1,
        scaling=lambda image, dim: factors[dim],
    )
    parameters = transform.get_parameters(image=images[0])
    expected_images = transform._apply_to_image(images[0].clone(), **parameters)
    expected_classes = transform._apply_to_segmentation(classes.clone(), **parameters)
    matrix = spatial.make_matrix(torch.tensor([angles]), torch.tensor([factors]))
    torch.testing.assert_close(matrix[0].double(), torch.from_numpy(parameters["affine"]), rtol=0, atol=1e-6)
    found_images, found_classes = spatial.apply(
        images,
        classes,
        {"applied": torch.tensor([True]), "matrix": matrix, "patch_size": torch.tensor([patch_size])},
    )
    difference = (found_images[0] - expected_images).abs() / images.std()
    inside = (parameters["grid"].abs() < 1 - 1 / torch.tensor(shape[:1:-1])).all(-1)
    assert difference[:, inside].max() < TOLERANCE
    assert difference.max() < 5 * TOLERANCE  # at the steep edge of the box the rounding of positions shows
    assert (found_classes == expected_classes).float().mean() >= 0.9999


def test_untransformed_samples_are_the_middle() -> None:
    images, classes = make_smooth((1, 1, 30, 31, 32)), make_classes((1, 1, 30, 31, 32))
    transform = SpatialTransform((22, 25, 28), 0, False)
    parameters = transform.get_parameters(image=images[0])
    drawn = spatial.sample(
        spatial.Config(probability_rotation=0.0, probability_scaling=0.0), (1, 1, 22, 25, 28), torch.Generator()
    )
    found_images, found_classes = spatial.apply(images, classes, drawn)
    assert torch.equal(found_images[0], transform._apply_to_image(images[0], **parameters))
    assert torch.equal(found_classes, transform._apply_to_segmentation(classes, **parameters))


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_mirror(axes: tuple[int, ...]) -> None:
    images, classes = make_smooth((1, 2, 8, 9, 10)), make_classes((1, 2, 8, 9, 10))
    transform = MirrorTransform((0, 1, 2))
    found_images, found_classes = mirror.apply(
        images, classes, {"mirrored": torch.tensor([[axis in axes for axis in range(3)]])}
    )
    assert torch.equal(found_images[0], transform._apply_to_image(images[0], axes=axes))
    assert torch.equal(found_classes, transform._apply_to_segmentation(classes, axes=axes))


def apply_to_image(module: object, images: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    changed, _ = module.apply(images, torch.zeros(images[:, 0].shape, dtype=torch.int16), parameters)  # type: ignore
    return changed[0]


def test_brightness() -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    factors = torch.tensor([0.8, 1.2])
    transform = MultiplicativeBrightnessTransform((1, 1), False)
    expected = transform._apply_to_image(images[0].clone(), apply_to_channel=[0, 1], multipliers=factors)
    parameters = {"applied": torch.tensor([True]), "factor": factors[None]}
    assert torch.equal(apply_to_image(brightness, images, parameters), expected)


def test_contrast() -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    factors = torch.tensor([0.8, 1.2])
    transform = ContrastTransform((1, 1), True, False)
    expected = transform._apply_to_image(images[0].clone(), apply_to_channel=torch.arange(2), multipliers=factors)
    check_close(apply_to_image(contrast, images, {"applied": torch.tensor([True]), "factor": factors[None]}), expected)


@pytest.mark.parametrize("invert", [False, True])
def test_gamma(invert: bool) -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    exponents = torch.tensor([0.75, 1.4])
    transform = GammaTransform((1, 1), int(invert), False, 1, 1)
    flags = torch.ones(2, dtype=torch.bool)
    expected = transform._apply_to_image(
        images[0].clone(),
        apply_to_channel=torch.arange(2),
        retain_stats=flags,
        invert_image=flags if invert else ~flags,
        gamma=exponents,
    )
    drawn = gamma.sample(gamma.Config(probability=1.0, invert=invert), (1, 2, 12, 13, 14), torch.Generator())
    check_close(apply_to_image(gamma, images, {**drawn, "gamma": exponents[None]}), expected)


def test_gaussian_noise() -> None:
    """The numbers differ from batchgeneratorsv2's, which come from a global generator; the distribution does not."""
    images = torch.zeros(3, 2, 20, 20, 20)
    sigma = torch.tensor([0.05, 0.1, 0.02])
    drawn = gaussian_noise.sample(gaussian_noise.Config(probability=1.0), tuple(images.shape), torch.Generator())
    found, _ = gaussian_noise.apply(images, images[:, 0].short(), {**drawn, "sigma": sigma})
    torch.testing.assert_close(found.std((2, 3, 4)), sigma[:, None].expand(3, 2), rtol=0.05, atol=0)
    assert (found.mean((2, 3, 4)).abs() < 0.05 * sigma[:, None]).all()
    assert torch.corrcoef(found.flatten(2).flatten(0, 1)).triu(1).abs().max() < 0.05


@pytest.mark.parametrize("sigma", [(0.5, 0.6, 0.7), (0.74, 0.75, 0.76), (0.9, 0.99, 1.0)])
def test_gaussian_blur(sigma: tuple[float, ...]) -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    transform = GaussianBlurTransform((1, 1), False, False, 1)
    expected = transform._apply_to_image(
        images[0].clone(), apply_to_channel=torch.tensor([False, True]), sigmas=[list(sigma)]
    )
    parameters = {"applied": torch.tensor([[False, True]]), "sigma": torch.tensor([[[0.6] * 3, sigma]])}
    check_close(apply_to_image(gaussian_blur, images, parameters), expected)


@pytest.mark.parametrize("scale", [0.5, 0.6, 0.75, 0.9, 1.0])
def test_low_resolution(scale: float) -> None:
    images = make_smooth((1, 2, 24, 29, 40))
    transform = SimulateLowResolutionTransform((1, 1), False, True, None)
    expected = transform._apply_to_image(images[0].clone(), apply_to_channel=[1], scales=torch.full((1, 3), scale))
    parameters = {"applied": torch.tensor([[False, True]]), "scale": torch.full((1, 2, 3), scale)}
    check_close(apply_to_image(low_resolution, images, parameters), expected)
