"""Bytes to text: which encoding it is, how that was found, and how much of it did not fit."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from puna.errors import require

_MARKS = (  # UTF-32 before UTF-16, whose mark its own begins with
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What pages call an encoding, and the larger one that browsers take (WHATWG, Encoding Standard).
_LARGER = MappingProxyType(
    {
        "ascii": "cp1252",
        "iso8859-1": "cp1252",
        "iso8859-9": "cp1254",
        "iso8859-11": "cp874",
        "tis-620": "cp874",
        "gb2312": "gb18030",
        "gbk": "gb18030",
        "big5": "big5hkscs",
        "shift_jis": "cp932",
        "euc_kr": "cp949",
    }
)
_ALIASES = MappingProxyType(
    {
        "x-sjis": "cp932",
        "windows-31j": "cp932",
        "ks_c_5601-1987": "cp949",
        "x-gbk": "gb18030",
        "x-x-big5": "big5hkscs",
        "x-cp1251": "cp1251",
        "windows-874": "cp874",
        "utf8mb4": "utf-8",
        "unicode": "utf-8",
    }
)
_META = re.compile(rb"<meta\b[^<>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.I)
_XML = re.compile(rb"^\s*<\?xml[^<>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{2,40})[\"']")
_NO_ENCODINGS = frozenset(("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"))
_META_WITHIN_BYTES = 4096  # the standard says 1024; pages that put scripts first are many
_SINGLE_BYTE = re.compile(r"cp(?:125\d|874|866|437|850)|iso8859-\d+|koi8-[ru]|mac[-_]\w+|latin")
# A text with this many sound characters of several bytes to each unsound byte is UTF-8 all the
# same: other encodings hardly ever form one.
_SOUND_TO_UNSOUND = 4


@dataclass(frozen=True)
class Decoded:
    """Text, and how it was come by."""

    text: str
    """Without a byte order mark; U+FFFD stands for what did not fit."""
    encoding: str
    """By its name in Python."""
    found_by: str
    """mark, http, meta, utf-8, guess or config."""
    replaced: int = 0
    """How many U+FFFD stand for bytes that did not fit."""

    def metadata(self) -> dict[str, Any]:
        """What documents keep of it."""
        told: dict[str, Any] = {"encoding": self.encoding, "encoding_by": self.found_by}
        return told | ({"replaced": self.replaced} if self.replaced else {})


def decode(data: bytes, *, declared: str | None = None, encoding: str = "auto") -> Decoded:
    """Text of bytes, in the encoding that is most likely.

    In this order: what the caller says; a byte order mark; what HTTP or the page itself declares;
    UTF-8; a guess from frequencies. A declared encoding that the bytes do not fit is passed over,
    and so is one of one byte per character where the bytes are UTF-8 beyond ASCII: servers declare
    Latin-1 by default, and no Latin-1 text looks like that.

    Args:
        data: All bytes of a document.
        declared: The charset of an HTTP header.
        encoding: A codec, which then decides; "auto" for the above.

    Raises:
        MissingPackageError: A guess is needed, and resiliparse is not installed.
    """
    if encoding != "auto":
        return _lenient(data, codecs.lookup(encoding).name, "config")
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _lenient(data[len(mark) :], name, "mark")
    utf8 = _strict(data, "utf-8", "utf-8")
    for charset, found_by in ((declared, "http"), (_own_charset(data), "meta")):
        codec = python_name(charset) if charset else None
        if codec is None:
            continue
        if utf8 is not None and (codec == "utf-8" or _SINGLE_BYTE.match(codec)):
            by = found_by if codec == "utf-8" or data.isascii() else "utf-8"
            return Decoded(utf8.text, "utf-8", by)
        found = _strict(data, codec, found_by)
        if found is not None:
            return found
    return utf8 or _nearly_utf8(data) or _guess(data)


def python_name(charset: str) -> str | None:
    """Python's name of what a page calls its encoding; None for one that is not known."""
    label = charset.strip().strip("\"'").lower()
    label = _ALIASES.get(label, label)
    try:
        info = codecs.lookup(label)
    except (LookupError, ValueError):
        return None
    if not info._is_text_encoding or info.name.replace("-", "_") in _NO_ENCODINGS:
        return None
    if info.name.startswith(("utf-16", "utf-32", "utf-7")):
        return "utf-8"  # a declaration that could be read as ASCII; so say browsers, too
    return _LARGER.get(info.name, info.name)


def _own_charset(data: bytes) -> str | None:
    head = data[:_META_WITHIN_BYTES]
    match = _META.search(head) or _XML.match(head)
    return match.group(1).decode("ascii") if match else None


def _strict(data: bytes, name: str, found_by: str) -> Decoded | None:
    try:
        return Decoded(data.decode(name), name, found_by)
    except (UnicodeError, ValueError):
        return None


def _lenient(data: bytes, name: str, found_by: str) -> Decoded:
    text = data.decode(name, "replace")
    fits = _strict(data, name, found_by)
    return fits or Decoded(text, name, found_by, max(1, text.count("\ufffd")))


def _nearly_utf8(data: bytes) -> Decoded | None:
    text = data.decode("utf-8", "replace")
    unsound = text.count("\ufffd")
    sound = len(text) - unsound - _ascii_count(data)
    if sound >= _SOUND_TO_UNSOUND * unsound or (unsound == 1 and _cut(data)):
        return Decoded(text, "utf-8", "utf-8", unsound)
    return None


def _cut(data: bytes) -> bool:
    """Whether the only fault of UTF-8 is that it ends within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def _ascii_count(data: bytes) -> int:
    return len(data.translate(None, bytes(range(128, 256))))


def _guess(data: bytes) -> Decoded:
    detect: Any = require(
        "resiliparse.parse.encoding", extra="corpus", purpose="guessing the encoding of text"
    )
    name = python_name(detect.detect_encoding(data)) or "cp1252"
    return _lenient(data, name, "guess")
