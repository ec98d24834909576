"""The compiled network computes the same under the same names; where nothing can be compiled, training goes on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from autoseg.train.compilation import compile_network

IMAGES = torch.linspace(-1, 1, 2 * 8**3).reshape(2, 1, 8, 8, 8)


class Listed(nn.Module):
    """A convolution that gives a list, as networks do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.part = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return one resolution."""
        return [self.part(images).relu()]


@pytest.mark.parametrize("wanted", ["auto", "off"])
def test_a_cpu_compiles_only_if_asked_to(wanted: str) -> None:
    network = Listed()
    found, sentence = compile_network(network, IMAGES, "fp32", wanted)  # type: ignore[arg-type]
    assert found is network and sentence.startswith("not compiled")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_compiled_network_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network = Listed()
    names = list(network.state_dict())
    compiled, sentence = compile_network(network, IMAGES, "fp32", "on")
    assert sentence == "compiled" and compiled is not network
    assert list(network.state_dict()) == names
    assert all(weights.grad is None for weights in network.parameters())
    compiled(IMAGES)[0].square().sum().backward()
    found = [weights.grad for weights in network.parameters()]
    network.zero_grad(set_to_none=True)
    network(IMAGES)[0].square().sum().backward()
    torch.testing.assert_close(found, [weights.grad for weights in network.parameters()])


def test_without_a_compiler_training_goes_on(tmp_path: Path) -> None:
    """In a process of its own: torch looks for the compiler once."""
    command = [sys.executable, "-c", "from test_compilation import tell; tell()"]
    environment = os.environ | {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=300, check=True)
    assert done.stdout.strip().splitlines()[-1].startswith("True not compiled, since torch.compile failed (")


def tell() -> None:
    """Print whether compiling gives the network as it is, and the sentence."""
    network = Listed()
    found, sentence = compile_network(network, IMAGES, "fp32", "on")
    print(found is network and all(weights.grad is None for weights in network.parameters()), sentence)


def test_too_little_memory_is_no_failure_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(images: torch.Tensor) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda network, **_: run_out)
    with pytest.raises(torch.OutOfMemoryError):
        compile_network(Listed(), IMAGES, "fp32", "on")
