"""Cross-entropy of a linear head whose logits never exist in full, nor are computed twice.

The gradient of a cross-entropy is known as soon as its logits are, so it is formed in the forward
pass, chunk by chunk, and what is kept for the backward pass has the size of the head's input. A
head as wide as a LLaMA's would otherwise be the largest activation by far, or, checkpointed, be
computed twice. Source: Hsu et al. 2024, Liger Kernel (arXiv 2410.10989), section 3.2.

Shapes: N rows, M hidden_size, V vocab_size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from puna.model.products import linear, matmul, matmul_into

CHUNK_BYTES = 2**24  # of logits in float32 that exist at a time: what a cache may hold
MOST_CHUNK_BYTES = 3 * 2**24  # of a large vocabulary, so that the head is not read for few rows
ENOUGH_ROWS = 256


def chunk_rows(vocab_size: int) -> int:
    """Rows of logits that are computed together."""
    row = 4 * vocab_size
    return max(16, CHUNK_BYTES // row, min(ENOUGH_ROWS, MOST_CHUNK_BYTES // row))


class SummedCrossEntropy(torch.autograd.Function):
    """The sum over rows of -log softmax(rows @ weight.T + bias)[target], in float32.

    With a z-loss, the sum over rows of z_loss * log(Z)^2 is added to it, where Z is the softmax's
    denominator (Chowdhery et al. 2022, PaLM, arXiv 2204.02311, section 5), and what was added is
    given beside the sum, outside autograd.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        z_loss: float,
    ) -> tuple[Tensor, Tensor]:
        """See the class; rows [N, M], weight [V, M], bias [V], targets [N]; two scalars."""
        wants = ctx.needs_input_grad
        grad_rows = torch.empty_like(rows) if wants[0] else None
        # Chunks are added up in float32 at least: a sum in 8 bits would lose the small ones.
        summing = torch.promote_types(weight.dtype, torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=summing) if wants[1] else None
        grad_bias = None
        if bias is not None and wants[2]:
            grad_bias = torch.zeros_like(bias, dtype=summing)
        total = rows.new_zeros((), dtype=torch.float32)
        added = rows.new_zeros((), dtype=torch.float32)
        size = chunk_rows(weight.shape[0])
        for start in range(0, len(targets), size):
            part, wanted = rows[start : start + size], targets[start : start + size, None]
            logits = linear(part, weight, bias).float()
            found, highest = logits.gather(1, wanted), logits.amax(1, keepdim=True)
            # On CPU in place: one chunk stays in the cache where two would not.
            slope = torch.softmax(logits, 1, out=logits if logits.device.type == "cpu" else None)
            # The highest share is at least 1 / V: its logarithm loses nothing.
            log_z = highest - slope.amax(1, keepdim=True).log()  # [n, 1]
            total += (log_z - found).sum()
            if z_loss:
                added += z_loss * log_z.square().sum()
            if not any(wants[:3]):
                continue
            if z_loss:
                slope.mul_(1 + 2 * z_loss * log_z)
            slope.scatter_add_(1, wanted, slope.new_full(wanted.shape, -1.0))
            slope = slope.to(weight.dtype)
            if grad_rows is not None:
                grad_rows[start : start + size] = matmul(slope, weight)
            if grad_weight is not None:
                matmul_into(grad_weight, slope, part)
            if grad_bias is not None:
                grad_bias += slope.sum(0)
        grads = (grad_rows, grad_weight, grad_bias)
        ctx.save_for_backward(*(None if grad is None else grad.to(weight.dtype) for grad in grads))
        ctx.mark_non_differentiable(added)
        return (total + added if z_loss else total), added

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what the forward pass has formed."""
        parts = [None if part is None else part * grad.to(part.dtype) for part in ctx.saved_tensors]
        return (*parts, None, None)
