"""The LLaMA (Touvron et al. 2023, arXiv 2302.13971), architecture only.

Parameter names are Hugging Face's, so a checkpoint loads without renaming.

Shapes: B batch, T tokens, M hidden_size, F intermediate_size, V vocab_size, H query heads,
K key/value heads, D head_dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from puna.errors import InputError
from puna.model.attention import AttentionSpec
from puna.model.cache import KVCache
from puna.model.config import LlamaConfig
from puna.model.linear import Embedding, Linear
from puna.model.lowering import Plan, lower
from puna.model.norm import RMSNorm
from puna.model.products import swiglu
from puna.model.rope import Rotation, rope_frequencies, rotate, rotation

HEAD_CHUNK_TOKENS = 256  # of a head that surgery has changed; `puna.model.loss` has its own
IGNORED = -100  # a target that is not trained, as in torch and transformers


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.attention_bias
        self.head_dim = config.head_dim
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(width, queries, bias=bias)
        self.k_proj = Linear(width, keys, bias=bias)
        self.v_proj = Linear(width, keys, bias=bias)
        self.o_proj = Linear(queries, width, bias=bias)

    def forward(
        self, x: Tensor, angles: Rotation, plan: Plan, layer: int, cache: KVCache | None
    ) -> Tensor:
        """Attend [B, T, M] to itself and to what `cache` holds of this layer."""
        shape = (*x.shape[:2], -1, self.head_dim)
        q = rotate(self.q_proj(x).view(shape).transpose(1, 2), angles)  # [B, H, T, D]
        k = rotate(self.k_proj(x).view(shape).transpose(1, 2), angles)  # [B, K, T, D]
        v = self.v_proj(x).view(shape).transpose(1, 2)
        if cache is not None:
            k, v = cache.append(layer, k, v, plan.positions)
        out = plan.attend(q, k, v)
        mixed: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return mixed


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(width, inner, bias=bias)
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, M] to [B, T, M]."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        down: nn.Module = self.down_proj
        if isinstance(down, Linear):
            return down.of_gated(gate, up)
        out: Tensor = down(swiglu(gate, up))  # of a layer that surgery has changed
        return out


class Block(nn.Module):
    """Attention, then SwiGLU, each on a normalised copy of the residual stream."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        # Surgery may put a gated cross-attention here: (hidden, memory) -> what to add to hidden.
        self.cross_attention: nn.Module | None = None

    def forward(
        self,
        x: Tensor,
        angles: Rotation,
        plan: Plan,
        layer: int,
        cache: KVCache | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Map [B, T, M] to [B, T, M]; `memory` [B, S, M] is what cross-attention reads."""
        x = x + self.self_attn(self.input_layernorm(x), angles, plan, layer, cache)
        if self.cross_attention is not None and memory is not None:
            x = x + self.cross_attention(x, memory)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Trunk(nn.Module):
    """Everything but the head; a module of its own for the sake of the parameter names."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class LlamaModel(nn.Module):
    """A LLaMA with four doors: `embed`, `run`, `head` and `head_loss` (or `head_losses`)."""

    DOORS = (
        "embed",
        "run",
        "head",
        "head_loss",
        "head_losses",
    )  # what `puna.scale.shard` registers

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.frequencies = rope_frequencies(config)
        self.model = Trunk(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [B, T] to hidden states [B, T, M]."""
        hidden: Tensor = self.model.embed_tokens(ids)
        return hidden

    def run(
        self,
        hidden: Tensor,
        start: int = 0,
        stop: int | None = None,
        attention: AttentionSpec | None = None,
        cache: KVCache | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Pass hidden states [B, T, M] through the blocks [start, stop).

        Args:
            hidden: The output of `embed`, or of `run` up to `start`.
            start: First block.
            stop: One past the last block; all by default.
            attention: Which tokens see which; causal by default.
            cache: Keys and values so far. `cache.advance` is the caller's, after the last block.
            memory: [B, S, M] for cross-attention, where a block has it.
        """
        stop = len(self.model.layers) if stop is None else stop
        if not 0 <= start <= stop <= len(self.model.layers):
            raise InputError(f"blocks [{start}, {stop}) of {len(self.model.layers)}")
        plan = lower(
            AttentionSpec() if attention is None else attention,
            batch=hidden.shape[0],
            tokens=hidden.shape[1],
            device=hidden.device,
            window_tokens=self.config.window_tokens,
            cache=cache,
        )
        angles = rotation(self.frequencies, plan.positions, hidden.dtype)
        for layer in range(start, stop):
            hidden = self.model.layers[layer](hidden, angles, plan, layer, cache, memory)
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., M] after the last block to logits [..., V]."""
        logits: Tensor = self.lm_head(self.model.norm(hidden))
        return logits

    def head_loss(self, hidden: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
        """The summed cross-entropy in nats of `targets`, in float32; a scalar.

        The logits exist for a few hundred tokens at a time, in the backward pass too.

        Args:
            hidden: [B, T, M] after the last block.
            targets: [B, T]: the token that each position should predict; IGNORED is left out.
            z_loss: Weight of the squared logarithm of each softmax's denominator, which is added
                (Chowdhery et al. 2022, PaLM, arXiv 2204.02311, section 5: 1e-4).
        """
        return self._losses(hidden, targets, z_loss)[0]

    def head_losses(self, hidden: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
        """What `head_loss` gives, and what of it is the z-loss, the latter outside autograd."""
        return self._losses(hidden, targets, z_loss)

    def _losses(self, hidden: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
        kept = targets != IGNORED
        rows, wanted = hidden[kept], targets[kept]  # [N, M], [N]
        if not len(wanted):
            # Zero, and so is every gradient, but none is missing, for which the other ranks of a
            # sharded model would wait.
            nothing: Tensor = self.lm_head(self.model.norm(hidden[:1, :1])).float().sum() * 0
            return nothing, nothing.detach()
        head: nn.Module = self.lm_head
        if isinstance(head, Linear):
            return head.summed_cross_entropy(self.model.norm(rows), wanted, z_loss)
        total = rows.new_zeros((), dtype=torch.float32)
        added = total.clone()
        for start in range(0, len(wanted), HEAD_CHUNK_TOKENS):  # a head that surgery has changed
            part = (rows[start : start + HEAD_CHUNK_TOKENS], wanted[start:][:HEAD_CHUNK_TOKENS])
            if torch.is_grad_enabled():
                losses = checkpoint(self._chunk_losses, *part, z_loss, use_reentrant=False)
            else:
                losses = self._chunk_losses(*part, z_loss)
            assert isinstance(losses, tuple)
            total, added = total + losses[0], added + losses[1]
        return total, added

    def _chunk_losses(
        self, hidden: Tensor, targets: Tensor, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        logits = self.head(hidden).float()
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        if not z_loss:
            return loss, loss.new_zeros(())
        added = z_loss * logits.logsumexp(-1).square().sum()
        return loss + added, added.detach()

    def forward(
        self,
        ids: Tensor,
        attention: AttentionSpec | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Token ids [B, T] to logits [B, T, V]; with a cache, T new tokens of each sequence."""
        hidden = self.run(self.embed(ids), attention=attention, cache=cache)
        if cache is not None:
            tokens = ids.shape[1]
            valid = None if attention is None else attention.valid
            new = [tokens] * len(ids) if valid is None else valid.sum(1).tolist()
            cache.advance(new)
        return self.head(hidden)
