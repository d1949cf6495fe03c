"""In which batches the trunk is computed: fixed by the sequences, and by nothing else.

The last bits of a hidden state depend on the batch it was computed in. A resumed run is therefore
bit-exact only if what is missing is computed in the batches of the first time. `plan_chunks`
promises that: whole chunks taken out of a plan leave the others as they were.

Shapes: B batch, T tokens, M hidden_size, N tokens of several sequences in a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from puna.errors import InputError
from puna.model import AttentionSpec, LlamaModel
from puna.tune.trunk_identity import sequence_key

Ids = NDArray[np.int32]


class Entries:
    """The distinct sequences of a run, and which of them each sequence is.

    Args:
        sequences: Token ids [n] of each.
        vocab_size: Ids lie below it.

    Raises:
        InputError: A sequence is empty, not a row, or has other ids.
    """

    def __init__(self, sequences: Sequence[NDArray[np.int32]], vocab_size: int):
        self.ids: list[Ids] = []
        self.keys: list[bytes] = []
        self.of: list[int] = []
        """Sequence -> entry."""
        self.by_key: dict[bytes, int] = {}
        for number, given in enumerate(sequences):
            ids = np.ascontiguousarray(given)
            whole = ids.ndim == 1 and ids.size and ids.dtype.kind in "iu"
            if not whole or ids.min() < 0 or ids.max() >= vocab_size:
                raise InputError(
                    f"sequence {number} is not a row of at least one id from 0 to {vocab_size - 1}"
                )
            ids = ids.astype(np.int32, copy=False)
            key = sequence_key(ids)
            entry = self.by_key.setdefault(key, len(self.keys))
            if entry == len(self.keys):
                self.keys.append(key)
                self.ids.append(ids)
            self.of.append(entry)
        self.tokens = [len(ids) for ids in self.ids]

    def plan(self, entries: Iterable[int], batch_tokens: int) -> list[list[int]]:
        """Cut some of the entries into chunks: see `plan_chunks`."""
        return plan_chunks(entries, self.tokens, self.keys, batch_tokens)

    def tokens_of(self, entries: Iterable[int]) -> int:
        """How many tokens some of the entries have."""
        return sum(self.tokens[entry] for entry in entries)


def plan_chunks(
    entries: Iterable[int], tokens: Sequence[int], keys: Sequence[bytes], batch_tokens: int
) -> list[list[int]]:
    """Cut entries, sorted by (length, key), into chunks of at most `batch_tokens`.

    A chunk is closed by the first entry that does not fit, and all later ones are no shorter: so
    no later entry ever joins it, whichever whole chunks are taken out of the plan.

    Args:
        entries: Positions in `tokens` and `keys`, in any order.
        tokens: The length of each.
        keys: Distinct keys.
        batch_tokens: Rows times the longest of them, padding included; an entry that is longer
            has a chunk of its own.
    """
    chunks: list[list[int]] = []
    for entry in sorted(entries, key=lambda e: (tokens[e], keys[e])):
        if chunks and (len(chunks[-1]) + 1) * tokens[entry] <= batch_tokens:
            chunks[-1].append(entry)
        else:
            chunks.append([entry])
    return chunks


@torch.inference_mode()
def run_trunk(model: LlamaModel, start: int, sequences: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Hidden states that enter block `start`: [B, T, M], and which of them are real, [B, T].

    The sequences are padded on the right, which for causal attention is one call for all of them.
    """
    device = next(model.parameters()).device
    tokens = torch.tensor([len(sequence) for sequence in sequences])
    width = int(tokens.max())
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    valid = (torch.arange(width) < tokens[:, None]).to(device)
    spec = AttentionSpec() if bool((tokens == width).all()) else AttentionSpec(valid=valid)
    hidden = model.embed(torch.from_numpy(ids).to(device))
    return model.run(hidden, 0, start, spec), valid
