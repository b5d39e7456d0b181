"""Linear layers through oneDNN are PyTorch's, product by product."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wenmai.backbones import linear as linear_module
from wenmai.backbones.linear import linear


def layers(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, nn.Linear]:
    torch.manual_seed(0)
    return torch.randn(37, 24, dtype=dtype, requires_grad=True), nn.Linear(24, 40, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_pytorchs(dtype: torch.dtype) -> None:
    x, layer = layers(dtype)
    out = torch.randn(40, 37, dtype=dtype).T  # gradients may come in any layout
    expected = torch.autograd.grad(layer(x), (x, *layer.parameters()), out)
    found = linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, layer(x), atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(torch.autograd.grad(found, (x, *layer.parameters()), out), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(linear_module._product is None, reason="this PyTorch comes without oneDNN")
def test_fp32_really_goes_through_onednn_and_nothing_else_does() -> None:
    x, layer = layers()
    assert "_Linear" in type(linear(x, layer.weight, layer.bias).grad_fn).__name__
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = linear(x, layer.weight, layer.bias)
    assert half.dtype == torch.bfloat16
    assert linear(x[:0], layer.weight, layer.bias).shape == (0, 40)


def test_what_is_frozen_costs_no_product() -> None:
    x, layer = layers()
    layer.requires_grad_(False)
    linear(x.detach(), layer.weight, layer.bias)
    linear(x, layer.weight, layer.bias).sum().backward()
    assert layer.weight.grad is None and x.grad is not None
