"""A linear layer that takes oneDNN's kernel where that is the faster one.

On CPUs, torch sends float32 products to MKL, which reaches about half of the memory bandwidth for
the thin matrices of decoding. oneDNN's kernel, which torch carries for its compiler, takes the
same weights as they are. `bench/RESULTS.md` has the figures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`torch.nn.Linear` with the same parameters and results, faster without gradients on CPU."""

    def reset_parameters(self) -> None:
        """Draw fresh weights; nothing to do on the meta device (see `Embedding`)."""
        if not self.weight.is_meta:
            super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        if (
            input.dtype is torch.float32
            and input.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and torch._C._has_mkldnn
        ):
            out: Tensor = torch.ops.mkldnn._linear_pointwise(
                input, self.weight, self.bias, "none", [], ""
            )
            return out
        return F.linear(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """`torch.nn.Embedding` whose construction on the meta device is free.

    Drawing random numbers that nobody will see makes torch import its compiler's symbolic algebra:
    half a second and 75 MB that loading a checkpoint does not need.
    """

    def reset_parameters(self) -> None:
        """Draw fresh weights; nothing to do on the meta device."""
        if not self.weight.is_meta:
            super().reset_parameters()
