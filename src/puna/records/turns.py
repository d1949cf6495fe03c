"""Conversations as people store them: sharegpt's `from`/`value` and OpenAI's `role`/`content`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from puna.records.items import Message, Messages
from puna.records.row import kind_of

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",  # what the model says when it calls a function
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
}


class MisfitError(Exception):
    """A row does not fit its shape; `reason` is one of few, `detail` is about this row."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def conversation(value: Any, column: str) -> Messages:
    """The turns of a conversation, under the names `role` and `content`.

    Empty system turns are left out; turns after the last answer teach nothing and are cut.

    Args:
        value: What the column holds: a list of mappings.
        column: Its name, for reasons.

    Raises:
        MisfitError: It is no list of turns, has an unknown role, an empty turn or no answer.
    """
    if not isinstance(value, list | tuple):
        raise MisfitError(f"column {column!r} is no list of turns", kind_of(value))
    turns = [_turn(turn, number) for number, turn in enumerate(value)]
    turns = [turn for turn in turns if turn["role"] != "system" or turn["content"].strip()]
    return with_answer(tuple(turns))


def with_answer(turns: Messages) -> Messages:
    """The turns up to the last answer.

    Raises:
        MisfitError: There is no answer, nothing is asked before it, or a turn is empty.
    """
    answers = [number for number, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not answers:
        raise MisfitError("has no answer", "no turn of the assistant")
    turns = turns[: answers[-1] + 1]
    for number, turn in enumerate(turns):
        if not turn["content"].strip():
            answer = turn["role"] == "assistant"
            raise MisfitError("has an empty answer" if answer else "asks nothing", f"turn {number}")
    if not any(turn["role"] == "user" for turn in turns[: answers[0]]):
        raise MisfitError("begins with an answer: nothing is asked before it")
    return turns


def _turn(turn: Any, number: int) -> Message:
    if not isinstance(turn, Mapping):
        raise MisfitError("has a turn that is no object", f"turn {number}: {kind_of(turn)}")
    names = ("role", "content") if "role" in turn else ("from", "value")
    said = turn.get(names[0])
    role = _ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        known = ", ".join(dict.fromkeys(_ROLES))
        detail = f"turn {number}: {ascii(said)[:40]}; known are {known}"
        raise MisfitError("has a turn of an unknown role", detail)
    for name in ("tool_calls", "function_call"):
        if turn.get(name):
            raise MisfitError("has a turn that calls tools outside of its text", f"turn {number}")
    return {"role": role, "content": _content(turn.get(names[1]), number)}


def _content(value: Any, number: int) -> str:
    """The text of a turn; OpenAI's list of parts is joined where all of them are text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        texts = [part.get("text") for part in value if isinstance(part, Mapping)]
        if len(texts) == len(value) and all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
    raise MisfitError("has a turn whose content is not text", f"turn {number}")
