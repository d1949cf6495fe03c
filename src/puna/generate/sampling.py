"""From logits to the next token.

The order is that of transformers: penalties, temperature, top-k, top-p, min-p. Every sequence has
a random stream of its own, so what else is in the batch does not change its text.

Shapes: B batch, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from puna.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How text is generated. The defaults are greedy."""

    max_tokens: int = 256
    """New tokens at most."""
    temperature: float = 0.0
    """0 is greedy; 1 is the model's own distribution."""
    top_k: int = 0
    """Keep this many likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that reach this probability together."""
    min_p: float = 0.0
    """Drop tokens below this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """Divides positive logits of tokens seen, prompt included."""
    presence_penalty: float = 0.0
    """Subtracted once from logits of tokens generated."""
    frequency_penalty: float = 0.0
    """Subtracted per occurrence from logits of tokens generated."""
    seed: int = 0
    """Of the random streams; sequence i of a batch draws from (seed, i)."""
    stop: tuple[str, ...] = ()
    """End before any of these strings."""
    stop_tokens: tuple[int, ...] = ()
    """End at any of these ids, beside the model's own."""
    ignore_eos: bool = False
    """Do not end at the model's own end-of-text tokens."""
    logprobs: int = -1
    """-1: none; n: of the chosen token and of the n likeliest."""

    def __post_init__(self) -> None:
        stop: object = self.stop  # a text alone would pass for a tuple of its characters
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        checks = (
            (all(-100 <= p <= 100 for p in penalties), "penalties", "in [-100, 100]", penalties),
            (self.max_tokens >= 1, "max_tokens", "at least 1", self.max_tokens),
            (
                self.temperature == 0 or 1e-3 <= self.temperature <= 1e3,
                "temperature",
                "0 or in [0.001, 1000]",
                self.temperature,
            ),
            (self.top_k >= 0, "top_k", "at least 0", self.top_k),
            (0 < self.top_p <= 1, "top_p", "in (0, 1]", self.top_p),
            (0 <= self.min_p <= 1, "min_p", "in [0, 1]", self.min_p),
            (
                self.repetition_penalty >= 0.01,
                "repetition_penalty",
                "at least 0.01",
                self.repetition_penalty,
            ),
            (-1 <= self.logprobs <= 100, "logprobs", "in [-1, 100]", self.logprobs),
            (
                not isinstance(stop, str) and all(self.stop),
                "stop",
                "a tuple of non-empty strings",
                self.stop,
            ),
        )
        for fine, name, wanted, found in checks:
            if not fine:
                raise InputError(f"{name} must be {wanted}, not {found!r}")

    @property
    def penalizes(self) -> bool:
        """Whether any penalty is on, so that token counts are needed."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1.0, 0.0, 0.0)


class Sampler:
    """Draws the next token of every sequence in a batch; remembers what penalties need."""

    def __init__(
        self,
        sampling: Sampling,
        prompts: Sequence[Sequence[int]],
        vocab_size: int,
        device: torch.device | str = "cpu",
        first_stream: int = 0,
    ) -> None:
        self.sampling = sampling
        self._streams = [
            torch.Generator(device).manual_seed(_mix(sampling.seed, first_stream + row))
            for row in range(len(prompts))
        ]
        self._generated: Tensor | None = None  # [B, V] counts
        self._seen: Tensor | None = None  # [B, V] bool, prompt included
        if sampling.penalizes:
            shape = (len(prompts), vocab_size)
            self._generated = torch.zeros(shape, dtype=torch.int32, device=device)
            self._seen = torch.zeros(shape, dtype=torch.bool, device=device)
            for row, ids in enumerate(prompts):
                self._seen[row, torch.tensor(list(ids), dtype=torch.long, device=device)] = True

    def __call__(self, logits: Tensor) -> Tensor:
        """Choose a token per sequence: logits [B, V] to ids [B]."""
        if not self.sampling.penalizes and self.sampling.temperature == 0:
            return logits.argmax(-1)
        scores = self.penalize(logits.float())
        if self.sampling.temperature == 0:
            chosen = scores.argmax(-1)
        else:
            weights = self.filter(scores).softmax(-1)
            chosen = torch.cat(
                [
                    torch.multinomial(row, 1, generator=stream)
                    for row, stream in zip(weights, self._streams, strict=True)
                ]
            )
        self._remember(chosen)
        return chosen

    def penalize(self, logits: Tensor) -> Tensor:
        """Apply the repetition, presence and frequency penalties to float32 logits [B, V]."""
        if self._seen is None or self._generated is None:
            return logits
        s = self.sampling
        divided = torch.where(
            logits > 0, logits / s.repetition_penalty, logits * s.repetition_penalty
        )
        logits = torch.where(self._seen, divided, logits)
        logits = logits - s.presence_penalty * (self._generated > 0)
        return logits - s.frequency_penalty * self._generated

    def filter(self, scores: Tensor) -> Tensor:
        """Temperature, top-k, top-p and min-p: scores [B, V] with -inf where nothing is drawn."""
        s = self.sampling
        scores = scores / s.temperature
        if 0 < s.top_k < scores.shape[-1]:
            least = scores.topk(s.top_k).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        if s.top_p < 1:
            ordered, index = scores.sort(-1, descending=False)
            below = ordered.softmax(-1).cumsum(-1) <= 1 - s.top_p
            below[:, -1] = False  # the likeliest always stays
            scores = scores.masked_fill(below.scatter(1, index, below), -torch.inf)
        if s.min_p > 0:
            weights = scores.softmax(-1)
            scores = scores.masked_fill(
                weights < s.min_p * weights.amax(-1, keepdim=True), -torch.inf
            )
        return scores

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these sequences of the batch, in this order."""
        self._streams = [self._streams[row] for row in rows]
        if self._seen is not None and self._generated is not None:
            index = torch.tensor(rows, device=self._seen.device)
            self._seen, self._generated = self._seen[index], self._generated[index]

    def _remember(self, chosen: Tensor) -> None:
        if self._seen is not None and self._generated is not None:
            rows = torch.arange(len(chosen), device=chosen.device)
            self._seen[rows, chosen] = True
            self._generated[rows, chosen] += 1


def _mix(seed: int, stream: int) -> int:
    # torch's generator on CPU looks at 32 bits only, so the upper ones are folded in; and
    # neighbouring seeds must not give neighbouring streams (Knuth's multiplicative constant).
    folded = seed + (seed >> 32) * 0x85EBCA6B
    return (folded * 2654435761 + stream * 0x7F4A7C15) % 2**32
