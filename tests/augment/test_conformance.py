"""What every augmentation must hold to."""

import pytest
import torch

from autoseg.augment import (
    CASCADE_AUGMENTATIONS,
    Augmentation,
    Parameters,
    available_augmentations,
    load_augmentation,
)
from autoseg.data.labels import OUTSIDE_CLASS
from autoseg.documents import Document

SHAPES = [(4, 2, 12, 14, 14), (3, 1, 1, 16, 16)]
NAMES = [name for name in available_augmentations() if name not in CASCADE_AUGMENTATIONS]
NOT_RANDOM = ("mask",)


def make_batch(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (shape[0], *shape[2:]), generator=generator) * 2  # 0, 2 and 4
    classes[:, :, 2:4] = -1
    classes[:, :, 9:] = OUTSIDE_CLASS
    return torch.randn(shape, generator=generator), classes.to(torch.int16)


def apply(augmentation: Augmentation, shape: tuple[int, ...], parameters: Parameters) -> tuple[torch.Tensor, ...]:
    """Apply to a fresh batch, since it may be changed in place."""
    return augmentation.apply(*make_batch(shape), parameters)


def with_probability(augmentation: Augmentation, probability: float) -> Document:
    fields = augmentation.Config.model_fields
    if "channels" in fields:
        return augmentation.Config(channels=(0,) if probability else ())
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
        new_images, new_classes = apply(augmentation, shape, draw(augmentation, shape, 0.0))
        assert torch.equal(new_images, images)
        assert torch.equal(new_classes, classes)

    def test_probability_1_changes_images_and_keeps_form(
        self, augmentation: Augmentation, shape: tuple[int, ...]
    ) -> None:
        images, classes = make_batch(shape)
        new_images, new_classes = apply(augmentation, shape, draw(augmentation, shape, 1.0))
        assert not torch.equal(new_images, images)
        assert new_images.isfinite().all()
        assert (new_images.shape, new_images.dtype) == (images.shape, images.dtype)
        assert (new_classes.shape, new_classes.dtype) == (classes.shape, classes.dtype)
        assert set(new_classes.unique().tolist()) <= {OUTSIDE_CLASS, -1, 0, 2, 4}

    @pytest.mark.parametrize("probability", [0.5, 1.0])
    def test_batch_equals_single_samples(
        self, augmentation: Augmentation, shape: tuple[int, ...], probability: float
    ) -> None:
        images, classes = make_batch(shape)
        parameters = draw(augmentation, shape, probability, seed=3)
        new_images, new_classes = apply(augmentation, shape, parameters)
        for index in range(shape[0]):
            part = slice(index, index + 1)
            own = {name: values[part] for name, values in parameters.items()}
            image, single_classes = augmentation.apply(images[part].clone(), classes[part].clone(), own)
            torch.testing.assert_close(new_images[part], image, rtol=2e-6, atol=2e-6)
            assert torch.equal(new_classes[part], single_classes)

    def test_generator_decides(self, augmentation: Augmentation, shape: tuple[int, ...]) -> None:
        global_state = torch.get_rng_state()
        seeds = (5, 5, 6, 7, 8)
        first, again, *others = (apply(augmentation, shape, draw(augmentation, shape, 0.7, s))[0] for s in seeds)
        assert torch.equal(first, again)
        assert all(torch.equal(first, other) for other in others) == (name_of(augmentation) in NOT_RANDOM)
        assert torch.equal(torch.get_rng_state(), global_state)

    def test_parameters_are_small_and_batch_first(self, augmentation: Augmentation, shape: tuple[int, ...]) -> None:
        for values in draw(augmentation, shape, 1.0).values():
            assert values.device.type == "cpu"
            assert len(values) == shape[0]
            assert values[0].numel() <= 12 * shape[1]


def name_of(augmentation: Augmentation) -> str:
    return augmentation.__name__.rsplit(".", 1)[-1]  # type: ignore[attr-defined, no-any-return]


def test_config_has_defaults_and_probabilities(augmentation: Augmentation) -> None:
    config = augmentation.Config()
    names = [name for name in augmentation.Config.model_fields if name.startswith("probability")]
    assert names or name_of(augmentation) in NOT_RANDOM
    assert all(0 <= getattr(config, name) <= 1 for name in names)


