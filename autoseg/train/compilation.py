"""torch.compile, where it helps and works."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import nn

from autoseg.train.device import DTYPES, Precision

Compile = Literal["auto", "on", "off"]
"""``auto`` compiles on CUDA devices only: on a CPU oneDNN's convolutions leave little to gain."""


def compile_network(
    network: nn.Module, images: torch.Tensor, precision: Precision, wanted: Compile
) -> tuple[nn.Module, str]:
    """Return the network compiled, or as it is, and a sentence about it.

    The compiled one shares the weights of ``network``, whose names stay as they are. It is tried on ``images``
    (B, C, Z, Y, X), forward and backward, since only then is anything compiled; whatever fails but memory is no reason
    to end a training. No gradient remains.
    """
    if wanted == "off":
        return network, "not compiled, as asked for"
    if wanted == "auto" and images.device.type != "cuda":
        return network, "not compiled"
    compiled = cast(nn.Module, torch.compile(network, dynamic=False))
    try:
        with _quiet(), torch.autocast(images.device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            sum(stage.float().sum() for stage in compiled(images)).backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers fail in many ways
        torch.compiler.reset()
        return network, f"not compiled, since torch.compile failed ({_first_line(error)})"
    finally:
        network.zero_grad(set_to_none=True)
    return compiled, "compiled"


@contextmanager
def _quiet() -> Iterator[None]:
    """Let a failure be an exception, even where the caller's settings would only warn of it."""
    config: Any = torch._dynamo.config
    with config.patch(suppress_errors=False):
        yield


def _first_line(error: Exception) -> str:
    lines = str(error).split("\n")
    return f"{type(error).__name__}: {' '.join(lines[0].split())[:160]}"
