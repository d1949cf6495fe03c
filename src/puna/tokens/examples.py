"""Items of data to token examples, with every one that is left out counted by its reason.

An answer is never cut: what does not fit into `max_tokens` loses the beginning of its prompt where
that is asked for, or is dropped. Only running text is cut, into windows that lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from puna.errors import InputError
from puna.tokens.guard import strings_in
from puna.tokens.mask_report import MaskReport, mask_report
from puna.tokens.rendering import ASSISTANT, Rendered, Renderer

_WORD_CHARS = 24  # how far a cut moves on to the next word

NO_TRAINING = "nothing to train"
NO_ANSWER = "empty answer"
NOT_UNICODE = "not valid Unicode"
TOO_LONG = "longer than max_tokens"


class Item(Protocol):
    """What data are read into; `puna.records` has the class."""

    @property
    def id(self) -> str:
        """The item's name, the same in every run."""

    @property
    def root_id(self) -> str | None:
        """The name of what it was derived from."""

    @property
    def locator(self) -> str:
        """Where it was read: a file and a line."""

    @property
    def messages(self) -> Sequence[Mapping[str, str]]:
        """A conversation; empty for running text."""

    @property
    def text(self) -> str | None:
        """Running text; None for a conversation."""

    @property
    def source(self) -> str:
        """What is asked, in the words of the data."""


@dataclass(frozen=True)
class TokenExample:
    """One sequence to learn from.

    `trained[i]` says whether `ids[i]` is to be predicted from what comes before it; never true of
    the first.
    """

    id: str
    locator: str
    ids: npt.NDArray[np.int32]  # [N]
    trained: npt.NDArray[np.bool_]  # [N]
    prompt_tokens: int
    ends: int  # how many tokens that end a turn are trained
    root: str

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ExampleConfig:
    """How long an example may be, and what is done with longer ones."""

    max_tokens: int = 1024
    """Tokens of the longest example; running text is cut into windows of this length."""
    too_long: Literal["drop", "cut_prompt"] = "drop"
    """`cut_prompt`: take words from the beginning of the last question until it fits."""
    max_truncated_share: float = 0.1
    """Refuse to train where more than this share (0 to 1) was truncated or dropped."""

    def __post_init__(self) -> None:
        if self.max_tokens < 2:
            raise InputError(f"max_tokens must be at least 2, not {self.max_tokens}")
        if not 0 <= self.max_truncated_share <= 1:
            raise InputError(
                f"max_truncated_share is a share from 0 to 1, not {self.max_truncated_share}"
            )


@dataclass
class _Encoded:
    """What became of one item."""

    examples: list[TokenExample] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)  # reasons
    truncated: int = 0
    longest: int = 0


