"""The other peer: a plain loop in the manner of nanoGPT and litgpt, written for the bench only.

What torch offers, used as it is meant to be: `nn.Linear`, `F.rms_norm`, scaled dot-product
attention, `F.cross_entropy` on whole logits, and torch's fused AdamW.

Shapes: B rows, T tokens, M hidden_size, V vocabulary, D scalars of a head.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.pretraining_spec import Spec, Steps


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        width, self.size = shape["hidden_size"], shape["head_dim"]
        queries = shape["num_attention_heads"] * self.size
        keys = shape["num_key_value_heads"] * self.size
        self.grouped = queries != keys
        self.q_proj = nn.Linear(width, queries, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, keys, bias=False)
        self.o_proj = nn.Linear(queries, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        shape = (*x.shape[:2], -1, self.size)
        q, k, v = (
            project(x).view(shape).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        width, inner = shape["hidden_size"], shape["intermediate_size"]
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        width, eps = shape["hidden_size"], shape["rms_norm_eps"]
        self.input_layernorm = nn.RMSNorm(width, eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(width, eps)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Everything but the head, so that names are those of the weights."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape["vocab_size"], shape["hidden_size"])
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape["num_hidden_layers"]))
        self.norm = nn.RMSNorm(shape["hidden_size"], shape["rms_norm_eps"])


class Plain(nn.Module):
    """A LLaMA without any embellishment; its head is a matrix of its own."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.model = Trunk(shape)
        self.lm_head = nn.Linear(shape["hidden_size"], shape["vocab_size"], bias=False)
        size, most = shape["head_dim"], shape["max_position_embeddings"]
        rates = 1.0 / shape["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
        angles = torch.outer(torch.arange(most).float(), rates).repeat(1, 2)  # [T, D]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy of [B, T] tokens."""
        cos, sin = (table[: ids.shape[1]] for table in (self.cos, self.sin))
        x = self.model.embed_tokens(ids)
        for block in self.model.layers:
            x = block(x, cos, sin)
        logits = self.lm_head(self.model.norm(x))  # [B, T, V]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def optimizer_of(model: nn.Module, spec: Spec) -> torch.optim.Optimizer:
    """As nanoGPT: matrices decay, norms do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (spec.beta1, spec.beta2)
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=betas, eps=1e-8, fused=True)


def main() -> None:
    spec, steps = Spec.read(sys.argv[1]), Steps()
    torch.set_num_threads(2)
    model = Plain(spec.shape())
    model.load_state_dict(spec.weights())
    optimizer, losses = optimizer_of(model, spec), []
    batches = spec.batches()
    steps.begin()
    for step in range(spec.steps):
        for group in optimizer.param_groups:
            group["lr"] = spec.rate(step)
        total = torch.zeros(())
        for _ in range(spec.micro_batches):
            loss = model(*next(batches)) / spec.micro_batches
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(total))
        steps.end()
    print(json.dumps(steps.told(spec, statistics.fmean(losses), model.state_dict())))


if __name__ == "__main__":
    main()
