"""A linear layer and an embedding, as torch has them but for speed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from puna.model.loss import SummedCrossEntropy
from puna.model.products import linear, linear_of_gated, swiglu


class Linear(nn.Linear):
    """`torch.nn.Linear` with the same parameters and results, faster on CPU."""

    def reset_parameters(self) -> None:
        """Draw fresh weights; nothing to do on the meta device (see `Embedding`)."""
        if not self.weight.is_meta:
            super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        return linear(input, self.weight, self.bias)

    def of_gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """Map silu(gate) * up, both [..., in_features], to [..., out_features]."""
        if torch.is_grad_enabled() and self.weight.requires_grad:
            return linear_of_gated(gate, up, self.weight, self.bias)
        out: Tensor = self(swiglu(gate, up))
        return out

    def summed_cross_entropy(
        self, rows: Tensor, targets: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """The summed cross-entropy in nats of `targets` [N] under this layer's logits, float32.

        Args:
            rows: [N, in_features].
            targets: Indices of outputs; none is to be left out.
            z_loss: Weight of the squared logarithm of the softmax's denominator, which is added.

        Returns:
            The sum, and what of it is the z-loss, the latter outside autograd; two scalars.
        """
        parts: list[Tensor | None] = [rows, self.weight, self.bias]
        if not torch.is_grad_enabled():  # the function is not told, and would form gradients
            parts = [None if part is None else part.detach() for part in parts]
        losses: tuple[Tensor, Tensor] = SummedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            *parts, targets, z_loss
        )
        return losses


class Embedding(nn.Embedding):
    """`torch.nn.Embedding` whose construction on the meta device is free.

    Drawing random numbers that nobody will see makes torch import its compiler's symbolic algebra:
    half a second and 75 MB that loading a checkpoint does not need.
    """

    def reset_parameters(self) -> None:
        """Draw fresh weights; nothing to do on the meta device."""
        if not self.weight.is_meta:
            super().reset_parameters()
