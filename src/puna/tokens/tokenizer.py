"""One `Tokenizer` for every source: encode, decode, stream, chats, and writing itself out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer as Backend

from puna.errors import InputError
from puna.tokens import export
from puna.tokens.backends import continuing, prefixes_once, scheme_of, without_specials
from puna.tokens.bytelevel import decode_utf8, to_bytes
from puna.tokens.guard import Guard, pattern_of
from puna.tokens.source import DEFAULT_TEMPLATE, Roles, Source
from puna.tokens.stream import StreamDecoder
from puna.tokens.templates import ChatTemplate, Message
from puna.tokens.vocabulary import END_OF_TURN, SPACE, byte_of
from puna.tokens.words import WordEncoder


class Tokenizer:
    """Text to ids and back. Made by `open_tokenizer`; not changed afterwards.

    Attributes:
        vocab_size: Number of ids, special tokens included.
        bos_id: The token that begins a text, if there is one; likewise `eos_id`, `pad_id`,
            `unk_id`.
        add_bos: Whether the checkpoint wants `bos_id` before a text.
        add_eos: Whether the checkpoint wants `eos_id` after a text.
        stop_ids: Ids that end generation: end of text, end of turn.
        special_tokens: Ids of the tokens that stand for no text, by name.
        chat_template: The checkpoint's own chat template, if it has one.
    """

    def __init__(self, source: Source, roles: Roles, *, model_size: int | None = None):
        """See `open_tokenizer`.

        Raises:
            InputError: There are more tokens than the model has rows, or a role's id is not in
                the vocabulary.
        """
        self._source, self._roles = source, roles
        backend = self._parsing = source.backend
        self.vocab_size: int = source.size()
        self._model_size = max(self.vocab_size + source.padding, model_size or 0)
        self.scheme, self._strip_left = scheme_of(backend, where=source.where)
        self.bos_id, self.eos_id = roles.bos_id, roles.eos_id
        self.pad_id, self.unk_id = roles.pad_id, roles.unk_id
        self.add_bos = bool(roles.add_bos) and roles.bos_id is not None
        self.add_eos = bool(roles.add_eos) and roles.eos_id is not None
        self.special_tokens: dict[str, int] = {
            token.content: index
            for index, token in sorted(backend.get_added_tokens_decoder().items())
            if token.special
        }
        self._special_ids = frozenset(self.special_tokens.values())
        ends = {self.special_tokens[name] for name in END_OF_TURN & self.special_tokens.keys()}
        ends |= roles.end_ids | ({roles.eos_id} if roles.eos_id is not None else set())
        self.stop_ids: frozenset[int] = frozenset(ends)
        self._check_ids(model_size)
        self._plain = without_specials(backend, self._special_ids)
        backend.post_processor = export.framing(self)
        self.chat_template: str | None = roles.templates.get(DEFAULT_TEMPLATE)
        self._bytes: dict[int, bytes] = {}
        self._compiled: dict[str, ChatTemplate] = {}

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size} tokens, {self.scheme}, from {self._source.where})"

    # -- text to ids ---------------------------------------------------------------------------

    def encode(
        self,
        text: str,
        *,
        special: bool = False,
        bos: bool | None = None,
        eos: bool | None = None,
    ) -> list[int]:
        """The ids of a text.

        Args:
            text: Any text.
            special: Read what looks like a special token as that token. Without it, a text from
                a user cannot produce one.
            bos: Begin with `bos_id`; None: as the checkpoint wants it.
            eos: End with `eos_id`; None: as the checkpoint wants it.

        Raises:
            InputError: The text is not valid Unicode, or there is no token to begin or end with.
        """
        return self.encode_batch([text], special=special, bos=bos, eos=eos)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        special: bool = False,
        bos: bool | None = None,
        eos: bool | None = None,
    ) -> list[list[int]]:
        """The ids of many texts, in parallel; see `encode`."""
        before = self._frame("bos", self.bos_id, self.add_bos if bos is None else bos)
        after = self._frame("eos", self.eos_id, self.add_eos if eos is None else eos)
        backend = self._parsing if special else self._plain
        ids = _encode(backend, texts)
        return [before + inner + after for inner in ids] if before or after else ids

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """What `encode_batch(texts, eos=True)` gives, faster for many texts of one kind.

        The ids of their words are remembered, where the vocabulary cuts text into words.
        """
        if self.words is None:
            return self.encode_batch(texts, eos=True)
        before, after = self.document_frame()
        try:
            return [before + inner + after for inner in self.words.encode(texts)]
        except TypeError as error:
            raise _not_text(texts) from error

    def document_frame(self) -> tuple[list[int], list[int]]:
        """What begins and ends a document among others.

        Raises:
            InputError: There is no token that ends one.
        """
        before = self._frame("bos", self.bos_id, self.add_bos)
        return before, self._frame("eos", self.eos_id, True)

    # -- ids to text ---------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of some ids. Bytes that are no UTF-8 become U+FFFD.

        A byte-level vocabulary has one U+FFFD per ill-formed part; a SentencePiece one has one
        per byte, as the library `sentencepiece` does.

        Raises:
            InputError: An id is neither in the vocabulary nor among the model's padding.
        """
        piece = self._spoken if skip_special else self.token_bytes
        data = b"".join([piece(index) for index in ids])
        if self._strip_left:
            spaces = len(data) - len(data.lstrip(b" "))
            data = data[min(spaces, self._strip_left) :]
        return decode_utf8(data, each_byte=self.scheme == "sentencepiece", final=True)[0]

    def stream(self, *, skip_special: bool = True, after: Iterable[int] = ()) -> StreamDecoder:
        """A decoder that is given one id after the other.

        Args:
            skip_special: Special tokens have no text.
            after: Ids that come before, whose text is not repeated: a continuation of "Once"
                begins with " upon" only if the decoder knows that it is not a beginning.
        """
        decoder = StreamDecoder(
            self._spoken if skip_special else self.token_bytes,
            each_byte=self.scheme == "sentencepiece",
            strip_spaces=self._strip_left,
        )
        for index in after:
            decoder.push(index)
        return decoder

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text; for a special token, its name.

        Raises:
            InputError: The id is neither in the vocabulary nor among the model's padding.
        """
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[int(token_id)] = self._read_bytes(int(token_id))
        return found

    def id_to_token(self, token_id: int) -> str:
        """The name of a token, as the vocabulary has it.

        Raises:
            InputError: There is no such id.
        """
        token = self._parsing.id_to_token(token_id) if token_id >= 0 else None
        if token is None:
            raise InputError(
                f"there is no token {token_id}: the vocabulary has {self.vocab_size}",
                where=self._source.where,
            )
        return str(token)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token by its name; None where there is none."""
        index = self._parsing.token_to_id(token)
        return None if index is None else int(index)

    # -- chats ---------------------------------------------------------------------------------

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
    ) -> str:
        """A conversation as the checkpoint's chat template writes it.

        Args:
            messages: Objects with `role` and `content`, oldest first.
            add_generation_prompt: End with the beginning of the assistant's answer.
            tools: JSON schemas of functions, for templates that know tools.
            template: Another template than the checkpoint's, as text.

        Raises:
            InputError: There is no template, or it refuses the messages; the line is named.
        """
        names = {"bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id, "unk": self.unk_id}
        return self._template(template, tools is not None).render(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            tokens={f"{n}_token": self.id_to_token(i) for n, i in names.items() if i is not None},
        )

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
    ) -> list[int]:
        """The ids of a conversation; see `render`.

        The template's special tokens are read as such; those that a message spells out stay text.
        `bos_id` comes first if the template writes it or the checkpoint wants it, never twice.
        """
        guard = self.guard([list(messages), list(tools or ())])
        rendered = self.render(
            guard.mark(list(messages)),
            add_generation_prompt=add_generation_prompt,
            tools=guard.mark(tools),
            template=template,
        )
        return self.encode_turns([rendered], guard)[0]

    def guard(self, value: Any) -> Guard:
        """What keeps the texts within `value` from being read as special tokens.

        `guard.mark(value)` is then given to `render`, and what comes of it to `encode_turns`.
        """
        return Guard.of(value, self._special_pattern)

    def encode_turns(self, parts: Sequence[str], guard: Guard) -> list[list[int]]:
        """The ids of a rendered conversation, in parts that are each encoded by themselves.

        Cut where the model begins and ends to speak, it has the ids that generation is given and
        gives, whatever the tokenizer would have merged across the cut. A part in the middle of a
        text is not given the space that a beginning has.

        Args:
            parts: What `render` wrote of marked messages, cut anywhere.
            guard: The guard that marked them.
        """
        found: list[list[int]] = []
        at_start, in_text = True, False
        for part in parts:
            cut = in_text or (self._prefixes_once and not at_start)
            found.append(self._encode_part(part, guard, cut=cut))
            if part:
                at_start, in_text = False, guard.ends_in_text(part)
        if found and self.add_bos and found[0][:1] != [self.bos_id]:
            found[0] = self._frame("bos", self.bos_id, True) + found[0]
        return found

    # -- writing -------------------------------------------------------------------------------

    def to_files(self) -> dict[str, bytes]:
        """The tokenizer as transformers reads it: tokenizer.json and what goes beside it."""
        return export.to_files(self, self._parsing, self._roles)

    def to_gguf(self) -> dict[str, Any]:
        """The tokenizer as `tokenizer.*` metadata that llama.cpp reads; plain Python values.

        There are as many tokens as the model has rows, which llama.cpp asks for: rows that no
        token uses are named `[PADn]` and typed as unused.

        Raises:
            InputError: GGUF has no way to say it (a Unigram model, an unnamed pre-tokenizer).
        """
        return export.to_gguf(self, self._source, self._roles, rows=self._model_size)

    # -- within --------------------------------------------------------------------------------

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return pattern_of(self.special_tokens)

    @cached_property
    def words(self) -> WordEncoder | None:
        """Encodes word by word; None where the vocabulary does not cut text into words."""
        return WordEncoder.of(self._plain)

    @cached_property
    def _continuing(self) -> Backend:
        return continuing(self._plain)

    @cached_property
    def _prefixes_once(self) -> bool:
        return prefixes_once(self._parsing)

    def _encode_part(self, part: str, guard: Guard, *, cut: bool) -> list[int]:
        ids: list[int] = []
        for start, text, only_text in guard.stretches(part, cut=cut):
            continues = self._prefixes_once if start else cut
            plain = self._continuing if continues else self._plain
            ids += _encode(plain if only_text else self._parsing, [text])[0]
        return ids

    def _spoken(self, token_id: int) -> bytes:
        return b"" if token_id in self._special_ids else self.token_bytes(token_id)

    def _read_bytes(self, token_id: int) -> bytes:
        if self.vocab_size <= token_id < self._model_size:
            return b""  # a row of the embedding that no token uses
        token = self.id_to_token(token_id)
        if self.scheme == "byte_level":
            return to_bytes(token)
        byte = byte_of(token)
        if byte is not None:
            return byte
        return token.replace(SPACE, " ").encode("utf-8")

    def _frame(self, name: str, token_id: int | None, wanted: bool) -> list[int]:
        if not wanted:
            return []
        if token_id is None:
            raise InputError(f"the vocabulary has no {name} token", where=self._source.where)
        return [token_id]

    def _template(self, text: str | None, with_tools: bool) -> ChatTemplate:
        templates = self._roles.templates
        if text is None:
            name = "tool_use" if with_tools and "tool_use" in templates else DEFAULT_TEMPLATE
            text = templates.get(name)
        if text is None:
            raise InputError(
                "the checkpoint has no chat template",
                where=self._source.where,
                fix="name one of puna.tokens.BUILTIN_TEMPLATES, or use an instruction-tuned model",
            )
        if text not in self._compiled:
            self._compiled[text] = ChatTemplate(text, where=self._source.where)
        return self._compiled[text]

    def _check_ids(self, model_size: int | None) -> None:
        if model_size is not None and self.vocab_size > model_size:
            raise InputError(
                f"the vocabulary has {self.vocab_size} tokens; the model's embedding has "
                f"{model_size} rows",
                where=self._source.where,
                fix="this tokenizer belongs to another model, or tokens were added to it since",
            )
        roles = {"bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id, "unk": self.unk_id}
        for name, index in [*roles.items(), *(("stop", index) for index in self.stop_ids)]:
            if index is not None and not 0 <= index < self._model_size:
                raise InputError(
                    f"the {name} token has the id {index}; the vocabulary has {self.vocab_size}",
                    where=self._source.where,
                )


def _encode(backend: Backend, texts: Sequence[str]) -> list[list[int]]:
    try:
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
    except (TypeError, UnicodeEncodeError) as error:
        raise _not_text(texts) from error
    return [encoding.ids for encoding in encodings]


def _not_text(texts: Sequence[str]) -> InputError:
    items: Sequence[object] = texts  # what was passed may not be what was asked for
    for item in items:
        if not isinstance(item, str):
            return InputError(f"expected a text to encode, found {type(item).__name__}")
        try:
            item.encode("utf-8")
        except UnicodeEncodeError as error:
            return InputError(
                f"the text is not valid Unicode: a lone surrogate at character {error.start}",
                fix="read the text with errors='replace', or find out where it was cut",
            )
    return InputError("expected texts to encode")
