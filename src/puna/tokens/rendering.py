"""One way from a conversation to ids, for training, for evaluation and for use.

A conversation is rendered by a chat template and cut where the assistant begins and ends to speak;
each part is encoded by itself. So what precedes a trained answer is, id for id, what generation is
given, whatever the tokenizer would have merged across the cut.

Trained are the assistant's words and the token that ends its turn, nothing after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from puna.errors import InputError
from puna.tokens.guard import Guard
from puna.tokens.templates import BUILTIN_TEMPLATES, Message
from puna.tokens.tokenizer import Tokenizer

ASSISTANT = "assistant"
PLAIN = "plain"
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['content'] }}"
    "{% if message['role'] == 'system' %}{{ '\\n\\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
"""Contents as they are written; a blank line after the system's, the end of text after answers."""


@dataclass(frozen=True)
class Rendered:
    """Ids to learn from. `trained[i]`: whether the model is to say `ids[i]`, given those before."""

    ids: list[int]
    trained: list[bool]
    prompt_tokens: int
    """Tokens before the first answer."""
    ends: int
    """How many tokens that end a turn are trained."""


@dataclass(frozen=True)
class _Turn:
    """One turn of the assistant, as the template writes it."""

    prompt: str  # all before the answer, as generation is given it
    full: str  # the conversation up to and with this turn
    start: int  # where the answer begins in `full`
    end: int  # past its end-of-turn token

    def stands_in(self, text: str) -> bool:
        """Whether `text` has this turn, and all before it, as it was when it was the last."""
        return text.startswith(self.prompt) and text.startswith(self.full[: self.end])


@dataclass
class _Parts:
    """Consecutive parts of a text, and which of them are trained."""

    texts: list[str] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)

    def add(self, text: str, *, trained: bool = False) -> None:
        self.texts.append(text)
        self.trained.append(trained)


