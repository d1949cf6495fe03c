"""Products with a weight, by oneDNN's kernel where that is the faster one, and gated products.

On CPUs, torch sends float32 products to MKL, which reaches about half of the memory bandwidth for
the thin matrices of decoding, and on AMD's processors less than the arithmetic there is for the
thick ones of training. oneDNN's kernel, which torch carries for its compiler, takes the same
weights as they are, transposed views included. `bench/RESULTS.md` has the figures.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `torch.nn.functional.linear` computes: [..., in] and [out, in] to [..., out].

    Where oneDNN serves, the result can be differentiated once, not twice.
    """
    if not _serves(x):
        return F.linear(x, weight, bias)
    parts = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
        out: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return out
    return _product(x, weight, bias)


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """[N, K] @ [K, M], outside autograd."""
    return _product(x, weight.t()) if _serves(x) else x @ weight


def _serves(x: Tensor) -> bool:
    return (
        x.dtype is torch.float32
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and bool(torch._C._has_mkldnn)
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _Product(torch.autograd.Function):
    """`_product`, differentiable; saves its input only where the weight learns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `linear`."""
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of input, weight and bias, as far as they are wanted."""
        x, weight = ctx.saved_tensors
        wants = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])  # [N, out]
        return (
            _product(grad, weight.t()) if wants[0] else None,
            _product(rows.t(), x.reshape(-1, x.shape[-1]).t()) if wants[1] else None,
            rows.sum(0) if wants[2] else None,
        )


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, elementwise; it can be differentiated once.

    For the backward pass it keeps its two inputs, and not silu(gate) as a third of their size.
    """
    if torch.is_grad_enabled() and (gate.requires_grad or up.requires_grad):
        out: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
        return out
    return F.silu(gate) * up


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        slope: Tensor = torch.ops.aten.silu_backward(grad * up, gate)
        return slope, F.silu(gate).mul_(grad)
