"""How a row becomes turns: which of its fields the user says, and which the model answers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from puna.errors import InputError
from puna.records.items import Message, Messages, Shape

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME = re.compile(r"[^!:\[\]]*[^!:\[\]\s]")
_ANSWERS = {"parallel": "target", "prompt": "completion", "alpaca": "output"}
_PROMPTS = {"parallel": "{source}", "prompt": "{prompt}"}


class MissingFieldError(InputError):
    """A text names a field that a row has not."""


@dataclass(frozen=True)
class Wording:
    """Texts with `{field}` where a row's own text goes; `{{` and `}}` stand for braces."""

    prompt: str | None = None
    """What the user says, as in `Translate into German: {source}`; by default the row's text."""
    answer: str | None = None
    """What the model answers; by default the row's target, completion or output."""
    system: str | None = None
    """A system turn before all others, where the row has none of its own; by default none."""

    def __post_init__(self) -> None:
        for name in ("prompt", "answer", "system"):
            text = getattr(self, name)
            if text is not None:
                _pieces(text, name)
        if self.prompt is not None and not self.prompt.strip():
            raise InputError(
                "prompt is empty, so that nothing would be asked",
                fix="name a field in braces, such as {source}, or leave the prompt out",
            )
        if self.answer is not None and not self.fields(self.answer):
            raise InputError(
                "answer names no field, so that every answer would be the same",
                fix="name one in braces, such as {target}",
            )

    @staticmethod
    def fields(text: str) -> tuple[str, ...]:
        """The fields that a text names, each once, in the order of their first use."""
        named = (piece for is_field, piece in _pieces(text, "text") if is_field)
        return tuple(dict.fromkeys(named))

    def messages(self, fields: Mapping[str, str], shape: Shape) -> Messages:
        """The turns of a row that is no conversation itself.

        Args:
            fields: The text of the row, by name.
            shape: `parallel`, `prompt` or `alpaca`.

        Raises:
            MissingFieldError: A text names a field that the row has not.
            InputError: `shape` has no such turns.
        """
        if shape not in _ANSWERS:
            raise InputError(f"the shape {shape!r} has no prompt and answer to put into words")
        if self.prompt is None and shape == "alpaca":
            parts = (fields.get("instruction", ""), fields.get("input", ""))
            question = "\n\n".join(part for part in parts if part.strip())
        else:
            question = fill(self.prompt or _PROMPTS[shape], fields, "prompt")
        answer = fill(self.answer or f"{{{_ANSWERS[shape]}}}", fields, "answer")
        turns = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
        return (*self._preface(fields), *turns)

    def around(self, turns: Messages, fields: Mapping[str, str]) -> Messages:
        """A conversation with the wording's system turn before it, if it has none of its own.

        Raises:
            InputError: The wording has a prompt or an answer, which a conversation brings itself.
        """
        for name in ("prompt", "answer"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"wording.{name} has no use: these rows are conversations, with turns of their "
                    "own",
                    fix=f"remove wording.{name}, or set another shape",
                )
        if turns and turns[0]["role"] == "system":
            return turns
        return (*self._preface(fields), *turns)

    def ask(self, text: str) -> Messages:
        """The turns that ask the finished model about `text`, worded as it was taught.

        Raises:
            InputError: The prompt has several fields or none, so that `text` has no place; or the
                system turn has fields, for which nothing is given.
        """
        names = self.fields(self.prompt) if self.prompt is not None else ("text",)
        if len(names) != 1:
            raise InputError(
                f"the prompt of this model has {len(names)} fields ({', '.join(names) or 'none'}), "
                "and one text is given",
                where=repr(self.prompt),
                fix="write the whole prompt yourself, without the wording",
            )
        preface = self._preface({})
        question = fill(self.prompt or "{text}", {names[0]: text}, "prompt")
        return (*preface, {"role": "user", "content": question})

    def _preface(self, fields: Mapping[str, str]) -> tuple[Message, ...]:
        own = fields.get("system", "")
        if self.system is None:
            return ({"role": "system", "content": own},) if own.strip() else ()
        content = fill(self.system, fields, "system")
        return ({"role": "system", "content": content},) if content.strip() else ()


def fill(text: str, fields: Mapping[str, str], name: str) -> str:
    """`text` with each `{field}` replaced; what replaces it is never read as a text with fields.

    Args:
        text: The text.
        fields: What there is to put in.
        name: What the text is called in errors.

    Raises:
        MissingFieldError: It names a field that there is not.
        InputError: It has a brace that stands alone.
    """
    filled = []
    for is_field, piece in _pieces(text, name):
        if is_field and piece not in fields:
            near = difflib.get_close_matches(piece, fields, n=1)
            known = ", ".join(sorted(fields)[:20]) or "none"
            hint = f"did you mean {{{near[0]}}}? " if near else ""
            raise MissingFieldError(
                f"{name} names the field {piece!r}, which the data have not",
                where=repr(text),
                fix=f"{hint}Known fields: {known}",
            )
        filled.append(fields[piece] if is_field else piece)
    return "".join(filled)


def _pieces(text: str, name: str) -> list[tuple[bool, str]]:
    """A text cut into what is literal (False) and names of fields (True).

    Only plain names: Python's own format strings reach into attributes and can be made to print
    gigabytes, and these texts come from recipes that people pass on.
    """
    pieces: list[tuple[bool, str]] = []
    position = 0
    for match in _PIECE.finditer(text):
        pieces.append((False, text[position : match.start()]))
        position = match.end()
        if match.group() in ("{{", "}}"):
            pieces.append((False, match.group()[0]))
        elif match.group(1) is not None and _NAME.fullmatch(match.group(1)):
            pieces.append((True, match.group(1)))
        else:
            raise InputError(
                f"{name} has {match.group()!r} at column {match.start() + 1}, which names no field",
                where=repr(text),
                fix="write {field} for a field, and {{ or }} for a brace",
            )
    pieces.append((False, text[position:]))
    return [piece for piece in pieces if piece[0] or piece[1]]
