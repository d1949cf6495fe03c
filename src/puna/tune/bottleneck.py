"""Bottleneck adapters: small networks after or beside the sublayers of a block.

Houlsby et al. 2019 (arXiv 1902.00751), Pfeiffer et al. 2020 (arXiv 2005.00052), and the parallel
one of He et al. 2021 (arXiv 2110.04366). The projection up starts at zero, so that the model
starts as its base.

Shapes: B batch, T tokens, M hidden_size, S the width of the bottleneck.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puna.model import KVCache, LlamaModel
from puna.model.lowering import Plan
from puna.model.rope import Rotation
from puna.tune.dense import device_of
from puna.tune.method import AdapterConfig, Method, Place, Wrapper, first_layer


class Bottleneck(nn.Module):
    """M to S to M, with a nonlinearity between; zero at first.

    Args:
        width: M.
        config: Of the method.
        generator: Of the CPU.
        device: Where it goes.
    """

    def __init__(
        self, width: int, config: AdapterConfig, generator: torch.Generator, device: torch.device
    ) -> None:
        super().__init__()
        size, bound = max(1, width // config.reduction), 1 / math.sqrt(width)
        down = torch.empty(size, width).uniform_(-bound, bound, generator=generator)
        self.config = config
        self.down_weight = nn.Parameter(down.to(device))
        self.down_bias = nn.Parameter(torch.zeros(size, device=device))
        self.up_weight = nn.Parameter(torch.zeros(width, size, device=device))
        self.up_bias = nn.Parameter(torch.zeros(width, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """What to add: [..., M] for [..., M]."""
        config, dtype = self.config, x.dtype
        x = F.dropout(x, config.dropout, self.training)
        low = F.linear(x, self.down_weight.to(dtype), self.down_bias.to(dtype))
        low = _activate(low, config.activation)
        return config.scale * F.linear(low, self.up_weight.to(dtype), self.up_bias.to(dtype))


class _Adapted(Wrapper):
    """A sublayer and its bottleneck."""

    def __init__(self, base: nn.Module, adapter: Bottleneck) -> None:
        super().__init__()
        self.base, self.adapter = base, adapter
        self.train(base.training)

    def plus(self, out: Tensor, x: Tensor) -> Tensor:
        """`out` and what the bottleneck makes of `x`."""
        added: Tensor = self.adapter(x)
        return out + added

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The weights and biases of the bottleneck."""
        own = self.adapter
        return {
            "adapter.down.weight": own.down_weight,
            "adapter.down.bias": own.down_bias,
            "adapter.up.weight": own.up_weight,
            "adapter.up.bias": own.up_bias,
        }


class AfterAttention(_Adapted):
    """Attention, and a bottleneck on what it gives."""

    def forward(
        self, x: Tensor, angles: Rotation, plan: Plan, layer: int, cache: KVCache | None
    ) -> Tensor:
        """Map [B, T, M] to [B, T, M]; the arguments are attention's."""
        out: Tensor = self.base(x, angles, plan, layer, cache)
        return self.plus(out, out)


class AfterMLP(_Adapted):
    """An MLP, and a bottleneck on what it gives."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, M] to [B, T, M]."""
        out: Tensor = self.base(x)
        return self.plus(out, out)


class BesideMLP(_Adapted):
    """An MLP, and a bottleneck on what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, M] to [B, T, M]."""
        out: Tensor = self.base(x)
        return self.plus(out, x)


class AdapterMethod(Method):
    """Bottleneck adapters in each block. The nonlinearity is why they cannot be merged."""

    identity_start = True
    mergeable = False
    detachable = True

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config

    def places(self, model: LlamaModel, generator: torch.Generator) -> Iterator[Place]:
        """One or two wrappers for each block."""
        config = self.config
        around_mlp = BesideMLP if config.style == "parallel" else AfterMLP
        kinds: dict[str, type[_Adapted]] = {"mlp": around_mlp}
        if config.style == "houlsby":
            kinds = {"self_attn": AfterAttention, "mlp": around_mlp}
        for level in range(first_layer(model, config.layers), len(model.model.layers)):
            block = model.model.layers[level]
            for key, kind in kinds.items():
                base = block.get_submodule(key)
                width, device = model.config.hidden_size, device_of(base)
                wrapper = kind(base, Bottleneck(width, config, generator, device))
                path, own = f"model.layers.{level}.{key}", wrapper.adapter_parameters()
                yield Place(path, level, block, base, wrapper, own)


def _activate(x: Tensor, name: str) -> Tensor:
    if name == "relu":
        return F.relu(x)
    return F.gelu(x) if name == "gelu" else F.silu(x)
