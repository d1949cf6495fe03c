"""What a model is judged on: a question, the answer wanted, and both as tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from puna.errors import InputError


@dataclass(frozen=True)
class Case:
    """One example of a test set, as tokens and as text.

    `ids` and `trained` are what training would be given, so that the figures are of the same
    tokens as its loss; `prompt_ids` is what generation is given.
    """

    id: str  # the same for every model that is judged
    prompt_ids: Sequence[int]  # up to where the answer begins; empty where there is no question
    ids: Sequence[int]  # prompt and answer
    trained: Sequence[bool]  # per id: it is predicted and counted
    question: str
    reference: str  # the text of what is trained

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.trained):
            raise InputError(
                f"{len(self.ids)} ids and {len(self.trained)} marks of what is trained",
                where=f"case {self.id}",
            )

    def predicted(self) -> list[int]:
        """The places in `ids` that are predicted; nothing stands before the first, so it is not."""
        return [place for place, trained in enumerate(self.trained) if trained and place]


def choose(cases: Sequence[Case], count: int | None) -> list[Case]:
    """At most `count` cases, in their order: always the same ones, wherever they stood.

    The choice goes by a hash of the id, so it is no matter of how the file was sorted.
    """
    if count is None or count >= len(cases):
        return list(cases)
    ranks = [hashlib.blake2b(case.id.encode(), digest_size=8).digest() for case in cases]
    kept = sorted(range(len(cases)), key=lambda index: ranks[index])[:count]
    return [cases[index] for index in sorted(kept)]


def check_cases(cases: Sequence[Case], context: int, *, answering: bool) -> None:
    """Refuse what a model cannot be judged on, before any work.

    Args:
        cases: The test set.
        context: Tokens that the model takes.
        answering: The model is to answer each question.

    Raises:
        InputError: There are no cases, two have one id, one is too long or has no question.
    """
    if not cases:
        raise InputError("there are no examples to judge by")
    seen: set[str] = set()
    for case in cases:
        where = f"case {case.id}"
        if case.id in seen:
            raise InputError("is there twice: ids must differ", where=where)
        seen.add(case.id)
        if len(case.ids) > context or len(case.prompt_ids) >= context:
            longest = max(len(case.ids), len(case.prompt_ids))
            raise InputError(
                f"has {longest} tokens; the model's context is {context}",
                where=where,
                fix="set a lower max_tokens for the data, so that it is left out",
            )
        if answering and not len(case.prompt_ids):
            raise InputError(
                "has no question for the model to answer",
                where=where,
                fix="judge plain text by perplexity and bits_per_byte",
            )
