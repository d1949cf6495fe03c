"""DoRA: each weight row's direction by LoRA, its length apart (Liu et al. 2024, arXiv 2402.09353).

As in PEFT, and section 4.3 of the paper, no gradient flows through the length of the updated row.

Shapes: R rank, `in` and `out` the features of the layer.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from puna.tune.dense import dense_bias, dense_weight, plain_linear
from puna.tune.lora import LoraLinear, LowRank, LowRankMethod, lora_delta

ROWS = 1024  # of a weight that are float32 at a time
TINY = 1e-24  # of a squared length


class DoraLinear(LoraLinear):
    """A linear layer whose rows get new directions and lengths; at first their own.

    Args:
        base: The layer; called, and asked for its sizes and its weight.
        numbers: Of the update; it has no bias.
        generator: Of the CPU, for the down-projection.
    """

    def __init__(self, base: nn.Module, numbers: LowRank, generator: torch.Generator) -> None:
        super().__init__(base, numbers, generator)
        assert not numbers.bias
        squares = [part.square().sum(-1) for part in _parts(dense_weight(base))]
        self.register_buffer("base_squares", torch.cat(squares), persistent=False)  # [out]
        self.base_squares: Tensor
        self._kept: tuple[tuple[int, int], Tensor] | None = None
        self.lora_magnitude_vector = nn.Parameter(self.row_norms())

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        out: Tensor = self.base(x)
        bias = dense_bias(self.base)
        if bias is not None:
            out = out - bias
        out = lora_delta(out, self.dropped(x), self.lora_A, self.lora_B, self.numbers.scale)
        out = out * (self.lora_magnitude_vector / self._norms()).to(out.dtype)
        return out if bias is None else out + bias

    def _norms(self) -> Tensor:
        """`row_norms()`, kept while nothing learns: in decoding they cost more than the layer.

        Torch's fused optimizers change a parameter without changing its version, so the version
        alone does not tell; a pass with gradients lies before each of their steps and forgets.
        """
        versions = (self.lora_A._version, self.lora_B._version)
        if torch.is_grad_enabled() or self.training:
            self._kept = None
            return self.row_norms()
        if self._kept is None or self._kept[0] != versions:
            self._kept = (versions, self.row_norms())
        return self._kept[1]

    @torch.no_grad()
    def row_norms(self) -> Tensor:
        """The length of each row of the updated weight: [out], float32; without a gradient.

        |w + s b A|^2 = |w|^2 + 2 s b.(A w) + s^2 b (A A^T) b^T for a row w of the weight and b of
        the up-projection: nothing of the size of the weight is made.
        """
        a, b, scale = self.lora_A, self.lora_B, self.numbers.scale
        parts = _parts(dense_weight(self.base))
        cross = torch.cat([part @ a.t() for part in parts])  # [out, R]
        growth = scale * (b * (2 * cross + scale * (b @ (a @ a.t())))).sum(1)
        # A row of zeros keeps a length that can be divided by, and stays zero.
        return (self.base_squares + growth).clamp_min(TINY).sqrt()

    def train(self, mode: bool = True) -> DoraLinear:
        """Switch dropout, and forget what was kept."""
        self._kept = None
        super().train(mode)
        return self

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The two factors and the lengths, by PEFT's names."""
        own = super().adapter_parameters()
        return {**own, "lora_magnitude_vector": self.lora_magnitude_vector}

    def merged(self) -> nn.Module:
        """A plain layer that computes the same, in the dtype of the base."""
        weight = dense_weight(self.base)
        factor = self.lora_magnitude_vector.detach() / self.row_norms()
        updated = factor[:, None] * (weight.float() + self.update())
        return plain_linear(updated.to(weight.dtype), dense_bias(self.base))


class DoraMethod(LowRankMethod):
    """DoRA."""

    identity_start = True

    def wrap(self, base: nn.Module, numbers: LowRank, generator: torch.Generator) -> LoraLinear:
        """Wrap one target."""
        return DoraLinear(base, numbers, generator)


def _parts(weight: Tensor) -> Iterator[Tensor]:
    """A weight [out, in] in float32, some rows at a time."""
    return (weight[start : start + ROWS].float() for start in range(0, len(weight), ROWS))
