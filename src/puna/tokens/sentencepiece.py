"""SentencePiece's `tokenizer.model`: a small bounded reader of its protobuf, and what it means.

Source: sentencepiece_model.proto and the protobuf wire format. Fields that do not change how text
is tokenized are skipped; what would change it and cannot be honoured is refused by name.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from puna.errors import InputError
from puna.tokens.spm import SpmRules
from puna.tokens.vocabulary import TokenType, Vocabulary

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_Field = int | bytes


@dataclass(frozen=True)
class SentencePieceModel:
    """What a `tokenizer.model` says. Ids are -1 where the vocabulary has no such token."""

    vocabulary: Vocabulary
    rules: SpmRules
    bos_id: int
    eos_id: int
    pad_id: int


def looks_like_sentencepiece(data: bytes) -> bool:
    """Whether a `tokenizer.model` begins as a ModelProto does: field 1, a message."""
    return data[:1] == b"\x0a"


def read_sentencepiece(data: bytes, *, where: Path | str) -> SentencePieceModel:
    """Read a SentencePiece model file of type BPE or Unigram.

    Raises:
        InputError: The bytes are not such a model, are cut off, or ask for what is not supported
            (word and character models, spaces as suffixes, denormalization).
    """
    reader = _Reader(data, where)
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, _Field] = {}
    normalizer: dict[int, _Field] = {}
    for number, value in reader.fields(0, len(data)):
        if number not in (1, 2, 3, 5):
            continue
        span = reader.message(number, value)
        if number == 1:
            pieces.append(_piece(reader, span, len(pieces)))
        elif number == 2:
            trainer.update(reader.fields_of(span))
        elif number == 3:
            normalizer.update(reader.fields_of(span))
        elif dict(reader.fields_of(span)).get(2):
            raise InputError("has a denormalizer, which is not supported", where=where)
    if not pieces or not trainer or not normalizer:
        parts = {"pieces": pieces, "trainer settings": trainer, "normalizer settings": normalizer}
        missing = " and ".join(name for name, part in parts.items() if not part)
        raise InputError(f"is not a SentencePiece model, or is cut off: no {missing}", where=where)
    tokens, scores, types = zip(*pieces, strict=True)
    vocabulary = Vocabulary(tokens, types, scores).checked(where)
    return _model(vocabulary, _Settings(trainer, where), _Settings(normalizer, where))


def _model(vocabulary: Vocabulary, trainer: _Settings, normalizer: _Settings) -> SentencePieceModel:
    where = trainer.where
    kind = _MODEL_TYPES.get(trainer.integer(3, 1), "unknown")
    if kind not in ("unigram", "bpe"):
        raise InputError(f"is a {kind} model; expected a BPE or Unigram model", where=where)
    if trainer.integer(24, 0):
        raise InputError("writes spaces as suffixes, which is not supported", where=where)
    if not normalizer.integer(5, 1):
        raise InputError("does not escape spaces, which is not supported", where=where)
    unknown = vocabulary.ids(TokenType.UNKNOWN)
    if len(unknown) != 1:
        raise InputError(f"expected one unknown piece, found {len(unknown)}", where=where)
    controls = {vocabulary.tokens[index]: index for index in vocabulary.ids(TokenType.CONTROL)}
    rules = SpmRules(
        kind="bpe" if kind == "bpe" else "unigram",
        unk_id=unknown[0],
        byte_fallback=bool(trainer.integer(35, 0)),
        add_dummy_prefix=bool(normalizer.integer(3, 1)),
        remove_extra_whitespaces=bool(normalizer.integer(4, 1)),
        charsmap=normalizer.raw(2),
        nfkc="nfkc" in normalizer.text(1, ""),
    )
    return SentencePieceModel(
        vocabulary,
        rules,
        bos_id=controls.get(trainer.text(46, "<s>"), -1),
        eos_id=controls.get(trainer.text(47, "</s>"), -1),
        pad_id=controls.get(trainer.text(48, "<pad>"), -1),
    )


def _piece(reader: _Reader, span: tuple[int, int], index: int) -> tuple[str, float, int]:
    """One entry of the vocabulary: text, score, type."""
    text, score, kind = "", 0.0, int(TokenType.NORMAL)
    where = reader.where
    for number, value in reader.fields(*span):
        if number == 1:
            try:
                text = reader.bytes_of(reader.message(number, value)).decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"piece {index} is not UTF-8", where=where) from error
        elif number == 2:
            if not isinstance(value, bytes):
                raise InputError(f"piece {index} has a score that is no float", where=where)
            score = struct.unpack("<f", value)[0] if len(value) == 4 else math.nan
        elif number == 3 and isinstance(value, int):
            kind = value
    if not text or kind not in TokenType._value2member_map_ or not math.isfinite(score):
        raise InputError(
            f"piece {index} is not valid: text {text!r}, score {score}, type {kind}", where=where
        )
    return text, score, kind


@dataclass(frozen=True)
class _Settings:
    """The last value of each field of a message, with the type that the format gives it."""

    fields: dict[int, _Field]
    where: Path | str

    def integer(self, number: int, default: int) -> int:
        value = self.fields.get(number, default)
        if not isinstance(value, int):
            raise InputError(f"field {number} is not a number", where=self.where)
        return value

    def raw(self, number: int) -> bytes:
        value = self.fields.get(number, b"")
        if not isinstance(value, bytes):
            raise InputError(f"field {number} is not a string", where=self.where)
        return value

    def text(self, number: int, default: str) -> str:
        try:
            return self.raw(number).decode("utf-8") or default
        except UnicodeDecodeError as error:
            raise InputError(f"field {number} is not UTF-8", where=self.where) from error


class _Span(tuple[int, int]):
    """Where the bytes of a field lie: start and end."""

    __slots__ = ()


class _Reader:
    """The protobuf wire format; never reads past `end`, never allocates what is not there."""

    def __init__(self, data: bytes, where: Path | str):
        self.data, self.where = data, where

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int | bytes | _Span]]:
        """The fields of the message in `data[start:end]`: number, and a value by wire type."""
        position = start
        while position < end:
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, position = self._varint(position, end)
                yield number, value
            elif wire in (_FIXED32, _FIXED64):
                stop = self._within(position, 4 if wire == _FIXED32 else 8, end)
                yield number, self.data[position:stop]
                position = stop
            elif wire == _BYTES:
                length, position = self._varint(position, end)
                stop = self._within(position, length, end)
                yield number, _Span((position, stop))
                position = stop
            else:
                raise self._broken(f"wire type {wire}", position)

    def fields_of(self, span: tuple[int, int]) -> Iterator[tuple[int, _Field]]:
        """The fields of a message, strings as bytes."""
        for number, value in self.fields(*span):
            yield number, self.bytes_of(value) if isinstance(value, _Span) else value

    def message(self, number: int, value: int | bytes | _Span) -> tuple[int, int]:
        """The span of a field that must be a message or a string."""
        if not isinstance(value, _Span):
            raise InputError(
                f"is not a SentencePiece model: field {number} is no message", where=self.where
            )
        return value

    def bytes_of(self, span: tuple[int, int]) -> bytes:
        """The bytes of a span."""
        return self.data[span[0] : span[1]]

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                raise self._broken("the data end amid a number", position)
            byte = self.data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise self._broken("a number of more than 10 bytes", position)

    def _within(self, position: int, length: int, end: int) -> int:
        if length > end - position:
            raise self._broken(
                f"a field of {length} bytes where {end - position} are left", position
            )
        return position + length

    def _broken(self, what: str, position: int) -> InputError:
        return InputError(
            f"is not a SentencePiece model, or is cut off: {what} at byte {position}",
            where=self.where,
        )
