"""Root-mean-square normalisation that keeps for its backward pass what it was given, and no more.

On CPUs torch composes `rms_norm` of small operations, and autograd keeps the normalised values
beside the input; one function of its own takes fewer passes, and forms them again.

Shapes: M the size that is normalised.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.Module):
    """Root-mean-square normalisation (Zhang & Sennrich 2019), computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., M]; in float32 on a CPU it can be differentiated once."""
        weight = self.weight
        if not _composed(x, weight):
            return F.rms_norm(x, (x.shape[-1],), weight, self.eps)
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            out: Tensor = _RMSNorm.apply(x, weight, self.eps)  # type: ignore[no-untyped-call]
            return out
        return _normalised(x, weight, self.eps)[0]


def _composed(x: Tensor, weight: Tensor) -> bool:
    """Whether torch would compose the norm of small operations, and keep their results."""
    return (
        x.device.type == "cpu"
        and x.dtype is weight.dtype is torch.float32
        and not torch.compiler.is_compiling()
    )


def _normalised(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The result, and what each row was scaled by, [..., 1]."""
    mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    scale = mean.add_(eps).rsqrt_()
    return (x * scale).mul_(weight), scale


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, scale = _normalised(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        unit = x * scale
        slope = grad * unit
        grad_weight = slope.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        along = (slope.view(-1, x.shape[-1]) @ weight).view(scale.shape).div_(x.shape[-1])
        grad_x = torch.addcmul(grad * weight, unit, along, value=-1).mul_(scale)
        return grad_x, grad_weight, None
