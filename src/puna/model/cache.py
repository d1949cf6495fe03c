"""The key/value cache: what attention has already seen, so that a token is computed once.

Shapes: B batch, K key/value heads, T new tokens, S slots, D head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.errors import InputError
from puna.model.config import LlamaConfig


class KVCache(Protocol):
    """What the blocks ask of a cache. Slot = position: a key at position p lies in slot p."""

    lengths: list[int]
    """Tokens held per sequence, on the host, so that no decision waits for a device."""

    def append(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [B, K, T, D] at `positions` ([T] or [B, T]); return all so far.

        The returned views [B, K, S, D] hold every slot up to the highest position now written;
        what a sequence may see of them is for attention to say.
        """
        ...

    def advance(self, tokens: Sequence[int]) -> None:
        """Count `tokens[b]` new tokens of sequence b as held, after all blocks have appended."""
        ...


class ContiguousCache:
    """A preallocated cache [layers, B, K, S, D]: simple, and fast for a steady batch.

    Sequences of different lengths are padded on the right: what padding writes lies beyond a
    sequence's length, is never attended to, and is overwritten by the tokens that follow.
    """

    def __init__(
        self,
        config: LlamaConfig,
        *,
        batch: int,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (batch, config.num_key_value_heads, max_tokens, config.head_dim)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.lengths = [0] * batch
        self.max_tokens = max_tokens

    @property
    def nbytes(self) -> int:
        """Bytes that the cache holds."""
        return 2 * sum(k.nbytes for k in self.keys)

    def append(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [B, K, T, D]; return views [B, K, S, D] of all so far."""
        keys, values = self.keys[layer], self.values[layer]
        stop = self.check_room(k.shape[2])
        if positions.dim() == 1:  # all sequences write the same slots
            start = self.lengths[0]
            keys[:, :, start:stop] = k
            values[:, :, start:stop] = v
        else:
            rows = torch.arange(k.shape[0], device=k.device)[:, None]
            keys[rows, :, positions] = k.transpose(1, 2)
            values[rows, :, positions] = v.transpose(1, 2)
        return keys[:, :, :stop], values[:, :, :stop]

    def check_room(self, tokens: int) -> int:
        """One past the highest slot that `tokens` new tokens per sequence will take.

        Raises:
            InputError: The cache has no such slot.
        """
        stop = max(self.lengths) + tokens
        if stop > self.max_tokens:
            raise InputError(
                f"the cache holds {self.max_tokens} tokens; {stop} are needed",
                fix="ask for fewer tokens, or make the cache larger",
            )
        return stop

    def advance(self, tokens: Sequence[int]) -> None:
        """Count `tokens[b]` new tokens of sequence b as held."""
        self.lengths = [held + new for held, new in zip(self.lengths, tokens, strict=True)]

    def row(self, row: int) -> ContiguousCache:
        """A cache of one sequence that shares this one's memory; its lengths are its own."""
        part = object.__new__(ContiguousCache)
        part.keys = [k[row : row + 1] for k in self.keys]
        part.values = [v[row : row + 1] for v in self.values]
        part.lengths = [self.lengths[row]]
        part.max_tokens = self.max_tokens
        return part

    def grow(self, max_tokens: int) -> None:
        """Make room for `max_tokens` slots per sequence, keeping what is held."""
        extra = max_tokens - self.max_tokens
        if extra > 0:
            self.keys = [F.pad(k, (0, 0, 0, extra)) for k in self.keys]
            self.values = [F.pad(v, (0, 0, 0, extra)) for v in self.values]
            self.max_tokens = max_tokens

    def rewind(self, lengths: Sequence[int]) -> None:
        """Forget all but the first `lengths[b]` tokens of sequence b."""
        if any(new > held for new, held in zip(lengths, self.lengths, strict=True)):
            raise InputError(f"cannot rewind a cache of {self.lengths} tokens to {list(lengths)}")
        self.lengths = list(lengths)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these sequences of the batch, in this order."""
        index = torch.tensor(rows, device=self.keys[0].device)
        self.keys = [k.index_select(0, index) for k in self.keys]
        self.values = [v.index_select(0, index) for v in self.values]
        self.lengths = [self.lengths[row] for row in rows]
