"""The network as a step calls it: compiled, and with the gradients of several processes brought together."""

import torch
from torch import nn

from autoseg.train.ahead import kept_buffers
from autoseg.train.compilation import Compile, compile_network
from autoseg.train.setup import Setup
from autoseg.train.state import TrainState, seeded_epoch
from autoseg.train.step import compute_logits


def wrap_network(state: TrainState, setup: Setup, wanted: Compile) -> str:
    """Set ``state.wrapped`` as the device and the processes want it, and return a sentence about it.

    It is tried on a batch of zeros; weights, buffers and generators are as before.
    """
    images, classes = _make_zeros(setup)
    seed = setup.plan.training.seed
    with kept_buffers(state.network), seeded_epoch(seed, 0, setup.device):
        unreached = _find_unreached(state.network, setup, images, classes) if setup.share else []
        state.wrapped, sentence = compile_network(state.network, images, setup.precision, wanted)
    if setup.share is None:
        return sentence
    state.wrapped = setup.processes.join_gradients(state.wrapped, unreached)
    norms = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in state.network.modules())
    own = "; batch norm sees each process's own samples only" if norms else ""
    batch = setup.plan.training.batch_size
    return f"{sentence}, {setup.processes.count} processes that share the batch of {batch}{own}"


def _make_zeros(setup: Setup) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (B, C, Z, Y, X) and classes (B, Z, Y, X) as this process gets them, in a cascade with its map."""
    plan = setup.plan
    size = plan.training.batch_size if setup.share is None else len(setup.share.own)
    channels = len(plan.dataset.channels) + (plan.previous_stage is not None)
    shape = plan.training.patch_shape
    images = torch.zeros((size, channels, *shape), device=setup.device)
    classes = torch.zeros((size, *shape), dtype=torch.int16, device=setup.device)
    return images.contiguous(memory_format=setup.memory_format), classes


def _find_unreached(
    network: nn.Module, setup: Setup, images: torch.Tensor, classes: torch.Tensor
) -> list[nn.Parameter]:
    """Return the weights that get no gradient, such as those of an output that the loss leaves out."""
    setup.loss(compute_logits(network, images, setup), classes).backward()
    unreached = [weights for weights in network.parameters() if weights.grad is None]
    network.zero_grad(set_to_none=True)
    return unreached