def test_device_waits_for_nothing(augmentation: Augmentation) -> None:
    """On the meta device whatever needs a value, or a shape that depends on values, is refused."""
    shape = SHAPES[0]
    images, classes = (tensor.to("meta") for tensor in make_batch(shape))
    parameters = draw(augmentation, shape, 0.5, seed=3)
    if "seed" in parameters:
        pytest.skip("the meta device has no generator")
    if "deformed" in parameters:
        parameters["deformed"][:] = False  # likewise
    new_images, new_classes = augmentation.apply(images, classes, parameters)
    assert new_images.shape == images.shape
    assert new_classes.shape == classes.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_what_the_cpu_gives_and_is_never_waited_for(augmentation: Augmentation) -> None:
    shape = SHAPES[0]
    parameters = draw(augmentation, shape, 0.5, seed=3)
    on_device = [tensor.cuda() for tensor in make_batch(shape)]
    augmentation.apply(*(tensor.clone() for tensor in on_device), parameters)  # loads the kernels, which may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, classes = augmentation.apply(*on_device, parameters)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if "seed" in parameters or parameters.get("deformed", torch.tensor(False)).any():
        return  # devices of different kinds draw different noise
    expected = apply(augmentation, shape, parameters)
    torch.testing.assert_close(images.cpu(), expected[0], rtol=1e-4, atol=1e-4)
    assert (classes.cpu() == expected[1]).float().mean() >= 0.9999


class TestInTheSecondStageOfACascade:
    """The classes are two maps: the reference, and what the previous stage found."""

    def make_maps(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        images, classes = make_batch(shape)
        found = torch.randint(0, 3, (shape[0], *(-(-size // 4) for size in shape[2:])))
        for axis, size in enumerate(shape[2:], start=1):
            found = found.repeat_interleave(4, dim=axis).narrow(axis, 0, size)
        return images, torch.stack([classes, found.to(torch.int16)], dim=1)

    def test_both_maps_go_where_each_would_alone(self, augmentation: Augmentation) -> None:
        images, maps = self.make_maps(SHAPES[0])
        parameters = draw(augmentation, SHAPES[0], 1.0, seed=4)
        new_images, new_maps = augmentation.apply(images.clone(), maps.clone(), parameters)
        for index in (0, 1):
            masked_otherwise = name_of(augmentation) == "mask" and index
            one = augmentation.apply(images.clone(), maps[:, index].clone().contiguous(), parameters)
            assert torch.equal(new_maps[:, index], one[1])
            assert masked_otherwise or torch.equal(new_images, one[0])

    @pytest.mark.parametrize("name", CASCADE_AUGMENTATIONS)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_its_own_augmentations_change_what_was_found_and_nothing_else(
        self, name: str, shape: tuple[int, ...]
    ) -> None:
        own = load_augmentation(name)
        images, maps = self.make_maps(shape)
        more = {"largest_part": 1.0} if name == "previous_component" else {}
        config = own.Config(num_labels=2, probability=1.0, probability_label=1.0, **more)
        parameters = own.sample(config, shape, torch.Generator().manual_seed(2))
        new_images, new_maps = own.apply(images.clone(), maps.clone(), parameters)
        assert torch.equal(new_images, images) and torch.equal(new_maps[:, 0], maps[:, 0])
        assert all((new_maps[i, 1] != maps[i, 1]).any() for i in range(shape[0]))
        assert set(new_maps[:, 1].unique().tolist()) <= {0, 1, 2}
        for index in range(shape[0]):
            part = slice(index, index + 1)
            single = {key: values[part] for key, values in parameters.items()}
            assert torch.equal(own.apply(images[part].clone(), maps[part].clone(), single)[1], new_maps[part])
        unchanged = own.apply(images.clone(), maps[:, 1].clone(), parameters)
        assert torch.equal(unchanged[1], maps[:, 1])
        none = own.sample(own.Config(num_labels=2, probability=0.0), shape, torch.Generator().manual_seed(2))
        assert torch.equal(own.apply(images.clone(), maps.clone(), none)[1], maps)

    def test_the_borders_change_without_waiting_for_the_device(self) -> None:
        own = load_augmentation("previous_morphology")
        config = own.Config(num_labels=2, probability=1.0, probability_label=1.0)
        parameters = own.sample(config, SHAPES[0], torch.Generator().manual_seed(2))
        images, maps = (part.to("meta") for part in self.make_maps(SHAPES[0]))
        assert own.apply(images, maps, parameters)[1].shape == maps.shape
