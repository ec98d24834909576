"""The topology rule against nnU-Net's published examples and its own invariants."""

import pytest

from autoseg.documents import parse_document, to_text
from autoseg.errors import DocumentError
from autoseg.networks._topology import (
    UNetConfig,
    derive_topology,
    derive_unet,
    divisor_of,
    features_of,
    pad_to_multiple,
)


def test_isotropic_topology_halves_every_axis() -> None:
    topology = derive_topology((1.0, 1.0, 1.0), (128, 128, 128))
    assert topology.strides == ((1, 1, 1), *[(2, 2, 2)] * 5)
    assert set(topology.kernel_sizes) == {(3, 3, 3)}
    assert topology.patch_size == (128, 128, 128)


def test_anisotropic_topology_is_nnunets_for_prostate() -> None:
    topology = derive_topology((3.6, 0.625, 0.625), (20, 320, 256))
    assert topology.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert topology.kernel_sizes == ((1, 3, 3), (1, 3, 3), *[(3, 3, 3)] * 5)


def test_patch_is_padded_to_the_divisor() -> None:
    topology = derive_topology((1.0, 1.0, 1.0), (36, 50, 35))
    assert topology.patch_size == (40, 56, 40)
    assert divisor_of(topology.strides) == (8, 8, 8)


def test_two_dimensions_and_most_stages() -> None:
    topology = derive_topology((1.0, 1.0), (56, 40))
    assert topology.strides == ((1, 1), (2, 2), (2, 2), (2, 2))
    assert len(derive_topology((1.0, 1.0), (56, 40), max_stages=2).strides) == 2


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 3.0, 0.5)])
@pytest.mark.parametrize("patch_size", [(32, 32, 32), (5, 200, 64), (96, 160, 160), (3, 9, 11)])
def test_coarsest_stage_keeps_its_edge(spacing: tuple[float, ...], patch_size: tuple[int, ...]) -> None:
    topology = derive_topology(spacing, patch_size)
    divisor = divisor_of(topology.strides)
    for size, padded, factor in zip(patch_size, topology.patch_size, divisor):
        assert padded % factor == 0 and padded - size < factor
        assert factor == 1 or padded // factor >= 4
    assert derive_topology(spacing, topology.patch_size).strides == topology.strides


def test_features_double_up_to_the_limit() -> None:
    assert features_of(6, 3) == (32, 64, 128, 256, 320, 320)
    assert features_of(6, 2) == (32, 64, 128, 256, 512, 512)


def test_pad_to_multiple_never_returns_zero() -> None:
    assert pad_to_multiple((0, 16, 17), (16, 16, 16)) == (16, 16, 32)


def test_a_patch_too_small_to_halve_still_gives_a_network() -> None:
    config = derive_unet((1.0, 1.0, 1.0), (4, 4, 4), blocks_encoder=2, blocks_decoder=2)
    assert config.strides == ((1, 1, 1), (1, 1, 1))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("features_per_stage", [32], "features_per_stage: 1 entries"),
        ("kernel_sizes", [[2, 3, 3], [3, 3, 3]], "odd"),
        ("strides", [[2, 2, 2], [2, 2, 2]], "stage 0"),
        ("strides", [[1, 1, 1], [2, 2]], "every entry"),
        ("blocks_per_stage_encoder", [1, 0], "at least 1"),
        ("strides", [[1, 1, 1]], "at least 2 stages"),
    ],
)
def test_impossible_configurations_are_refused(field: str, value: object, message: str) -> None:
    import json

    config = derive_unet((1.0, 1.0, 1.0), (8, 8, 8), blocks_encoder=2, blocks_decoder=2)
    content = {**json.loads(to_text(config)), field: value}
    with pytest.raises(DocumentError, match=message):
        parse_document(json.dumps(content), UNetConfig, where="plan")
