"""What every tuning method is held to, and the tiny models that it is held to it on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from generate.tiny import VOCAB, reference, twin
from puna.model import LlamaModel
from puna.tune import (
    AdapterConfig,
    DoraConfig,
    FullConfig,
    LoraConfig,
    MethodConfig,
    TopLayersConfig,
    Tuned,
    attach,
)

LAYERS = 3
METHODS: dict[str, MethodConfig] = {
    "full": FullConfig(),
    "top_layers": TopLayersConfig(layers=2),
    "lora": LoraConfig(rank=4),
    "lora_top": LoraConfig(rank=4, layers=1),
    "rslora": LoraConfig(rank=4, rslora=True, targets=("q_proj", "down_proj")),
    "lora_bias": LoraConfig(rank=4, bias=True, targets=("v_proj",)),
    "dora": DoraConfig(rank=4),
    "dora_top": DoraConfig(rank=4, layers=1, targets=("o_proj", "up_proj")),
    "houlsby": AdapterConfig(style="houlsby", reduction=4),
    "pfeiffer": AdapterConfig(style="pfeiffer", reduction=4, layers=2, activation="gelu"),
    "parallel": AdapterConfig(style="parallel", reduction=4, scale=4.0, activation="silu"),
}


def base(seed: int = 0, *, dtype: torch.dtype = torch.float32, **changes: object) -> LlamaModel:
    """A random model of our class, frozen as loading leaves it."""
    changes = {"num_hidden_layers": LAYERS, **changes}
    model = twin(reference(seed, **changes))
    return model if dtype is torch.float32 else model.to(dtype)


def tokens(seed: int = 7, shape: Sequence[int] = (2, 9)) -> Tensor:
    """Random token ids [B, T]."""
    return torch.randint(0, VOCAB, tuple(shape), generator=torch.Generator().manual_seed(seed))


def logits(model: nn.Module) -> Tensor:
    """Logits of a fixed batch, without gradients: [2, 9, V]."""
    with torch.no_grad():
        return model(tokens())


def loss(model: LlamaModel) -> Tensor:
    """The summed cross-entropy of a fixed batch, by the doors that training takes."""
    ids = tokens()
    return model.head_loss(model.run(model.embed(ids[:, :-1])), ids[:, 1:])


def perturb(tuned: Tuned, seed: int = 1, size: float = 0.05) -> None:
    """Move everything that learns away from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuned.parameters().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def perturbed(config: MethodConfig, model: LlamaModel, *, name: str = "default") -> Tuned:
    """A tuning of `model` that has learned something."""
    tuned = attach(model, config, name=name)
    perturb(tuned)
    return tuned


def train(tuned: Tuned, steps: int = 3, learning_rate: float = 1e-2) -> list[float]:
    """The losses of a few steps of AdamW on one batch."""
    optimizer = torch.optim.AdamW(tuned.parameters().values(), lr=learning_rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(tuned.model)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Whether a model has exactly the tensors of a snapshot."""
    after = model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)
