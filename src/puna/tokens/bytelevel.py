"""Byte-level BPE: bytes as printable characters (GPT-2's alphabet), and bytes back as text."""

from __future__ import annotations

import codecs
import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from puna.errors import InputError
from puna.tokens.pretokenizers import PRE
from puna.tokens.vocabulary import Merge, TokenType, Vocabulary


@functools.cache
def alphabet() -> Mapping[int, str]:
    """The character that stands for each byte in a byte-level vocabulary.

    Source: `bytes_to_unicode` in GPT-2's encoder.py.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {byte: chr(byte) for byte in printable}
    table |= {byte: chr(256 + offset) for offset, byte in enumerate(others)}
    return MappingProxyType(table)


@functools.cache
def _inverse() -> Mapping[int, int]:
    return MappingProxyType({ord(char): byte for byte, char in alphabet().items()})


def to_bytes(token: str) -> bytes:
    """The bytes that a byte-level token stands for.

    A token with a character outside the alphabet is an added one, written as itself.
    """
    inverse = _inverse()
    try:
        return bytes([inverse[ord(char)] for char in token])
    except KeyError:
        return token.encode("utf-8")


def to_token(data: bytes) -> str:
    """The byte-level token for some bytes."""
    return data.decode("latin-1").translate(alphabet())


def decode_utf8(data: bytes, *, each_byte: bool, final: bool) -> tuple[str, int]:
    """Decode bytes, with U+FFFD for what is not UTF-8; returns the text and the bytes consumed.

    Args:
        data: The bytes.
        each_byte: One U+FFFD per wrong byte, as SentencePiece has it; otherwise one per maximal
            ill-formed part, as Unicode recommends and byte-level tokenizers do.
        final: No more bytes follow. Otherwise a character that is not complete yet is left over.
    """
    parts: list[str] = []
    start = 0
    while True:
        try:
            text, consumed = codecs.utf_8_decode(data[start:], "strict", final)
        except UnicodeDecodeError as error:
            parts.append(data[start : start + error.start].decode("utf-8"))
            parts.append("\ufffd" * (error.end - error.start if each_byte else 1))
            start += error.end
            continue
        parts.append(text)
        return "".join(parts), start + consumed


def build_byte_level(
    vocabulary: Vocabulary, merges: list[Merge], *, pre: str, where: Path | str = ""
) -> Backend:
    """The backend of a byte-level BPE vocabulary.

    Raises:
        InputError: The merges name tokens that the vocabulary does not have.
    """
    rules = PRE[pre]
    core = vocabulary.core(TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    try:
        model = models.BPE(vocab=core, merges=merges, ignore_merges=rules.ignore_merges)
    except Exception as error:  # the library has no exception type of its own
        raise InputError(f"the merges do not fit the tokens: {error}", where=where) from error
    backend = Backend(model)
    backend.pre_tokenizer = rules.build()
    backend.decoder = decoders.ByteLevel()
    special = vocabulary.ids(TokenType.CONTROL, TokenType.UNKNOWN)
    plain = vocabulary.ids(TokenType.USER_DEFINED)
    vocabulary.add_to(backend, special=special, plain=plain)
    return backend
