"""llama2.c's files: the checkpoint of version 0 and the tokenizer export, as tests read them.

Layout: https://github.com/karpathy/llama2.c (export.py, legacy_export; tokenizer.py, export).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from puna.model import LlamaConfig, LlamaModel, build

BOS = 1


def read_config(path: Path) -> LlamaConfig:
    """The seven int32 of the header; a positive vocabulary means a tied head."""
    with path.open("rb") as file:
        dim, hidden, layers, heads, kv_heads, vocab, context = struct.unpack("<7i", file.read(28))
    return LlamaConfig(
        vocab_size=abs(vocab),
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=dim // heads,
        max_position_embeddings=context,
        tie_word_embeddings=vocab > 0,
    )


def read_model(path: Path) -> LlamaModel:
    """The model: matrices of all layers stacked by kind, float32, little-endian."""
    config = read_config(path)
    data = torch.frombuffer(bytearray(path.read_bytes()[28:]), dtype=torch.float32)
    taken = 0

    def take(*shape: int) -> Tensor:
        nonlocal taken
        size = torch.Size(shape).numel()
        taken += size
        return data[taken - size : taken].view(shape)

    layers, width, inner = (
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
    )
    keys = config.num_key_value_heads * config.head_dim
    embedding = take(config.vocab_size, width)
    stacked = {
        "input_layernorm": take(layers, width),
        "self_attn.q_proj": halves(take(layers, width, width), config.num_attention_heads),
        "self_attn.k_proj": halves(take(layers, keys, width), config.num_key_value_heads),
        "self_attn.v_proj": take(layers, keys, width),
        "self_attn.o_proj": take(layers, width, width),
        "post_attention_layernorm": take(layers, width),
        "mlp.gate_proj": take(layers, inner, width),
        "mlp.down_proj": take(layers, width, inner),
        "mlp.up_proj": take(layers, inner, width),
    }
    norm = take(width)
    angles = config.max_position_embeddings * config.head_dim // 2
    take(2, angles)  # the tables of cosines and sines, which are computed instead
    head = [] if config.tie_word_embeddings else [take(config.vocab_size, width)]
    assert taken == len(data), "the file has another layout"

    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield "model.embed_tokens.weight", embedding
        for name, stack in stacked.items():
            for layer in range(layers):
                yield f"model.layers.{layer}.{name}.weight", stack[layer]
        yield "model.norm.weight", norm
        for weight in head:
            yield "lm_head.weight", weight

    return build(config, tensors())


def halves(weight: Tensor, heads: int) -> Tensor:
    """Rows [L, H x D, M] from rotary pairs (2i, 2i + 1) to pairs (i, i + D/2)."""
    layers, rows, width = weight.shape
    pairs = weight.view(layers, heads, rows // heads // 2, 2, width)
    return pairs.transpose(2, 3).reshape(layers, rows, width)


class Tokenizer:
    """Byte-pair merges by score, with a space put before the text."""

    def __init__(self, path: Path, vocab: int) -> None:
        data = path.read_bytes()
        offset, self.pieces, self.scores = 4, [], []  # type: ignore[var-annotated]
        for _ in range(vocab):
            score, length = struct.unpack_from("<fi", data, offset)
            offset += 8 + length
            self.pieces.append(data[offset - length : offset])
            self.scores.append(score)
        assert offset == len(data)

    def encode(self, text: str) -> list[int]:
        """Ids with BOS; merge the best-scored neighbours until none is a piece."""
        ids = [self.pieces.index(char.encode()) for char in f" {text}"]
        while True:
            best = None
            for place, (left, right) in enumerate(pairwise(ids)):
                joined = self.pieces[left] + self.pieces[right]
                if joined in self.pieces:
                    found = self.pieces.index(joined)
                    if best is None or self.scores[found] > best[0]:
                        best = (self.scores[found], place, found)
            if best is None:
                return [BOS, *ids]
            ids[best[1] : best[1] + 2] = [best[2]]

    def decode(self, ids: list[int]) -> str:
        """Text of `ids`, without BOS and the space put before."""
        pieces = b"".join(self.pieces[i] for i in ids if i != BOS)
        return pieces.decode().removeprefix(" ")
