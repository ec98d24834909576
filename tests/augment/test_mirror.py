"""An axis whose sides must be told apart is never mirrored."""

import pytest
import torch

from autoseg.augment import mirror, rot90
from autoseg.plan.augmentation import Setting, make_recipe


@pytest.mark.parametrize("axes", [(), (1,), (0, 2)])
def test_only_allowed_axes_are_mirrored(axes: tuple[int, ...]) -> None:
    config = mirror.Config(axes=axes, probability=1.0)
    drawn = mirror.sample(config, (50, 1, 4, 4, 4), torch.Generator().manual_seed(0))["mirrored"]
    assert drawn.any(0).tolist() == [axis in axes for axis in range(3)]


@pytest.mark.parametrize("axes", [(), (2,), (0, 1)])
def test_the_image_stands_as_it_was_along_the_others(axes: tuple[int, ...]) -> None:
    ramps = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 3, indexing="ij")).expand(8, 3, 4, 4, 4)
    config = mirror.Config(axes=axes, probability=1.0)
    parameters = mirror.sample(config, tuple(ramps.shape), torch.Generator().manual_seed(1))
    images, _ = mirror.apply(ramps.clone(), torch.zeros(8, 4, 4, 4, dtype=torch.int16), parameters)
    expected = ramps.flip([axis + 2 for axis in axes]) if axes else ramps
    assert torch.equal(images, expected)


@pytest.mark.parametrize("axes", [(0, 1), (1, 2)])
def test_only_allowed_axes_are_turned_into_each_other(axes: tuple[int, ...]) -> None:
    distance = torch.arange(4.0).view([4 if axis not in axes else 1 for axis in range(3)]).expand(8, 1, 4, 4, 4)
    config = rot90.Config(axes=axes, probability=1.0)
    parameters = rot90.sample(config, tuple(distance.shape), torch.Generator().manual_seed(2))
    images, _ = rot90.apply(distance.clone(), torch.zeros(8, 4, 4, 4, dtype=torch.int16), parameters)
    assert torch.equal(images, distance)


def test_no_recipe_mirrors_the_axis_of_the_sides() -> None:
    by_name = {entry["name"]: entry for entry in make_recipe("da5", Setting((32, 32, 32), side_axis=2))}
    assert by_name["mirror"]["axes"] == by_name["rot90"]["axes"] == [0, 1]
