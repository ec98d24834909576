"""Conformance: what every architecture promises, for each that the package ships."""

import json
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field, TypeAdapter

from autoseg.documents import parse_document, to_text
from autoseg.errors import DocumentError, PlanError
from autoseg.networks import Architecture, available_architectures, dimensions_of, load_architecture
from autoseg.networks._topology import pad_to_multiple
from autoseg.plan.optimization import Optimizer, Schedule
from autoseg.plan.plan import parse_config

ISOTROPIC, ANISOTROPIC = (1.0, 1.0, 1.0), (5.0, 1.0, 1.0)


@pytest.fixture(params=available_architectures())
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return load_architecture(request.param)


def _derive(
    architecture: Architecture, spacing: tuple[float, ...], size: tuple[int, ...]
) -> tuple[Any, tuple[int, ...]]:
    padded = pad_to_multiple(size, architecture.divisor(architecture.derive(spacing, size)))
    config = architecture.derive(spacing, padded)
    if getattr(config, "feature_size", 0) > 12:  # a transformer of full width takes ten times as long
        config = config.model_copy(update={"feature_size": 12})
    return config, padded


def test_every_architecture_of_the_goal_is_there() -> None:
    wanted = {"unet", "nnunet", "nnunet_resenc", "attention_unet", "unetr", "swin_unetr", "segresnet", "mednext"}
    assert wanted <= set(available_architectures())


@pytest.mark.parametrize(("spacing", "size"), [(ISOTROPIC, (32, 32, 64)), (ANISOTROPIC, (12, 32, 48))])
def test_logits_and_gradients(architecture: Architecture, spacing: tuple[float, ...], size: tuple[int, ...]) -> None:
    config, patch_size = _derive(architecture, spacing, size)
    torch.manual_seed(0)
    network = architecture.build(config, 2, 3)
    for weights in network.parameters():  # some start at 0, so that others would get no gradient
        weights.data += 1e-3 * torch.randn_like(weights)
    outputs = network(torch.randn(2, 2, *patch_size))
    assert isinstance(outputs, list)
    assert outputs[0].shape == (2, 3, *patch_size)
    for finer, coarser in zip(outputs, outputs[1:]):
        assert coarser.shape[:2] == (2, 3) and coarser[0, 0].numel() < finer[0, 0].numel()
    sum(output.float().square().mean() for output in outputs).backward()
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert silent == []
    weights = [p for name, p in network.named_parameters() if "bias" not in name]
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().max() > 0 for p in weights)


def test_same_seed_gives_the_same_network_and_logits(architecture: Architecture) -> None:
    config, patch_size = _derive(architecture, ISOTROPIC, (32, 32, 64))
    images = torch.randn(1, 1, *patch_size, generator=torch.Generator().manual_seed(1))
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(architecture.build(config, 1, 2).eval()(images)[0])
    assert torch.equal(*results)


def test_bf16_channels_last_training_agrees_with_fp32(architecture: Architecture) -> None:
    # small, since a CPU without bf16 of its own computes it slowly; the deepest stage must keep more than one voxel
    config, patch_size = _derive(architecture, ISOTROPIC, (16, 16, 32))
    if max(architecture.divisor(config)) == max(patch_size):
        config, patch_size = _derive(architecture, ISOTROPIC, (16, 16, 64))
    torch.manual_seed(0)
    network = architecture.build(config, 1, 2)
    images = torch.randn(1, 1, *patch_size)
    expected = network(images)[0].detach()
    network.to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(images.to(memory_format=torch.channels_last_3d))
    sum(output.float().square().mean() for output in outputs).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert (outputs[0].float() - expected).norm() < 0.1 * expected.norm()


def test_evaluation_takes_one_patch_and_keeps_the_logits(architecture: Architecture) -> None:
    config, patch_size = _derive(architecture, ISOTROPIC, (32, 32, 64))
    network = architecture.build(config, 1, 2).eval()
    images = torch.randn(1, 1, *patch_size)
    with torch.no_grad():
        plain = network(images)[0]
        network.to(memory_format=torch.channels_last_3d)
        fast = network(images.to(memory_format=torch.channels_last_3d))[0]
    torch.testing.assert_close(plain, fast, rtol=1e-3, atol=1e-3)


def test_config_survives_json_and_is_closed(architecture: Architecture) -> None:
    config, _ = _derive(architecture, ANISOTROPIC, (12, 32, 48))
    text = to_text(config)
    assert parse_document(text, architecture.Config, where="config") == config
    content = json.loads(text)
    with pytest.raises(DocumentError, match="unknown field 'feature_sizes'"):
        parse_config(architecture.Config, {**content, "feature_sizes": 1}, "network.config")
    del content[next(iter(content))]
    with pytest.raises(DocumentError, match="missing"):
        parse_config(architecture.Config, content, "network.config")


def test_training_defaults_are_valid_sections(architecture: Architecture) -> None:
    defaults = architecture.TRAINING
    TypeAdapter(Annotated[Optimizer, Field(discriminator="name")]).validate_json(json.dumps(defaults.optimizer))
    TypeAdapter(Annotated[Schedule, Field(discriminator="name")]).validate_json(json.dumps(defaults.schedule))
    assert defaults.source


