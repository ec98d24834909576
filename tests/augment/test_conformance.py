"""What every augmentation must hold to."""

import pytest
import torch

from autoseg.augment import Augmentation, Parameters, available_augmentations, load_augmentation
from autoseg.documents import Document

SHAPES = [(4, 2, 12, 14, 13), (3, 1, 1, 16, 16)]
NAMES = available_augmentations()


def make_batch(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (shape[0], *shape[2:]), generator=generator) * 2  # 0, 2 and 4
    classes[:, :, 2:4] = -1
    return torch.randn(shape, generator=generator), classes.to(torch.int16)


def with_probability(augmentation: Augmentation, probability: float) -> Document:
    fields = augmentation.Config.model_fields
    return augmentation.Config(**{name: probability for name in fields if name.startswith("probability")})


def draw(augmentation: Augmentation, shape: tuple[int, ...], probability: float, seed: int = 0) -> Parameters:
    generator = torch.Generator().manual_seed(seed)
    return augmentation.sample(with_probability(augmentation, probability), shape, generator)


@pytest.fixture(params=NAMES)
def augmentation(request: pytest.FixtureRequest) -> Augmentation:
    return load_augmentation(request.param)


@pytest.mark.parametrize("shape", SHAPES)
class TestEveryAugmentation:
    def test_probability_0_changes_nothing(self, augmentation: Augmentation, shape: tuple[int, ...]) -> None:
        images, classes = make_batch(shape)
        new_images, new_classes = augmentation.apply(images, classes, draw(augmentation, shape, 0.0))
        assert torch.equal(new_images, images)
        assert torch.equal(new_classes, classes)

    def test_probability_1_changes_images_and_keeps_form(
        self, augmentation: Augmentation, shape: tuple[int, ...]
    ) -> None:
        images, classes = make_batch(shape)
        before = images.clone(), classes.clone()
        new_images, new_classes = augmentation.apply(images, classes, draw(augmentation, shape, 1.0))
        assert not torch.equal(new_images, images)
        assert new_images.isfinite().all()
        assert (new_images.shape, new_images.dtype) == (images.shape, images.dtype)
        assert (new_classes.shape, new_classes.dtype) == (classes.shape, classes.dtype)
        assert set(new_classes.unique().tolist()) <= {-1, 0, 2, 4}
        assert torch.equal(before[0], images), "the input was changed"
        assert torch.equal(before[1], classes), "the input was changed"

    @pytest.mark.parametrize("probability", [0.5, 1.0])
    def test_batch_equals_single_samples(
        self, augmentation: Augmentation, shape: tuple[int, ...], probability: float
    ) -> None:
        images, classes = make_batch(shape)
        parameters = draw(augmentation, shape, probability, seed=3)
        new_images, new_classes = augmentation.apply(images, classes, parameters)
        for index in range(shape[0]):
            part = slice(index, index + 1)
            own = {name: values[part] for name, values in parameters.items()}
            image, single_classes = augmentation.apply(images[part], classes[part], own)
            torch.testing.assert_close(new_images[part], image, rtol=1e-6, atol=1e-6)
            assert torch.equal(new_classes[part], single_classes)

    def test_generator_decides(self, augmentation: Augmentation, shape: tuple[int, ...]) -> None:
        global_state = torch.get_rng_state()
        batch = make_batch(shape)
        first, again, other = (augmentation.apply(*batch, draw(augmentation, shape, 0.7, s))[0] for s in (5, 5, 6))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), global_state)

    def test_parameters_are_small_and_batch_first(self, augmentation: Augmentation, shape: tuple[int, ...]) -> None:
        for values in draw(augmentation, shape, 1.0).values():
            assert values.device.type == "cpu"
            assert len(values) == shape[0]
            assert values[0].numel() <= 9 * shape[1]


def test_config_defaults_are_probabilities(augmentation: Augmentation) -> None:
    config = augmentation.Config()
    names = [name for name in augmentation.Config.model_fields if name.startswith("probability")]
    assert names
    assert all(0 < getattr(config, name) <= 0.5 for name in names)


def test_device_waits_for_nothing(augmentation: Augmentation) -> None:
    """On the meta device whatever needs a value, or a shape that depends on values, is refused."""
    shape = SHAPES[0]
    images, classes = (tensor.to("meta") for tensor in make_batch(shape))
    parameters = draw(augmentation, shape, 0.5, seed=3)
    if "seed" in parameters:
        pytest.skip("the meta device has no generator")
    new_images, new_classes = augmentation.apply(images, classes, parameters)
    assert new_images.shape == images.shape
    assert new_classes.shape == classes.shape
