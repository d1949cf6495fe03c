"""LoRA: a low-rank update beside a frozen linear layer (Hu et al. 2021, arXiv 2106.09685).

Shapes: N rows, R rank, `in` and `out` the features of the layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from puna.model import LlamaModel
from puna.model.products import linear, matmul
from puna.tune.dense import dense_bias, dense_weight, device_of, features, plain_linear
from puna.tune.method import LoraConfig, LowRankConfig, Method, Place, Wrapper
from puna.tune.targets import by_path, check_patterns, find_targets


def lora_delta(out: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """`out + scale * (x a^T) b^T` in the dtype of `x`.

    Args:
        out: [..., out].
        x: [..., in].
        a: The down-projection [R, in], of any floating dtype.
        b: The up-projection [out, R].
        scale: Of the update.
    """
    found: Tensor = _AddLowRank.apply(out, x, a, b, scale)  # type: ignore[no-untyped-call]
    return found


class _AddLowRank(torch.autograd.Function):
    """`lora_delta`, with the products in the order and by the kernels that are fastest on CPU.

    Autograd's own backward pass multiplies tall thin matrices in the order that is slowest for
    them, and scales a tensor of the layer's width where scaling one of the rank's would do.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """See `lora_delta`."""
        a, b = a.to(x.dtype), b.to(x.dtype)
        low = linear(x.reshape(-1, x.shape[-1]), a)  # [N, R]
        ctx.save_for_backward(x, low, a, b)
        ctx.scale = scale
        return torch.addmm(out.reshape(-1, out.shape[-1]), low, b.t(), alpha=scale).view(out.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of `out`, `x` and the two factors."""
        x, low, a, b = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])  # [N, out]
        slope = matmul(rows, b) * ctx.scale  # [N, R]
        return (
            grad,
            (slope @ a).view(x.shape) if ctx.needs_input_grad[1] else None,
            slope.t() @ x.reshape(-1, x.shape[-1]),
            (low.t() @ rows).t() * ctx.scale,
            None,
        )


@dataclass(frozen=True)
class LowRank:
    """The numbers of one update."""

    rank: int
    scale: float
    dropout: float
    bias: bool = False


class LoraLinear(Wrapper):
    """A linear layer and its update; the update is zero at first.

    Args:
        base: The layer; only called, and asked for its sizes.
        numbers: Of the update.
        generator: Of the CPU, for the down-projection.
    """

    def __init__(self, base: nn.Module, numbers: LowRank, generator: torch.Generator) -> None:
        super().__init__()
        ins, outs = features(base)
        device = device_of(base)
        self.base, self.numbers = base, numbers
        bound = 1 / math.sqrt(ins)  # as torch's own linear layers, and so PEFT's
        down = torch.empty(numbers.rank, ins).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(down.to(device))
        self.lora_B = nn.Parameter(torch.zeros(outs, numbers.rank, device=device))
        bias = nn.Parameter(torch.zeros(outs, device=device)) if numbers.bias else None
        self.lora_bias = bias
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        out: Tensor = self.base(x)
        if self.lora_bias is not None:
            out = out + (self.lora_bias * self.numbers.scale).to(out.dtype)
        return lora_delta(out, self.dropped(x), self.lora_A, self.lora_B, self.numbers.scale)

    def dropped(self, x: Tensor) -> Tensor:
        """The input of the update."""
        if not self.training or not self.numbers.dropout:
            return x
        return F.dropout(x, self.numbers.dropout)

    def update(self) -> Tensor:
        """What the weight grows by: [out, in], float32."""
        return self.numbers.scale * (self.lora_B.detach() @ self.lora_A.detach())

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The two factors, and the bias where there is one, by PEFT's names."""
        own = {"lora_A.weight": self.lora_A, "lora_B.weight": self.lora_B}
        return own if self.lora_bias is None else {**own, "lora_B.bias": self.lora_bias}

    def merged(self) -> nn.Module:
        """A plain layer that computes the same, in the dtype of the base."""
        weight, bias = dense_weight(self.base), dense_bias(self.base)
        if self.lora_bias is not None:
            grown = self.lora_bias.detach() * self.numbers.scale
            bias = (grown if bias is None else bias.float() + grown).to(weight.dtype)
        return plain_linear((weight.float() + self.update()).to(weight.dtype), bias)


class LowRankMethod(Method):
    """Finds the targets and wraps each, for LoRA and DoRA."""

    mergeable = True
    detachable = True
    prefix = "base_model.model."

    def __init__(self, config: LowRankConfig) -> None:
        super().__init__()
        self.config = config

    def wrap(self, base: nn.Module, numbers: LowRank, generator: torch.Generator) -> LoraLinear:
        """Wrap one target."""
        return LoraLinear(base, numbers, generator)

    def places(self, model: LlamaModel, generator: torch.Generator) -> Iterator[Place]:
        """One wrapper for each target."""
        config = self.config
        found, self.notes = find_targets(model, config.targets, config.layers)
        check_patterns(config.rank_pattern, found, "rank_pattern")
        check_patterns(config.alpha_pattern, found, "alpha_pattern")
        for path, (level, base) in found.items():
            wrapper = self.wrap(base, low_rank(config, path), generator)
            parent = model.get_submodule(path.rpartition(".")[0])
            own = wrapper.adapter_parameters()
            yield Place(path, level, parent, base, wrapper, own, wrapper.merged)


class LoraMethod(LowRankMethod):
    """LoRA."""

    identity_start = True


def low_rank(config: LowRankConfig, path: str) -> LowRank:
    """The numbers of the update of the layer at `path`."""
    rank = by_path(config.rank_pattern, path, config.rank)
    alpha = by_path(config.alpha_pattern, path, config.alpha)
    scale = alpha / math.sqrt(rank) if config.rslora else alpha / rank
    bias = isinstance(config, LoraConfig) and config.bias
    return LowRank(rank=rank, scale=scale, dropout=config.dropout, bias=bias)
