"""Instance normalisation on the CPU's fast path against torch's own, values and gradients."""

import pytest
import torch
from torch.nn import functional as F

from autoseg.networks._norm import InstanceNorm


@pytest.mark.parametrize("activation", [True, False])
@pytest.mark.parametrize("shape", [(2, 8, 6, 5, 4), (3, 4, 7, 9)])
def test_channels_last_equals_torch(shape: tuple[int, ...], activation: bool) -> None:
    torch.manual_seed(0)
    norm = InstanceNorm(shape[1], activation=activation).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (torch.randn(shape, dtype=torch.float64) * 3 + 2).requires_grad_()
    expected = F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=1e-5)
    expected = F.leaky_relu(expected, 0.01) if activation else expected
    upstream = torch.randn_like(expected)
    inputs = (x, norm.weight, norm.bias)
    wanted = torch.autograd.grad(expected, inputs, upstream)
    memory_format = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    fast = norm(x.contiguous(memory_format=memory_format))
    torch.testing.assert_close(fast, expected)
    assert fast.is_contiguous(memory_format=memory_format)
    for found, right in zip(torch.autograd.grad(fast, inputs, upstream), wanted):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)  # sums go through fp32
    with torch.no_grad():
        torch.testing.assert_close(norm(x.detach().contiguous(memory_format=memory_format)), expected.detach())


def test_bf16_gradient_is_as_close_to_fp32_as_torchs_own() -> None:
    torch.manual_seed(0)
    norm = InstanceNorm(16, activation=True)
    x = torch.randn(2, 16, 12, 12, 12) * 2 + 1
    upstream = torch.randn_like(x)

    def gradient(dtype: torch.dtype, memory_format: torch.memory_format) -> torch.Tensor:
        leaf = x.to(dtype).contiguous(memory_format=memory_format).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            result = norm(leaf)
        assert result.dtype == dtype
        return torch.autograd.grad(result, leaf, upstream.to(dtype))[0].float()

    right = gradient(torch.float32, torch.contiguous_format)
    torchs_error = (gradient(torch.bfloat16, torch.contiguous_format) - right).norm()
    assert (gradient(torch.bfloat16, torch.channels_last_3d) - right).norm() < 1.2 * torchs_error
