"""Rows to documents, and the two formats that have one of them in each line: JSONL and text."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from puna.corpus.read.streams import ByteStream, byte_lines, open_piece, size_in_words
from puna.corpus.read.units import Piece, ReadConfig, Unread
from puna.corpus.schema import Found
from puna.records.items import lookup
from puna.records.row import kind_of

Read = Iterator[Found | Unread]

MAX_ROW_METADATA_BYTES = 16 << 10
NOT_DECODED = "holds bytes that its encoding does not know"
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def read_jsonl(piece: Piece, config: ReadConfig) -> Read:
    """A document of each line that holds a JSON object with text in its column.

    A piece that begins within a line leaves that line to the piece before.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    for locator, line in _lines(piece, config):
        if isinstance(line, Unread):
            yield line
        elif line and not line.isspace():
            yield _json_document(line, decoder, locator, config)


def read_text_lines(piece: Piece, config: ReadConfig) -> Read:
    """A document of each line of plain text that is not blank."""
    for locator, line in _lines(piece, config):
        if isinstance(line, Unread):
            yield line
        elif line and not line.isspace():
            try:
                text = line.decode(_codec(config))
            except UnicodeDecodeError as error:
                yield Unread(locator, NOT_DECODED, f"byte {error.start + 1} of the line")
                continue
            yield Found(locator, text, license=config.license, language=config.language)


def row_document(values: Mapping[str, Any], locator: str, config: ReadConfig) -> Found | Unread:
    """A row as a document: its columns, those that the configuration names by what they hold."""
    text = _value(values, config.text)
    if not isinstance(text, str):
        if text is None and config.text not in values:
            names = ", ".join(repr(name[:40]) for name in list(values)[:12]) or "none"
            return Unread(locator, f"has no column {config.text!r}", f"there are {names}")
        return Unread(locator, f"the column {config.text!r} holds no text", kind_of(text))
    if not text or text.isspace():
        return Unread(locator, "is empty")
    if len(text) > config.max_document_bytes:
        reason = f"is longer than {size_in_words(config.max_document_bytes)}"
        return Unread(locator, reason, f"{len(text):,} characters")
    text, replaced = without_half_pairs(text)
    columns = config.columns
    used = {config.text, columns.url, columns.date, columns.license, columns.language}
    metadata = _row_metadata({name: v for name, v in values.items() if name not in used})
    return Found(
        locator,
        text,
        url=_word(_value(values, columns.url)),
        date=_word(_value(values, columns.date)),
        license=_word(_value(values, columns.license)) or config.license,
        language=_word(_value(values, columns.language)) or config.language,
        metadata=metadata | ({"replaced": replaced} if replaced else {}),
    )


def _value(values: Mapping[str, Any], name: str) -> Any:
    return values.get(name) if name in values or "." not in name else lookup(values, name)


def without_half_pairs(text: str) -> tuple[str, int]:
    """A text that UTF-8 can hold: U+FFFD for halves of surrogate pairs, and how many there were."""
    return (text, 0) if fits_utf8(text) else _HALF_PAIR.subn("\ufffd", text)


def fits_utf8(text: str) -> bool:
    """Whether UTF-8 can hold a text; trying is ten times as fast as looking for what it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def damaged_end(stream: ByteStream) -> Read:
    """What there is to tell when a stream has ended: nothing, or why it did so too early."""
    if stream.damage is not None:
        yield stream.damage


def _lines(piece: Piece, config: ReadConfig) -> Iterator[tuple[str, bytes | Unread]]:
    # One byte back: whether the piece begins with a line is told by the byte before it.
    start = max(0, piece.start - 1)
    with open_piece(piece, start) as stream:
        if isinstance(stream, Unread):
            yield stream.locator, stream
            return
        if piece.start:
            stream.skip_line(piece.stop)
        for found in byte_lines(stream, config.max_document_bytes, piece.stop):
            if isinstance(found, Unread):
                yield found.locator, found
                continue
            at, line = found
            if at == 0:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    reason = "is UTF-16, and lines are read of UTF-8 only"
                    yield piece.place, Unread(piece.place, reason, "iconv -f UTF-16 -t UTF-8")
                    return
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield f"{piece.place}@{at}", line
        for broken in damaged_end(stream):
            assert isinstance(broken, Unread)
            yield broken.locator, broken


def _codec(config: ReadConfig) -> str:
    return "utf-8" if config.encoding == "auto" else config.encoding


def _json_document(
    line: bytes, decoder: msgspec.json.Decoder[dict[str, Any]], locator: str, config: ReadConfig
) -> Found | Unread:
    try:
        text = line if _codec(config) == "utf-8" else line.decode(_codec(config))
        return row_document(_object(text, decoder), locator, config)
    except UnicodeDecodeError as error:
        return Unread(locator, NOT_DECODED, f"byte {error.start + 1} of the line")
    except json.JSONDecodeError as error:
        return Unread(locator, "is not JSON", f"{error.msg} at column {error.colno}")
    except RecursionError:
        return Unread(locator, "is JSON nested too deeply")
    except TypeError as error:
        return Unread(locator, "is no JSON object", str(error))


def _object(line: bytes | str, decoder: msgspec.json.Decoder[dict[str, Any]]) -> dict[str, Any]:
    """The object that a line holds; the standard library reads what the strict decoder refuses.

    That is NaN and halves of surrogate pairs, which data sets written by Python hold.
    """
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = line if isinstance(line, str) else line.decode()
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            raise
        except ValueError as error:  # an integer of thousands of digits
            raise TypeError(str(error).partition(";")[0]) from error
        if not isinstance(value, dict):
            raise TypeError(kind_of(value)) from None
        return value


def _row_metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that are not used otherwise; what is too large to carry along is only named."""
    if not values:
        return {}
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    room = MAX_ROW_METADATA_BYTES
    for name, value in values.items():
        try:
            plain = _plain(value)
            size = len(name) + _size(plain)
        except (TypeError, ValueError, RecursionError):
            left_out.append(name)
            continue
        if size > room:
            left_out.append(name)
        else:
            room -= size
            kept[without_half_pairs(name)[0]] = plain
    told = {"row": kept} if kept else {}
    return told | ({"left_out": sorted(name[:100] for name in left_out)[:50]} if left_out else {})


def _size(plain: Any) -> int:
    """About how long a JSON value is."""
    if isinstance(plain, str):
        return len(plain)
    return 20 if isinstance(plain, int | float | None) else len(json.dumps(plain))


def _plain(value: Any, depth: int = 20) -> Any:
    """A value as JSON can hold it.

    Raises:
        TypeError: It cannot.
    """
    if isinstance(value, str):
        return without_half_pairs(value)[0]
    if value is None or isinstance(value, int):  # and true and false, which are such
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if not depth:
        raise TypeError("nested too deeply")
    if isinstance(value, Mapping):
        return {
            without_half_pairs(str(key))[0]: _plain(item, depth - 1) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    raise TypeError(type(value).__name__)


def _word(value: Any) -> str | None:
    """A value of a column that holds a word; what is none (a list, an object) does not count."""
    if value is None:
        return None
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, str) and value.strip():
        return without_half_pairs(value.strip())[0]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