def encode_items(
    items: Iterable[Item],
    renderer: Renderer,
    config: ExampleConfig,
    *,
    everything: bool = False,
    workers: int = 1,
) -> tuple[list[TokenExample], MaskReport]:
    """Encode items of data, in their order.

    Args:
        items: Conversations and texts.
        renderer: How they become ids.
        config: Bounds on their length.
        everything: Train every token, not only what the assistant says; conversations are then
            cut into windows as texts are.
        workers: Threads. The result does not depend on it.

    Raises:
        InputError: There is a conversation, and no chat template.
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}")
    listed = list(items)
    if any(item.text is None for item in listed):
        renderer.require_template()
    encoder = _Encoder(renderer, config, everything)
    if workers == 1:
        encoded = [encoder.encode(item) for item in listed]
    else:
        with ThreadPoolExecutor(workers) as pool:
            encoded = list(pool.map(encoder.encode, listed))
    examples = [example for one in encoded for example in one.examples]
    chats = any(item.text is None for item in listed)
    report = mask_report(
        examples,
        [reason for one in encoded for reason in one.dropped],
        truncated=sum(one.truncated for one in encoded),
        longest=max((one.longest for one in encoded), default=0),
        expects_end=chats and not everything and bool(renderer.stop_ids),
        tokenizer=renderer.tokenizer,
    )
    return examples, report


@dataclass(frozen=True)
class _Encoder:
    renderer: Renderer
    config: ExampleConfig
    everything: bool

    def encode(self, item: Item) -> _Encoded:
        """An item's examples, or the reason for which there is none."""
        given: Any = item.messages if item.text is None else item.text
        if not all(map(_is_unicode, strings_in(given))):
            return _Encoded(dropped=[NOT_UNICODE])
        if item.text is not None:
            return self._windows(item, self.renderer.text(item.text))
        if not any(message.get("role") == ASSISTANT for message in item.messages):
            return _Encoded(dropped=[NO_TRAINING])
        if any(_is_empty_answer(message) for message in item.messages):
            return _Encoded(dropped=[NO_ANSWER])
        try:
            rendered = self.renderer.examples(item.messages)
            if self.everything:  # the last has the whole conversation
                return self._windows(item, rendered[-1])
            return self._answers(item, rendered)
        except InputError as error:
            return _Encoded(dropped=[error.what])

    def _windows(self, item: Item, rendered: Rendered) -> _Encoded:
        """Windows that share one token, which is context in the second: all but one are trained."""
        ids, most, found = rendered.ids, self.config.max_tokens, _Encoded()
        for start in range(0, len(ids) - 1, most - 1):
            part = ids[start : start + most]
            ends = sum(index in self.renderer.stop_ids for index in part[1:])
            window = Rendered(part, [True] * len(part), 0, ends)
            found.examples.append(_example(item, window, start // (most - 1), len(ids) > most))
            found.longest = max(found.longest, len(part))
        if not found.examples:
            found.dropped.append(NO_TRAINING)
        return found

    def _answers(self, item: Item, rendered: Sequence[Rendered]) -> _Encoded:
        found = _Encoded()
        for number, one in enumerate(rendered):
            whole = _without_tail(one)
            found.longest = max(found.longest, len(whole.ids))
            fits = len(whole.ids) <= self.config.max_tokens
            kept: Rendered | None = whole
            if not fits:
                ahead = len(rendered) - 1 - number
                kept = self._shortened(item, ahead) if self.config.too_long != "drop" else None
                found.truncated += kept is not None
            if kept is None:
                found.dropped.append(TOO_LONG)
            elif not any(kept.trained[1:]):
                found.dropped.append(NO_TRAINING)
            else:
                found.examples.append(_example(item, kept, number, len(rendered) > 1))
        return found

    def _shortened(self, item: Item, ahead: int) -> Rendered | None:
        """The conversation up to an answer, with the beginning of its question cut off.

        As little is cut as makes it fit, from a word on; None where even the last character of
        the question is too much.

        Args:
            item: The conversation.
            ahead: How many answers come after the one that is wanted.
        """
        messages = list(item.messages)
        answers = [i for i, m in enumerate(messages) if m.get("role") == ASSISTANT]
        messages = messages[: answers[-1 - ahead] + 1]
        places = [i for i, m in enumerate(messages) if m.get("role") == "user"]
        if not places:
            return None
        content = messages[places[-1]]["content"].rstrip()

        def without(count: int) -> Rendered | None:
            question = {**messages[places[-1]], "content": content[count:]}
            cut = [*messages[: places[-1]], question, *messages[places[-1] + 1 :]]
            rendered = _without_tail(self.renderer.examples(cut)[-1])
            return rendered if len(rendered.ids) <= self.config.max_tokens else None

        least, most = 1, len(content) - 1  # of the characters to cut off
        if most < least or without(most) is None:
            return None
        while least < most:
            middle = (least + most) // 2
            least, most = (least, middle) if without(middle) else (middle + 1, most)
        return without(_next_word(content, most)) or without(most)


def _example(item: Item, rendered: Rendered, number: int, several: bool) -> TokenExample:
    trained = np.array(rendered.trained, dtype=np.bool_)
    trained[:1] = False  # nothing comes before it that it could be predicted from
    return TokenExample(
        id=f"{item.id}/{number}" if several else item.id,
        locator=item.locator,
        ids=np.array(rendered.ids, dtype=np.int32),
        trained=trained,
        prompt_tokens=rendered.prompt_tokens,
        ends=rendered.ends,
        root=item.root_id or item.id,
    )


def _without_tail(rendered: Rendered) -> Rendered:
    """Without what a template writes after the last answer, from which nothing is learnt."""
    count = len(rendered.trained)
    while count and not rendered.trained[count - 1]:
        count -= 1
    ids, trained = rendered.ids[:count], rendered.trained[:count]
    return Rendered(ids, trained, rendered.prompt_tokens, rendered.ends)


def _is_empty_answer(message: Mapping[str, str]) -> bool:
    return message.get("role") == ASSISTANT and not message.get("content", "").strip()


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _next_word(text: str, start: int) -> int:
    """Where the next word begins, if it is near; else `start`."""
    if text[start - 1].isspace():
        return start
    near: Iterator[int] = (
        place + 1
        for place in range(start, min(start + _WORD_CHARS, len(text) - 1))
        if text[place].isspace()
    )
    return next(near, start)
