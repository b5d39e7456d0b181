"""Linear layers on a CPU through oneDNN, which PyTorch carries but leaves to others for ordinary fp32 products.

A training step of a small encoder is four fifths matrix products. PyTorch hands them to MKL; oneDNN's kernels are
faster where they were measured (an AMD processor, every batch of a new shape). Same numbers, fp32 throughout.
"""

from __future__ import annotations

import os
from platform import machine
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear as torch_linear

# oneDNN keeps what it prepared for the last 1,024 shapes, which is a gigabyte where each step has a number of tokens of
# its own; a step needs a dozen. Read once, at the first product
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")

# the product that PyTorch's own compiler calls; where a build has none, or on other processors, all goes the usual way
_product = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if machine() in ("x86_64", "AMD64") else None


def linear(x_NK: Tensor, weight_MK: Tensor, bias_M: Tensor) -> Tensor:
    """``x Wᵀ + b``: (N, K) -> (N, M)."""
    single = x_NK.dtype == weight_MK.dtype == torch.float32 and x_NK.device.type == "cpu"
    if _product is None or not single or not len(x_NK) or torch.is_autocast_enabled("cpu"):
        return torch_linear(x_NK, weight_MK, bias_M)
    found: Tensor = _Linear.apply(x_NK, weight_MK, bias_M)  # type: ignore[no-untyped-call]
    return found


def _times(x_NK: Tensor, weight_MK: Tensor, bias_M: Tensor | None) -> Tensor:
    assert _product is not None
    found: Tensor = _product(x_NK, weight_MK, bias_M, "none", [], "")
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NK: Tensor, weight_MK: Tensor, bias_M: Tensor) -> Tensor:
        ctx.save_for_backward(x_NK, weight_MK)
        return _times(x_NK, weight_MK, bias_M)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NM: Tensor) -> tuple[Tensor | None, ...]:
        x_NK, weight_MK = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        grad_NM = grad_NM.contiguous()
        return (
            _times(grad_NM, weight_MK.T, None) if for_x else None,
            grad_NM.T @ x_NK if for_weight else None,
            grad_NM.sum(dim=0) if for_bias else None,
        )