class Renderer:
    """Conversations and texts to ids. Made once for a run; safe from several threads.

    Attributes:
        tokenizer: The tokenizer.
        template: The chat template as text; None where there is none.
    """

    def __init__(self, tokenizer: Tokenizer, template: str | None = None):
        """Choose the chat template.

        Args:
            tokenizer: The checkpoint's.
            template: None for the checkpoint's own; the name of one of `BUILTIN_TEMPLATES`;
                "plain" (see `PLAIN_TEMPLATE`); or a template itself.

        Raises:
            InputError: It is no template and no name of one, or not valid.
        """
        self.tokenizer = tokenizer
        self.template: str | None = (
            tokenizer.chat_template if template is None else _template_text(template)
        )

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids at which generation stops: the tokenizer's, and the template's own end of turn."""
        return self.tokenizer.stop_ids | self._own_end()

    @cached_property
    def _stop_names(self) -> frozenset[str]:
        special = self.tokenizer.special_tokens
        return frozenset(name for name, index in special.items() if index in self.stop_ids)

    def require_template(self) -> None:
        """Find out now rather than at the first conversation.

        Raises:
            InputError: There is no chat template.
        """
        if self.template is None:
            raise InputError(
                "the checkpoint has no chat template, and the data are conversations",
                fix=f"name one: plain, {', '.join(BUILTIN_TEMPLATES)}, or the text of a template",
            )

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """What generation is given: the ids up to where the answer to `messages` begins.

        Raises:
            InputError: There is no template, or it refuses the messages.
        """
        guard, marked = self._guarded(messages)
        text = self._render(marked, answer=True)
        cuts = _cuts(text, self._turns(marked, guard))
        parts = self._parts(text, cuts, trained=False)
        return [index for ids in self.tokenizer.encode_turns(parts.texts, guard) for index in ids]

    def examples(self, messages: Sequence[Message]) -> list[Rendered]:
        """What a conversation teaches; nothing where the assistant says nothing.

        All turns of the assistant are in one example if the template leaves earlier turns as they
        were; else each is in an example of its own, after the prompt that it answered. What is
        said after the last answer is left out.

        Raises:
            InputError: There is no template, it refuses the messages, or an answer is not in what
                it writes.
        """
        guard, marked = self._guarded(messages)
        turns = self._turns(marked, guard)
        if not turns:
            return []
        last, cuts = turns[-1], _cuts(turns[-1].prompt, turns[:-1])
        if last.stands_in(last.full) and len(cuts) == 2 * len(turns[:-1]):
            return [self._rendered(self._parts(last.prompt, cuts, trained=True), last, guard)]
        found = []
        for number, turn in enumerate(turns):
            cuts = _cuts(turn.prompt, turns[:number])
            found.append(self._rendered(self._parts(turn.prompt, cuts, trained=False), turn, guard))
        return found

    def text(self, text: str) -> Rendered:
        """A text without turns: all of it is trained; bos and eos as the checkpoint wants them.

        Raises:
            InputError: The text is not valid Unicode.
        """
        ids = self.tokenizer.encode(text)
        return Rendered(ids, [True] * len(ids), 0, int(self.tokenizer.add_eos))

    # -- within --------------------------------------------------------------------------------

    def _guarded(self, messages: Sequence[Message]) -> tuple[Guard, list[Message]]:
        self.require_template()
        guard = self.tokenizer.guard(list(messages))
        return guard, guard.mark(list(messages))

    def _render(self, marked: Sequence[Message], *, answer: bool) -> str:
        return self.tokenizer.render(marked, add_generation_prompt=answer, template=self.template)

    def _turns(self, marked: Sequence[Message], guard: Guard) -> list[_Turn]:
        """Every turn of the assistant."""
        return [
            self._turn(marked[: number + 1], guard)
            for number, message in enumerate(marked)
            if message.get("role") == ASSISTANT
        ]

    def _turn(self, marked: Sequence[Message], guard: Guard) -> _Turn:
        """The last turn of a conversation, which is the assistant's."""
        prompt = self._render(marked[:-1], answer=True)
        full = self._render(marked, answer=False)
        if full.startswith(prompt):
            start = said = len(prompt)
        else:  # the template asks for an answer in other words than it writes before a past one
            start, said = self._place(marked, full, guard)
        return _Turn(prompt, full, start, self._end(full, said, guard))

    def _place(self, marked: Sequence[Message], full: str, guard: Guard) -> tuple[int, int]:
        """Where the answer lies in `full`: right before the last end of a turn."""
        before = _shared(full, self._render(marked[:-1], answer=False))
        ends = [first for first, stop in guard.spans(full) if full[first:stop] in self._stop_names]
        content = marked[-1].get("content")
        answer = content.strip() if isinstance(content, str) else ""
        start = full.rfind(answer, before, max(ends, default=len(full)))
        if start < 0 or not isinstance(content, str):
            raise InputError(
                "the chat template does not write an answer as it was given",
                fix="use another template, or answers that it leaves as they are",
            )
        return start, start + len(answer)

    def _end(self, text: str, start: int, guard: Guard) -> int:
        """Past the first token after `start` that ends a turn; else the end, without spaces."""
        for first, stop in guard.spans(text):
            if first >= start and text[first:stop] in self._stop_names:
                return stop
        return max(start, len(text.rstrip()))

    def _parts(self, text: str, cuts: Sequence[int], *, trained: bool) -> _Parts:
        """A prompt, cut around the answers in it."""
        parts = _Parts()
        for number, (start, stop) in enumerate(pairwise([0, *cuts, len(text)])):
            parts.add(text[start:stop], trained=trained and number % 2 == 1)
        return parts

    def _rendered(self, parts: _Parts, turn: _Turn, guard: Guard) -> Rendered:
        parts.add(turn.full[turn.start : turn.end], trained=True)
        parts.add(turn.full[turn.end :])
        encoded = self.tokenizer.encode_turns(parts.texts, guard)
        pairs = list(zip(encoded, parts.trained, strict=True))
        first = parts.trained.index(True)
        return Rendered(
            [index for ids in encoded for index in ids],
            [trained for ids, trained in pairs for _ in ids],
            sum(map(len, encoded[:first])),
            sum(trained and ids[-1:] != [] and ids[-1] in self.stop_ids for ids, trained in pairs),
        )

    def _own_end(self) -> frozenset[int]:
        """The special token that the template writes right after an answer, if no other ends it.

        A template may end turns with a token that no list of ours knows.
        """
        chat = [{"role": "user", "content": "Say it."}, {"role": ASSISTANT, "content": "Said."}]
        try:
            text = "" if self.template is None else self._render(chat, answer=False)
        except InputError:  # it refuses so plain a conversation: its end of turn stays unknown
            text = ""
        after = text[text.rfind("Said.") :]
        special = self.tokenizer.special_tokens
        names = [after[first:stop] for first, stop in self.tokenizer.guard([]).spans(after)]
        known = any(special[name] in self.tokenizer.stop_ids for name in names)
        return frozenset() if known or not names else frozenset({special[names[0]]})


def _cuts(text: str, turns: Sequence[_Turn]) -> list[int]:
    """Where those turns begin and end that are in a text as they were given."""
    cuts: list[int] = []
    for turn in turns:
        if turn.stands_in(text) and turn.start >= max(cuts, default=0):
            cuts += [turn.start, turn.end]
    return cuts


def _shared(one: str, other: str) -> int:
    """Characters that two texts have in common at the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _template_text(template: str) -> str:
    if template == PLAIN:
        return PLAIN_TEMPLATE
    if template in BUILTIN_TEMPLATES:
        return BUILTIN_TEMPLATES[template]
    if "{{" in template or "{%" in template:
        return template
    raise InputError(
        f"there is no chat template {template!r}",
        fix=f"known: {PLAIN}, {', '.join(BUILTIN_TEMPLATES)}; or the text of a template",
    )
