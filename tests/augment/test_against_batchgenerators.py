"""Each augmentation, given the same parameters, against batchgeneratorsv2, which nnU-Net trains with."""

import importlib
import sys
import types

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from autoseg.augment import (
    Parameters,
    additive_brightness,
    blank_rectangle,
    brightness,
    brightness_gradient,
    contrast,
    gamma,
    gaussian_blur,
    gaussian_noise,
    local_gamma,
    low_resolution,
    mask,
    median_filter,
    mirror,
    previous_component,
    previous_morphology,
    rot90,
    sharpening,
    spatial,
    transpose_axes,
)
from autoseg.augment._bumps import make_bumps
from autoseg.augment._pipeline import join_previous
from autoseg.data.labels import OUTSIDE_CLASS
from autoseg.networks._previous import SecondStage

pytest.importorskip("batchgeneratorsv2")

from batchgeneratorsv2.transforms.intensity.brightness import (  # noqa: E402
    BrightnessAdditiveTransform,
    MultiplicativeBrightnessTransform,
)
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform  # noqa: E402
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform  # noqa: E402
from batchgeneratorsv2.transforms.local.brightness_gradient import BrightnessGradientAdditiveTransform  # noqa: E402
from batchgeneratorsv2.transforms.local.local_gamma import LocalGammaTransform  # noqa: E402
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import (  # noqa: E402
    ApplyRandomBinaryOperatorTransform,
    binary_closing_torch,
    binary_dilation_torch,
    binary_erosion_torch,
    binary_opening_torch,
)
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform  # noqa: E402
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform  # noqa: E402
from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform  # noqa: E402
from batchgeneratorsv2.transforms.noise.sharpen import SharpeningTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform  # noqa: E402
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform  # noqa: E402
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform  # noqa: E402
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform  # noqa: E402

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


def make_transform(
    patch_size: tuple[int, ...], angles: tuple[float, ...], factors: tuple[float, ...]
) -> SpatialTransform:
    """Return nnU-Net's transform, which pads labels, with certain angles and factors."""
    return SpatialTransform(
        patch_size,
        0,
        False,
        p_rotation=1,
        rotation=lambda image, dim: angles[dim],
        p_scaling=1,
        scaling=lambda image, dim: factors[dim],
        border_mode_seg="constant",
        padding_value_seg=OUTSIDE_CLASS,
    )


def make_parameters(patch_size: tuple[int, ...], angles: tuple[float, ...], factors: tuple[float, ...]) -> Parameters:
    """Return what the own augmentation might have drawn."""
    drawn = spatial.sample(spatial.Config(), (1, 1, *patch_size), torch.Generator())
    matrix = spatial.make_matrix(torch.tensor([angles]), torch.tensor([factors]))
    return {**drawn, "applied": torch.tensor([True]), "matrix": matrix}


