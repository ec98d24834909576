"""Augmentations in a row, as a plan lists them."""

import pytest
import torch

from autoseg.augment import available_augmentations, gamma, mirror, spatial
from autoseg.augment._pipeline import Pipeline
from autoseg.data.labels import OUTSIDE_CLASS
from autoseg.errors import DocumentError, PlanError

PATCH = (16, 20, 18)


def make_pipeline(*names: str) -> Pipeline:
    return Pipeline([(name, {}) for name in names])


def test_all_augmentations_give_the_patch() -> None:
    pipeline = make_pipeline("spatial", *(name for name in available_augmentations() if name != "spatial"))
    for seed in range(6):
        parameters = pipeline.sample((3, 2, *PATCH), torch.Generator().manual_seed(seed))
        source = pipeline.source_shape(parameters, PATCH)
        images, classes = torch.randn(3, 2, *source), torch.randint(0, 3, (3, *source)).short()
        new_images, new_classes = pipeline.apply(images, classes, parameters, PATCH)
        assert new_images.shape == (3, 2, *PATCH)
        assert new_classes.shape == (3, *PATCH)
        assert new_images.is_contiguous() and new_images.isfinite().all()
        assert new_classes.dtype == torch.int16


def test_equals_its_steps_by_hand() -> None:
    pipeline = Pipeline([("spatial", {"probability_rotation": 1.0}), ("gamma", {"probability": 1.0}), ("mirror", {})])
    generator = torch.Generator().manual_seed(0)
    parameters = pipeline.sample((2, 1, *PATCH), generator)
    source = pipeline.source_shape(parameters, PATCH)
    images = torch.randn(2, 1, *source)
    batch = images, (images[:, 0] > 0).short()
    found = pipeline.apply(*(part.clone() for part in batch), parameters, PATCH)
    for module, drawn in zip((spatial, gamma, mirror), parameters):
        batch = module.apply(*batch, drawn)
    assert torch.equal(found[0], batch[0])
    assert torch.equal(found[1], batch[1].clamp_min(0))  # outside has become background


@pytest.mark.parametrize("names", [(), ("mirror",)])
def test_crops_the_middle_itself_without_spatial(names: tuple[str, ...]) -> None:
    pipeline = Pipeline([(name, {"probability": 0.0}) for name in names])
    parameters = pipeline.sample((2, 1, *PATCH), torch.Generator())
    assert pipeline.source_shape(parameters, PATCH) == PATCH
    images = torch.randn(2, 1, *(size + 4 for size in PATCH))
    new_images, new_classes = pipeline.apply(images, images[:, 0].short(), parameters, PATCH)
    assert torch.equal(new_images, images[..., 2:-2, 2:-2, 2:-2])
    assert new_classes.shape == (2, *PATCH)


def test_mirroring_is_done_in_the_same_interpolation() -> None:
    """Mirrored there or afterwards: the same up to the rounding of positions."""
    spatial_step = ("spatial", {"probability_rotation": 0.6, "probability_scaling": 0.3, "probability_elastic": 0.3})
    pipeline = Pipeline([spatial_step, ("gamma", {"probability": 1.0}), ("mirror", {})])
    parameters = pipeline.sample((8, 1, *PATCH), torch.Generator().manual_seed(1))
    folded, mirrored = parameters[0], parameters[0]["mirrored"]
    assert mirrored.any(1).sum() > 2 and not parameters[2]["mirrored"].any()
    assert (folded["applied"] & mirrored.any(1)).any() and (~folded["applied"] & mirrored.any(1)).any()
    unfolded = (folded | {"mirrored": torch.zeros_like(mirrored)}, parameters[1], {"mirrored": mirrored})
    source = pipeline.source_shape(parameters, PATCH)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((8, 1, 4, 4, 4), generator=generator)
    images = torch.nn.functional.interpolate(coarse, source, mode="trilinear")
    classes = (images[:, 0] > 0).short()
    found = pipeline.apply(images.clone(), classes.clone(), parameters, PATCH)
    expected = pipeline.apply(images.clone(), classes.clone(), unfolded, PATCH)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-4)
    assert (found[1] == expected[1]).float().mean() > 0.999


def test_mirroring_stays_behind_what_minds_the_orientation() -> None:
    pipeline = make_pipeline("spatial", "rot90", "mirror")
    parameters = pipeline.sample((8, 1, 16, 16, 16), torch.Generator().manual_seed(1))
    assert parameters[2]["mirrored"].any() and not parameters[0]["mirrored"].any()


def test_outside_a_mask_images_are_0_and_classes_background() -> None:
    components = [("spatial", {"probability_rotation": 1.0}), ("brightness_gradient", {"probability": 1.0})]
    pipeline = Pipeline([*components, ("mirror", {}), ("mask", {"channels": [1]})])
    parameters = pipeline.sample((2, 2, *PATCH), torch.Generator().manual_seed(0))
    source = pipeline.source_shape(parameters, PATCH)
    images, classes = torch.ones(2, 2, *source), torch.zeros((2, *source), dtype=torch.int16)
    classes[:, : source[0] // 2] = OUTSIDE_CLASS
    found_images, found_classes = pipeline.apply(images, classes, parameters, PATCH)
    assert not found_classes.any()
    zeros = (found_images == 0).float().mean((0, 2, 3, 4))
    assert zeros[0] < 0.1 and 0.4 < zeros[1] < 0.7


def test_same_augmentation_twice_draws_twice() -> None:
    pipeline = Pipeline([("gamma", {"invert": True}), ("gamma", {"invert": False})])
    first, second = pipeline.sample((64, 1, *PATCH), torch.Generator().manual_seed(0))
    assert not torch.equal(first["gamma"], second["gamma"])
    assert set(first["sign"].tolist()) == {-1.0}
    assert set(second["sign"].tolist()) == {1.0}


def test_mistakes_are_told() -> None:
    with pytest.raises(PlanError, match="did you mean 'mirror'"):
        make_pipeline("miror")
    with pytest.raises(DocumentError, match=r"training\.augmentation\.1 \(gamma\): .*did you mean 'probability'"):
        Pipeline([("mirror", {}), ("gamma", {"probabilty": 0.1})])
    with pytest.raises(DocumentError, match="low <= high"):
        Pipeline([("gaussian_noise", {"sigma": [0.2, 0.1]})])
    with pytest.raises(DocumentError, match="axes are different ones"):
        Pipeline([("mirror", {"axes": [3]})])
    with pytest.raises(PlanError, match="keep one of them"):
        make_pipeline("spatial", "spatial")


def test_an_empty_pipeline_leaves_patches_as_they_are() -> None:
    pipeline = Pipeline([])
    parameters = pipeline.sample((2, 1, *PATCH), torch.Generator())
    assert pipeline.source_sizes(parameters, (2, 1, *PATCH)) == [PATCH] * 2
    assert pipeline.source_shape(parameters, PATCH) == PATCH
    images = torch.randn(2, 1, *PATCH)
    found, _ = pipeline.apply(images.clone(), images[:, 0].short(), parameters, PATCH)
    assert torch.equal(found, images)
