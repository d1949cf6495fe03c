"""What may attend to what, described in a few numbers per sequence; never a T x T tensor.

Shapes: B batch, T tokens, S key slots, H query heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from puna.errors import InputError

Mode = Literal["causal", "bidirectional", "prefix"]


@dataclass(frozen=True)
class AttentionSpec:
    """Which keys a query sees. A backend lowers this; `puna.model.lowering` has the one for CPU.

    A query sees a key when all of these allow it: the mode, the same document, the window, and
    both being real tokens. The output of a padded query is zero.
    """

    mode: Mode = "causal"
    """`causal`: keys at or before the query. `bidirectional`: all. `prefix`: all of the first
    `prefix_len[b]` real tokens, and causal after them."""
    prefix_len: Tensor | None = None  # [B] tokens
    document_ids: Tensor | None = None
    """[B, T]: tokens packed into one row attend within their document only. A document is a run
    of equal ids; rotary positions restart in each."""
    window_tokens: int | None = None
    """A query sees at most this many tokens towards each side, itself included."""
    valid: Tensor | None = None
    """[B, T] bool: False is padding, on the left or on the right of a row, not inside."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            known = ", ".join(get_args(Mode))
            raise InputError(f"attention mode {self.mode!r} is not known", fix=f"known: {known}")
        if (self.mode == "prefix") != (self.prefix_len is not None):
            raise InputError("prefix_len belongs to the mode 'prefix', and that mode needs it")
        if self.mode == "prefix" and self.document_ids is not None:
            raise InputError("the mode 'prefix' takes one document per row, not packed ones")
        if self.window_tokens is not None and self.window_tokens < 1:
            raise InputError(f"window_tokens must be at least 1, not {self.window_tokens}")
        if self.document_ids is not None and self.document_ids.dim() != 2:
            raise InputError("document_ids must have the shape [B, T]")
        if self.valid is not None and (self.valid.dim() != 2 or self.valid.dtype != torch.bool):
            raise InputError("valid must be a bool tensor of the shape [B, T]")

    @classmethod
    def packed(cls, cu_seqlens: Tensor, *, mode: Mode = "causal") -> AttentionSpec:
        """One row of documents, given by their cumulative lengths [0, n1, n1 + n2, ...]."""
        lengths = cu_seqlens.diff()
        ids = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        return cls(mode=mode, document_ids=ids[None])


@dataclass(frozen=True)
class Span:
    """Tokens [start, stop) of some rows that attend among themselves and to nothing else."""

    rows: tuple[int, ...]
    start: int
    stop: int
    prefix: int = 0  # tokens at the start of the span that see each other both ways


def spans(spec: AttentionSpec, batch: int, tokens: int) -> list[Span]:
    """Cut a batch into spans, those of equal extent in several rows together.

    Raises:
        InputError: Padding stands inside a row, or a tensor of the spec has another shape.
    """
    prefix = prefix_lengths(spec, batch)
    if spec.valid is None and spec.document_ids is None:
        extents = [(row, 0, tokens) for row in range(batch)]
    else:
        extents = _extents(spec, batch, tokens)
    groups: dict[tuple[int, int, int], list[int]] = {}
    for row, start, stop in extents:
        groups.setdefault((start, stop, min(prefix[row], stop - start)), []).append(row)
    return [Span(tuple(rows), *key) for key, rows in groups.items()]


def prefix_lengths(spec: AttentionSpec, batch: int) -> list[int]:
    """Tokens of each row's prefix, on the host; 0 in other modes.

    Raises:
        InputError: The spec is for another batch.
    """
    lengths: list[int] = [0] * batch if spec.prefix_len is None else spec.prefix_len.tolist()
    if len(lengths) != batch:
        raise InputError(f"prefix_len has {len(lengths)} entries for a batch of {batch}")
    return lengths


def _extents(spec: AttentionSpec, batch: int, tokens: int) -> list[tuple[int, int, int]]:
    """(row, start, stop) of every document, with one transfer to the host."""
    marks = [t for t in (spec.document_ids, spec.valid) if t is not None]
    for tensor in marks:
        if tuple(tensor.shape) != (batch, tokens):
            raise InputError(
                f"the attention spec is for [B, T] = {list(tensor.shape)}, "
                f"the input is {[batch, tokens]}"
            )
    change = torch.zeros(batch, tokens, dtype=torch.bool, device=marks[0].device)
    change[:, 0] = True
    for tensor in marks:
        change[:, 1:] |= tensor[:, 1:] != tensor[:, :-1]
    real = (torch.ones_like(change) if spec.valid is None else spec.valid).tolist()
    found = []
    for row, starts in enumerate(_true_columns(change)):
        for start, stop in zip(starts, [*starts[1:], tokens], strict=True):
            if real[row][start]:
                found.append((row, start, stop))
        if spec.valid is not None:
            count = sum(real[row])
            first = real[row].index(True) if count else 0
            if not all(real[row][first : first + count]):
                raise InputError(f"row {row} has padding inside; pad on the left or on the right")
    return found


def _true_columns(mask: Tensor) -> list[list[int]]:
    columns: list[list[int]] = [[] for _ in range(mask.shape[0])]
    for row, column in mask.nonzero().tolist():
        columns[row].append(column)
    return columns
