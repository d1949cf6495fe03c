"""What each format calls a tensor: one table per format, read both ways.

Hugging Face's names are the house's own. GGUF and Meta also order the rows of the query and key
projections differently: they rotate neighbours (2i, 2i+1), where Hugging Face rotates the halves
(i, i + D/2), so those rows are permuted on the way (`to_pairs`, `to_halves`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

_ROTARY = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


@dataclass(frozen=True)
class NameTable:
    """Modules by Hugging Face name; `.weight` and `.bias` are the same in every format."""

    top: Mapping[str, str]
    block: Mapping[str, str]  # inside block N
    prefix: str  # what stands before N

    def from_hf(self, name: str) -> str:
        """This format's name of a tensor that has a Hugging Face name."""
        module, _, kind = name.rpartition(".")
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
        if match is None:
            return f"{self.top[module]}.{kind}"
        return f"{self.prefix}{match[1]}.{self.block[match[2]]}.{kind}"

    def to_hf(self, name: str) -> str | None:
        """The Hugging Face name of a tensor of this format; None for a name not in the table."""
        module, _, kind = name.rpartition(".")
        match = re.fullmatch(re.escape(self.prefix) + r"(\d{1,6})\.(.+)", module)
        table, key = (self.block, match[2]) if match else (self.top, module)
        found = next((hf for hf, other in table.items() if other == key), None)
        if found is None or kind not in ("weight", "bias"):
            return None
        return f"model.layers.{match[1]}.{found}.{kind}" if match else f"{found}.{kind}"


GGUF = NameTable(
    top={
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
    },
    block={
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    },
    prefix="blk.",
)

META = NameTable(
    top={
        "model.embed_tokens": "tok_embeddings",
        "model.norm": "norm",
        "lm_head": "output",
    },
    block={
        "input_layernorm": "attention_norm",
        "self_attn.q_proj": "attention.wq",
        "self_attn.k_proj": "attention.wk",
        "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
    },
    prefix="layers.",
)


def rotary_heads(name: str, config: Mapping[str, Any]) -> int | None:
    """How many heads a tensor's rows fall into, if they are rotated; else None.

    Args:
        name: A Hugging Face name.
        config: The keys of config.json.
    """
    parts = name.split(".")
    key = _ROTARY.get(parts[-2]) if len(parts) > 1 else None
    return None if key is None else int(config[key])


def to_pairs(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder rows from Hugging Face's halves to the neighbours of Meta and GGUF (a copy).

    Args:
        tensor: [heads * head_dim, ...], the weight or bias of a query or key projection.
        heads: Query heads or key/value heads.
    """
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def to_halves(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder rows from the neighbours of Meta and GGUF to Hugging Face's halves (a copy).

    Args:
        tensor: [heads * head_dim, ...], the weight or bias of a query or key projection.
        heads: Query heads or key/value heads.
    """
    return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
