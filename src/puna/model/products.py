"""Products with a weight, by whichever kernel is the faster one on a CPU, and gated products.

On CPUs, torch sends float32 products to MKL, which reaches about half of the memory bandwidth for
the thin matrices of decoding, and with AVX-512 on AMD's processors less than the arithmetic there
is for the thick ones of training. oneDNN's kernel, which torch carries for its compiler, takes the
same weights as they are, transposed views included. With AVX2 MKL is the faster one for thick
matrices. `bench/RESULTS.md` and `docs/LOG.md` have the figures.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

THICK_ROWS = 64  # from here on MKL is faster than oneDNN with AVX2,
WIDE_COLUMNS = 2**14  # but for a head as wide as a vocabulary


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


def matmul_into(total: Tensor, x: Tensor, y: Tensor) -> None:
    """Add [N, K].T @ [N, M] to `total` [K, M], outside autograd.

    By torch's own product: oneDNN's would copy both of its inputs first.
    """
    if total.dtype is x.dtype:
        total.addmm_(x.t(), y)
    else:
        total += x.t() @ y


def _serves(x: Tensor) -> bool:
    return (
        x.dtype is torch.float32
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and bool(torch._C._has_mkldnn)
    )


@functools.cache
def _has_avx2_at_most() -> bool:
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX2")


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    thick = x.numel() >= THICK_ROWS * x.shape[-1] and weight.shape[0] <= WIDE_COLUMNS
    if thick and _has_avx2_at_most():
        return F.linear(x, weight, bias)
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
        grad_x = _product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        return grad_x, *_parameter_grads(grad, x, *ctx.needs_input_grad[1:])


def _parameter_grads(
    grad: Tensor, x: Tensor | None, weight: bool, bias: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Of a linear layer's weight and bias, as far as they are wanted.

    The weight's is torch's own product: oneDNN's would copy both of its inputs first.
    """
    rows = grad.reshape(-1, grad.shape[-1])  # [N, out]
    grad_weight = None
    if weight:
        assert x is not None, "kept where the weight learns"
        grad_weight = rows.t() @ x.reshape(-1, x.shape[-1])
    return grad_weight, rows.sum(0) if bias else None


def linear_of_gated(gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear(swiglu(gate, up), weight, bias)`: [..., in] twice and [out, in] to [..., out].

    Where oneDNN serves, the gated values are not kept but formed again in the backward pass,
    which makes most of the same anyway.
    """
    if not _serves(gate):
        return linear(swiglu(gate, up), weight, bias)
    out: Tensor = _GatedProduct.apply(gate, up, weight, bias)  # type: ignore[no-untyped-call]
    return out


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return _product(F.silu(gate).mul_(up), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        wants = ctx.needs_input_grad
        gated = F.silu(gate)
        parameters = _parameter_grads(grad, gated * up, *wants[2:])
        if not (wants[0] or wants[1]):
            return None, None, *parameters
        slope = _product(grad, weight.t())
        grad_up = gated.mul_(slope)
        return torch.ops.aten.silu_backward(slope.mul_(up), gate), grad_up, *parameters


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
