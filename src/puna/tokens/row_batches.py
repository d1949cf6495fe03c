"""Rows of equal length into batches: how many to a step, and what a batch of them says.

Shapes: B rows of a batch, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch

from puna.errors import InputError
from puna.tokens.batches import IGNORED, Batch
from puna.tokens.shard_rows import Ints

# Of a micro-batch whose rows are not given. More of them gain no speed on two cores
# (bench/RESULTS.md), and take memory in proportion; a GPU has to be filled.
MICRO_BATCH_TOKENS: Mapping[str, int] = MappingProxyType({"cpu": 1024, "cuda": 8192})


@dataclass(frozen=True)
class RowConfig:
    """How many tokens a row has, and how many rows a step."""

    row_tokens: int = 1024
    """Tokens of a row: as far as a token sees back at most."""
    step_rows: int = 32
    """Rows of an optimizer step, over all ranks and micro-batches."""
    batch_rows: int | None = None
    """Rows of a micro-batch: what a rank computes at once; null: as many as suit the device. It
    changes memory and speed, and the result by rounding only."""
    separate_documents: bool = True
    """Tokens see and predict within their document alone; otherwise a row is one text."""

    def __post_init__(self) -> None:
        for name in ("row_tokens", "step_rows", "batch_rows"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InputError(f"{name} must be at least 1, not {number}")
        self.micro_batches(1)

    @property
    def rows_at_once(self) -> int:
        """Rows of a micro-batch; of one rank on a CPU where `settled` has not chosen."""
        return self._suiting(1, "cpu") if self.batch_rows is None else self.batch_rows

    def settled(self, ranks: int, device: str) -> RowConfig:
        """The same with the rows of a micro-batch chosen where they are not given.

        They divide those of a rank, and have no more tokens than suit the device (a torch device
        type), or one row.
        """
        if self.batch_rows is not None:
            return self
        return replace(self, batch_rows=self._suiting(ranks, device))

    def _suiting(self, ranks: int, device: str) -> int:
        most = max(1, MICRO_BATCH_TOKENS.get(device, MICRO_BATCH_TOKENS["cuda"]) // self.row_tokens)
        rows = 1 if self.step_rows % ranks else self.step_rows // ranks
        return max(n for n in range(1, min(most, rows) + 1) if rows % n == 0)

    def micro_batches(self, ranks: int) -> int:
        """Micro-batches of a step on each of `ranks` ranks.

        Raises:
            InputError: The rows of a step cannot be dealt out evenly.
        """
        at_once = self.settled(ranks, "cpu").rows_at_once
        unit = at_once * ranks
        if self.step_rows % unit == 0:
            return self.step_rows // unit
        lower = self.step_rows // unit * unit
        near = sorted({lower or unit, lower + unit}, key=lambda n: abs(n - self.step_rows))
        on = f" on {ranks} ranks" if ranks > 1 else ""
        raise InputError(
            f"step_rows is {self.step_rows}, which is no multiple of {unit}, "
            f"the rows of one micro-batch ({at_once}){on}",
            fix=f"the nearest that is: {' or '.join(map(str, near))}; or change batch_rows",
        )


def row_batch(ids: Ints, targets: Ints, numbers: Ints, *, separate: bool) -> Batch:
    """Rows as a batch, with the numbers of documents where they make a difference.

    Rows of several separate documents are joined into one long row without padding: nothing is
    seen across its documents anyway, and such a row is attended to without copies.

    Args:
        ids: [B, T] tokens.
        targets: [B, T]: what each predicts, -100 for nothing.
        numbers: [B, T]: the document of each within its row, from 0; -1 is padding, on the right.
        separate: Whether documents attend to themselves alone.

    Returns:
        The batch: [B, T], or [1, tokens of all] where documents are to be told apart.
    """
    real = numbers >= 0
    documents = None
    if separate and bool((numbers > 0).any()):
        before = np.cumsum(numbers.max(1, keepdims=True) + 1, axis=0)  # documents up to each row
        before = np.concatenate([np.zeros_like(before[:1]), before[:-1]])
        documents = torch.from_numpy((numbers + before)[real][None])
        ids, targets, real = ids[real][None], targets[real][None], real[real][None]
    return Batch(
        ids=torch.from_numpy(np.ascontiguousarray(ids)),
        targets=torch.from_numpy(np.ascontiguousarray(targets)),
        valid=None if real.all() else torch.from_numpy(np.ascontiguousarray(real)),
        document_ids=documents,
        members=((),) * len(ids),
        tokens=int(real.sum()),
        trained=int((targets != IGNORED).sum()),
    )