def test_nnunet_has_nnunets_size() -> None:
    nnunet = load_architecture("nnunet")
    network = nnunet.build(nnunet.derive(ISOTROPIC, (128, 128, 128)), 1, 2)
    assert sum(p.numel() for p in network.parameters()) == 31_195_594


def test_unet_costs_about_what_nnunet_costs() -> None:
    counts = []
    for name in ("unet", "nnunet"):
        module = load_architecture(name)
        network = module.build(module.derive(ISOTROPIC, (64, 64, 64)), 1, 2)
        counts.append(sum(p.numel() for p in network.parameters()))
    assert counts[0] == pytest.approx(counts[1], rel=0.05)


def test_nnunet_feature_map_voxels_equal_those_of_the_real_network() -> None:
    nnunet = load_architecture("nnunet")
    config = nnunet.derive(ANISOTROPIC, (8, 32, 32))
    network = nnunet.build(config, 1, 5)
    counted = 0

    def count(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output.numel()

    convolutions = [m for m in network.modules() if isinstance(m, (torch.nn.Conv3d, torch.nn.ConvTranspose3d))]
    coarse_heads = list(network.heads)[:-1]
    for module in convolutions:
        if not any(module is head for head in coarse_heads):
            module.register_forward_hook(count)
    network(torch.zeros(1, 1, 8, 32, 32))
    assert nnunet.feature_map_voxels(config, (8, 32, 32), 5) == counted


def test_attention_is_interpolated_as_torch_does() -> None:
    from autoseg.networks.attention_unet import _upsample

    x = torch.rand(2, 1, 3, 4, 5)
    expected = torch.nn.functional.interpolate(x, scale_factor=(1, 2, 2), mode="trilinear", align_corners=False)
    torch.testing.assert_close(_upsample(x, (1, 2, 2)), expected)


def test_two_dimensional_networks(architecture: Architecture) -> None:
    if 2 not in dimensions_of(architecture):
        pytest.skip("3-D only")
    config = architecture.derive((1.0, 1.0), (32, 64))
    assert len(architecture.divisor(config)) == 2
    network = architecture.build(config, 1, 2)
    assert network(torch.zeros(2, 1, 32, 64))[0].shape == (2, 2, 32, 64)
    assert architecture.build(config, 1, 2).eval()(torch.zeros(1, 1, 32, 64))[0].shape == (1, 2, 32, 64)


@pytest.mark.parametrize(("stages", "parameters"), [(5, 62_810_412), (6, 102_350_575)])
def test_residual_encoder_has_nnunets_size(stages: int, parameters: int) -> None:
    resenc = load_architecture("nnunet_resenc")
    config = resenc.derive(ISOTROPIC, (4 * 2 ** (stages - 1),) * 3)
    assert config.blocks_per_stage_encoder == (1, 3, 4, 6, 6, 6)[:stages]
    with torch.device("meta"):
        network = resenc.build(config, 1, 3)
    assert sum(p.numel() for p in network.parameters()) == parameters  # nnU-Net's, counted there


def test_residual_encoder_is_that_of_dynamic_network_architectures() -> None:
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    resenc = load_architecture("nnunet_resenc")
    config = resenc.derive(ANISOTROPIC, (8, 32, 32))
    torch.manual_seed(0)
    ours = resenc.build(config, 2, 4)
    theirs = unet.ResidualEncoderUNet(
        2, len(config.strides), config.features_per_stage, torch.nn.Conv3d, config.kernel_sizes, config.strides,
        config.blocks_per_stage_encoder, 4, config.blocks_per_stage_decoder, True, torch.nn.InstanceNorm3d,
        {"eps": 1e-5, "affine": True}, None, None, torch.nn.LeakyReLU, {"inplace": True}, deep_supervision=False,
    )  # fmt: skip
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    counted = theirs.compute_conv_feature_map_size((8, 32, 32))
    assert resenc.feature_map_voxels(config, (8, 32, 32), 4) == counted


def test_segresnet_has_monais_strides() -> None:
    segresnet_ds = pytest.importorskip("monai.networks.nets.segresnet_ds")
    segresnet = load_architecture("segresnet")
    for spacing in (ISOTROPIC, ANISOTROPIC, (2.0, 1.0, 1.0), (0.7, 3.0, 1.5), (1.0, 2.1)):
        config = segresnet.derive(spacing, (128,) * len(spacing))
        stages = len(config.blocks_per_stage_encoder)
        scales = segresnet_ds.scales_for_resolution(spacing, n_stages=stages)
        assert [tuple(int(n) for n in scale) for scale in scales[: stages - 1]] == segresnet.strides_of(spacing, stages)


def test_mednext_is_the_papers_small_one() -> None:
    mednext = load_architecture("mednext")
    network = mednext.build(mednext.derive(ISOTROPIC, (64, 64, 64)), 1, 2)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(5.6e6, rel=0.02)  # table 2 of the paper


def test_unknown_architecture_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(PlanError, match="did you mean 'nnunet'"):
        load_architecture("nnunett")


def test_unetr_refuses_sizes_that_it_cannot_cut_into_tokens() -> None:
    unetr = load_architecture("unetr")
    content = json.loads(to_text(unetr.derive(ISOTROPIC, (16, 16, 16))))
    for change, message in (({"patch_size": [16, 16, 20]}, "multiples of 16"), ({"num_heads": 7}, "7 heads")):
        with pytest.raises(DocumentError, match=message):
            parse_config(unetr.Config, {**content, **change}, "network.config")