@pytest.mark.parametrize(
    ("angles", "factors"),
    [
        ((0.3, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ((0.0, -0.4, 0.0), (1.0, 1.0, 1.0)),
        ((0.0, 0.0, 0.5), (1.0, 1.0, 1.0)),
        ((0.0, 0.0, 0.0), (1.37, 1.37, 1.37)),
        ((0.5, -0.4, 0.3), (0.71, 0.71, 0.71)),
        ((-0.5, 0.5, 0.5), (1.4, 1.4, 1.4)),
        ((0.2, 0.1, -0.3), (0.7, 1.43, 1.1)),
    ],
)
@pytest.mark.parametrize("growth", [0, 10])
def test_spatial(angles: tuple[float, ...], factors: tuple[float, ...], growth: int) -> None:
    patch_size = (28, 31, 34)
    shape = (1, 2, *(size + growth for size in patch_size))
    images, classes = make_smooth(shape, width=10) - 1, make_classes(shape)
    transform = make_transform(patch_size, angles, factors)
    parameters = transform.get_parameters(image=images[0])
    own = make_parameters(patch_size, angles, factors)
    torch.testing.assert_close(own["matrix"][0].double(), torch.from_numpy(parameters["affine"]), rtol=0, atol=1e-6)
    check_spatial(images, classes, transform, parameters, own)


def check_spatial(
    images: torch.Tensor, classes: torch.Tensor, transform: SpatialTransform, parameters: dict, own: Parameters
) -> None:
    expected_images = transform._apply_to_image(images[0].clone(), **parameters)
    expected_classes = transform._apply_to_segmentation(classes.clone(), **parameters)
    found_images, found_classes = spatial.apply(images, classes, own)
    difference = (found_images[0] - expected_images).abs() / images.std()
    inside = (parameters["grid"].abs() < 1 - 1 / torch.tensor(images.shape[:1:-1])).all(-1)
    assert difference[:, inside].max() < TOLERANCE
    assert difference.max() < 5 * TOLERANCE  # at the steep edge of the box the rounding of positions shows
    assert (found_classes == expected_classes).float().mean() >= 0.9999


@pytest.mark.parametrize("mirrored", [(False, False, False), (True, False, True)])
def test_elastic_deformation(mirrored: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same noise, and mirrored in the same interpolation."""
    patch_size, widths, magnitudes = (24, 30, 28), (0.1, 0.15, 0.2), (1.5, 2.0, 1.0)
    images, classes = make_smooth((1, 2, 30, 36, 34), width=10) - 1, make_classes((1, 2, 30, 36, 34))
    noise = torch.randn((3, *patch_size), generator=torch.Generator().manual_seed(1))
    transform = make_transform(patch_size, (0.2, 0.1, -0.3), (1.1, 1.1, 1.1))
    transform.p_elastic_deform = 1
    transform.elastic_deform_scale = lambda image, dim, patch_size: widths[dim]
    transform.elastic_deform_magnitude = lambda image, patch_size, dim, deformation_scale: magnitudes[dim]
    monkeypatch.setattr(torch, "normal", lambda mean, std, size: noise.clone())
    parameters = transform.get_parameters(image=images[0])
    axes = [axis for axis, flag in enumerate(mirrored) if flag]
    parameters["grid"] = parameters["grid"].flip(axes)
    own = make_parameters(patch_size, (0.2, 0.1, -0.3), (1.1, 1.1, 1.1)) | {
        "deformed": torch.tensor([True]),
        "mirrored": torch.tensor([mirrored]),
        "elastic_sigma": torch.tensor([[width * size for width, size in zip(widths, patch_size)]]),
        "elastic_magnitude": torch.tensor([magnitudes]),
    }
    monkeypatch.setattr("autoseg.augment._elastic.draw_noise", lambda rows, seeds: noise[None])
    check_spatial(images, classes, transform, parameters, own)


@pytest.mark.parametrize("angle", [0.4, 2.5])
def test_flat_patches(angle: float) -> None:
    """nnU-Net transforms the slices of flat patches as channels of a 2-D image."""
    shape, patch_size = (1, 2, 6, 40, 42), (6, 30, 28)
    images, classes = make_smooth(shape, width=10) - 1, make_classes(shape)
    to_slices, back = Convert3DTo2DTransform(), Convert2DTo3DTransform()
    transform = make_transform(patch_size[1:], (0.0, angle), (0.8, 0.8))
    data = to_slices(image=images[0].clone(), segmentation=classes.clone())
    data = back(**transform(**data))
    own = make_parameters(patch_size, (angle, 0.0, 0.0), (1.0, 0.8, 0.8))
    found_images, found_classes = spatial.apply(images, classes, own)
    assert (found_images[0] - data["image"]).abs().max() < 2 * TOLERANCE * images.std()
    assert (found_classes == data["segmentation"]).float().mean() >= 0.9999


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
    classes = torch.zeros(images[:, 0].shape, dtype=torch.int16)
    return module.apply(images.clone(), classes, parameters)[0][0]  # type: ignore[attr-defined, no-any-return]


CHANNELS = torch.tensor([[False, True]])
"""In a test of two channels only the second one is changed."""


def test_brightness() -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    factors = torch.tensor([0.8, 1.2])
    transform = MultiplicativeBrightnessTransform((1, 1), False)
    expected = transform._apply_to_image(images[0].clone(), apply_to_channel=[0, 1], multipliers=factors)
    parameters = {"applied": torch.tensor([True]), "factor": factors[None]}
    assert torch.equal(apply_to_image(brightness, images, parameters), expected)


def test_additive_brightness() -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    transform = BrightnessAdditiveTransform(0, 0.5, False)
    expected = transform._apply_to_image(
        images[0].clone(), apply_to_channel=torch.tensor([1]), shift=torch.tensor([0.0, -0.7])
    )
    parameters = {"applied": CHANNELS, "shift": torch.tensor([[9.0, -0.7]])}
    assert torch.equal(apply_to_image(additive_brightness, images, parameters), expected)


@pytest.mark.parametrize("preserve_range", [True, False])
def test_contrast(preserve_range: bool) -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    factors = torch.tensor([0.8, 1.9])
    transform = ContrastTransform((1, 1), preserve_range, False)
    expected = transform._apply_to_image(images[0].clone(), apply_to_channel=torch.arange(2), multipliers=factors)
    parameters = {
        "applied": torch.tensor([[True, True]]),
        "factor": factors[None],
        "preserved": torch.tensor([preserve_range]),
    }
    check_close(apply_to_image(contrast, images, parameters), expected)


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


def test_mask() -> None:
    images, classes = make_smooth((1, 3, 8, 9, 10)), make_classes((1, 3, 8, 9, 10))
    classes[:, :, 6:] = OUTSIDE_CLASS
    data = {"image": images[0].clone(), "segmentation": torch.where(classes == OUTSIDE_CLASS, -1, classes)}
    expected = MaskImageTransform([0, 2], 0, 0)(**data)["image"]
    drawn = mask.sample(mask.Config(channels=(0, 2)), tuple(images.shape), torch.Generator())
    assert torch.equal(mask.apply(images, classes, drawn)[0][0], expected)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("plane", [0, 1, 2])
def test_rot90(plane: int, turns: int) -> None:
    images, classes = make_smooth((1, 2, 10, 10, 10)), make_classes((1, 2, 10, 10, 10))
    parameters = {"num_rot_per_combination": [turns], "axis_combinations": [[1 + a for a in rot90.PLANES[plane]]]}
    transform = Rot90Transform(1)
    expected = [transform._apply_to_image(v.clone(), **parameters) for v in (images[0], classes)]
    own = {"plane": torch.tensor([plane]), "turns": torch.tensor([turns])}
    found_images, found_classes = rot90.apply(images, classes, own)
    assert torch.equal(found_images[0], expected[0]) and torch.equal(found_classes, expected[1])


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 2, 0), (2, 1, 0)])
def test_transpose_axes(order: tuple[int, ...]) -> None:
    images, classes = make_smooth((1, 2, 10, 10, 10)), make_classes((1, 2, 10, 10, 10))
    parameters = {"axis_order": [0, *(1 + axis for axis in order)]}
    transform = TransposeAxesTransform({0, 1, 2})
    expected = [transform._apply_to_image(v.clone(), **parameters) for v in (images[0], classes)]
    found_images, found_classes = transpose_axes.apply(images, classes, {"order": torch.tensor([order])})
    assert torch.equal(found_images[0], expected[0]) and torch.equal(found_classes, expected[1])


@pytest.mark.parametrize("size", range(2, 8))
def test_median_filter(size: int) -> None:
    images = make_smooth((1, 2, 9, 10, 11), width=2)
    transform = MedianFilterTransform(size)
    expected = transform._apply_to_image(images[0].clone(), filter_sizes=[0, size], apply_channel=[False, True])
    parameters = {"applied": CHANNELS, "size": torch.tensor([[3, size]])}
    assert torch.equal(apply_to_image(median_filter, images, parameters), expected)


def test_blank_rectangle() -> None:
    """Overlapping boxes: the second one's mean is of what the first one left."""
    images = make_smooth((1, 2, 12, 13, 14))
    boxes = [([1, 2, 3], [5, 4, 6]), ([3, 3, 3], [12, 13, 5])]
    transform = BlankRectangleTransform(1, torch.mean, 1)
    expected = transform._apply_to_image(images[0].clone(), apply_channel=[False, True], rectangles=[[], boxes])
    start = torch.tensor([[[[0] * 3] * 3, [*(low for low, _ in boxes), [0] * 3]]])
    size = torch.tensor([[[[0] * 3] * 3, [*([b - a for a, b in zip(*box)] for box in boxes), [0] * 3]]])
    check_close(apply_to_image(blank_rectangle, images, {"applied": CHANNELS, "start": start, "size": size}), expected)


BUMPS = [
    ((3.0, 20.0, 10.0), (4.0, 5.0, 6.0)),
    ((-6.0, -7.0, 21.0), (2.0, 13.0, 3.0)),
    ((6.0, 6.0, 7.0), (12.0, 2.0, 3.0)),
]


def make_kernel(centre: tuple[float, ...], width: tuple[float, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """Return batchgeneratorsv2's bump; its places are parts of the shape."""
    transform = LocalGammaTransform(lambda _, dim: width[dim], lambda size, dim: centre[dim] / size[dim])
    return torch.from_numpy(transform._generate_kernel(shape))


@pytest.mark.parametrize(("centre", "width"), BUMPS)
def test_bumps(centre: tuple[float, ...], width: tuple[float, ...]) -> None:
    found = make_bumps(torch.tensor([centre]), torch.tensor([width]), torch.empty(1, 12, 13, 14))
    torch.testing.assert_close(found[0], make_kernel(centre, width, (12, 13, 14)), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("centre", "width"), BUMPS)
def test_brightness_gradient(centre: tuple[float, ...], width: tuple[float, ...]) -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    kernel = (-2 * make_kernel(centre, width, (12, 13, 14))).numpy()
    expected = BrightnessGradientAdditiveTransform(1.0)._apply_to_image(images[0].clone(), kernels=[None, kernel])
    place = {"centre": torch.tensor([[centre] * 2]), "width": torch.tensor([[width] * 2])}
    parameters = {"applied": CHANNELS, "height": torch.tensor([[9.0, -2.0]]), **place}
    check_close(apply_to_image(brightness_gradient, images, parameters), expected)


@pytest.mark.parametrize("exponent", [0.3, 3.0])
@pytest.mark.parametrize(("centre", "width"), BUMPS)
def test_local_gamma(centre: tuple[float, ...], width: tuple[float, ...], exponent: float) -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    kernel = make_kernel(centre, width, (12, 13, 14)).numpy()
    transform = LocalGammaTransform(1.0)
    expected = transform._apply_to_image(images[0].clone(), kernels=[None, kernel], gammas=[None, exponent])
    place = {"centre": torch.tensor([[centre] * 2]), "width": torch.tensor([[width] * 2])}
    parameters = {"applied": CHANNELS, "gamma": torch.tensor([[9.0, exponent]]), **place}
    check_close(apply_to_image(local_gamma, images, parameters), expected)


def test_sharpening() -> None:
    images = make_smooth((1, 2, 12, 13, 14))
    parameters = {"strengths": [0.0, 0.7], "clamp_intensities": [False] * 2, "apply_channel": [False, True]}
    expected = SharpeningTransform()._apply_to_image(images[0].clone(), **parameters)
    own = {"applied": CHANNELS, "strength": torch.tensor([[9.0, 0.7]])}
    found = apply_to_image(sharpening, images, own)
    assert (found - expected).abs().max() < TOLERANCE * expected.std()


# --- what a previous stage found, as classes here and one-hot there -------------------------------------------------

OPERATORS = (binary_dilation_torch, binary_erosion_torch, binary_closing_torch, binary_opening_torch)
"""In the order of ``previous_morphology.STEPS``."""


def one_hot(found: torch.Tensor) -> torch.Tensor:
    """Return the channels (3, Z, Y, X) of the foreground classes 1 to 3."""
    return torch.stack([(found == label).float() for label in (1, 2, 3)])


@pytest.mark.parametrize("shape", [(1, 1, 22, 26, 24), (1, 1, 1, 30, 28)])
@pytest.mark.parametrize("operator", range(4))
@pytest.mark.parametrize("radius", [1, 3, 8])
def test_previous_morphology(shape: tuple[int, ...], operator: int, radius: int) -> None:
    found = make_classes(shape)
    order = [2, 1, 3]
    drawn = {
        "order": torch.tensor([order]),
        "applied": torch.tensor([[True, False, True]]),
        "operator": torch.tensor([[operator, 0, (operator + 1) % 4]]),
        "radius": torch.tensor([[radius, 1, 2]]),
    }
    parameters = {
        "apply_to_channels": [order[0] - 1, order[2] - 1],
        "operators": [OPERATORS[operator], OPERATORS[(operator + 1) % 4]],
        "strel_size": [radius, 2],
    }
    transform = ApplyRandomBinaryOperatorTransform([0, 1, 2])
    expected = transform._apply_to_image(one_hot(found[0]), **parameters)
    maps = torch.stack([found, found], dim=1)
    _, changed = previous_morphology.apply(torch.zeros(shape), maps.clone(), drawn)
    assert torch.equal(one_hot(changed[0, 1]), expected)
    assert not torch.equal(changed[0, 1], found[0])
    assert torch.equal(changed[0, 0], found[0])


@pytest.mark.parametrize("place", [0.0, 0.4, 0.99])
@pytest.mark.parametrize("other", [0, 1])
def test_previous_component(place: float, other: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its helper package need not be there: it labels with scikit-image."""
    transform_class = import_component_removal(monkeypatch)
    found = (make_smooth((1, 1, 24, 24, 24), width=4)[:, 0] > 5).to(torch.int16) * 2  # many blobs
    found[:, 10:20, 2:22, 2:22] = 3  # more than stays
    transform = transform_class([0, 1, 2], fill_with_other_class_p=other, dont_do_if_covers_more_than_x_percent=0.15)
    chosen = []

    def choose(values: list[int]) -> int:
        chosen.append(len(values))
        return values[int(place * len(values))] if len(chosen) == 1 else other - 1

    monkeypatch.setattr(np.random, "choice", choose)
    monkeypatch.setattr(np.random, "uniform", lambda: 0.5)
    expected = transform._apply_to_image(one_hot(found[0]), apply_to_channels=[1, 2])
    drawn = previous_component.sample(
        previous_component.Config(num_labels=3, largest_part=0.15), (1, 1, 24, 24, 24), torch.Generator()
    ) | {
        "order": torch.tensor([[2, 3, 1]]),
        "applied": torch.tensor([[True, True, False]]),
        "place": torch.tensor([[place] * 3]),
        "other": torch.tensor([[other] * 3]),
    }
    maps = torch.stack([found, found], dim=1)
    _, changed = previous_component.apply(torch.zeros(1, 1, 24, 24, 24), maps.clone(), drawn)
    assert chosen[0] > 3
    assert torch.equal(one_hot(changed[0, 1]), expected)
    assert not torch.equal(changed[0, 1], found[0])


def import_component_removal(monkeypatch: pytest.MonkeyPatch) -> type:
    from skimage.measure import label

    def label_with_component_sizes(mask: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
        components, count = label(mask, return_num=True)
        return components, {index: int((components == index).sum()) for index in range(1, count + 1)}

    for name in ("acvl_utils", "acvl_utils.morphology", "acvl_utils.morphology.morphology_helper"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    helper = sys.modules["acvl_utils.morphology.morphology_helper"]
    monkeypatch.setattr(helper, "label_with_component_sizes", label_with_component_sizes, raising=False)
    module = importlib.import_module("batchgeneratorsv2.transforms.nnunet.remove_connected_components")
    return module.RemoveRandomConnectedComponentFromOneHotEncodingTransform


def test_what_was_found_is_moved_and_becomes_channels_as_in_nnunet() -> None:
    """Spatial augmentation of both maps, then one-hot: by its transforms, and by those here."""
    from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform

    patch_size, angles, factors = (20, 24, 22), (0.3, -0.2, 0.4), (1.2, 1.2, 1.2)
    shape = (1, 2, 28, 32, 30)
    images, reference = make_smooth(shape, width=10) - 1, make_classes(shape)
    found = make_classes(shape).flip(3)
    transform = make_transform(patch_size, angles, factors)
    parameters = transform.get_parameters(image=images[0])
    moved = {
        "image": transform._apply_to_image(images[0].clone(), **parameters),
        "segmentation": transform._apply_to_segmentation(torch.cat([reference, found]), **parameters),
    }
    expected = MoveSegAsOneHotToDataTransform(1, [1, 2, 3]).apply(moved)
    maps = torch.stack([reference, found], dim=1)
    own = make_parameters(patch_size, angles, factors)
    joined, classes = join_previous(*spatial.apply(images.clone(), maps, own))
    channels = SecondStage(torch.nn.Identity(), 3)(joined)
    assert channels.shape == (1, 5, *patch_size)
    assert (channels[0, 2:] == expected["image"][2:]).all(0).float().mean() >= 0.9999
    assert (classes == expected["segmentation"]).float().mean() >= 0.9999
    assert (classes[0] != joined[0, 2]).any()
