"""What a training step is: a model and a batch come in, terms with their own counts go out.

`counts(batch)` is known before any forward pass, so that a step is divided by the counts of all
its micro-batches and ranks, never by those of a part. No objective divides a sum itself.
"""

from __future__ import annotations

from puna.errors import InputError
from puna.train.objectives.base import (
    Backward,
    Embedded,
    FrozenTrunk,
    Objective,
    Term,
    Trunk,
    attention_of,
)
from puna.train.objectives.next_token import MaskedTurns, NextToken

__all__ = [
    "Backward",
    "Embedded",
    "FrozenTrunk",
    "MaskedTurns",
    "NextToken",
    "Objective",
    "Term",
    "Trunk",
    "attention_of",
    "objective",
]


def objective(name: str) -> Objective:
    """The objective that recipes call `name`.

    Raises:
        InputError: There is none of this name.
    """
    known = {made.name: made for made in (NextToken(), MaskedTurns())}
    if name not in known:
        raise InputError(
            f"there is no objective {name!r}", fix=f"known objectives: {', '.join(known)}"
        )
    return known[name]
