"""Files that are one document each: HTML, plain text, Markdown, and code by its language."""

from __future__ import annotations

import html
import re
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from puna.corpus.read.code import code_fault, language_of
from puna.corpus.read.encoding import Decoded, decode
from puna.corpus.read.rows import Read, damaged_end, without_half_pairs
from puna.corpus.read.streams import ByteStream, open_piece, size_in_words
from puna.corpus.read.units import Format, Piece, ReadConfig, Unread
from puna.corpus.schema import Found

_BINARY_WITHIN_BYTES = 8000  # as git tells text from binary
_PART_BYTES = 256 << 10
_HEAD_CHARACTERS = 64 << 10
_LINK = re.compile(r"<(?:link|meta)\b[^<>]{0,1000}>", re.I)
_ATTRIBUTE = re.compile(r"([a-z:-]{1,30})\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'<>]+))", re.I)
_HTML_TAG = re.compile(r"<html\b([^<>]{0,1000})>", re.I)
_LANGUAGE = re.compile(r"([a-zA-Z]{2,3})(?:[-_][\w-]+)?")


def read_html(piece: Piece, config: ReadConfig) -> Read:
    """The page that a file holds, as HTML; extracting its text is a step."""
    yield from _read_whole(piece, config, "html")


def read_text(piece: Piece, config: ReadConfig) -> Read:
    """The text that a file holds."""
    yield from _read_whole(piece, config, "text")


def read_markdown(piece: Piece, config: ReadConfig) -> Read:
    """The Markdown that a file holds, with its front matter."""
    yield from _read_whole(piece, config, "markdown")


def read_code(piece: Piece, config: ReadConfig) -> Read:
    """The code that a file holds, unless nobody wrote it or it is not of this project."""
    yield from _read_whole(piece, config, "code")


def page_document(
    locator: str,
    page: Decoded,
    config: ReadConfig,
    fetched: tuple[str | None, str | None] = (None, None),
    *,
    cut: bool = False,
) -> Found:
    """A page with what it says about itself: its language, and its address where none is known.

    Args:
        locator: Where it was found.
        page: Its HTML.
        config: Of the source.
        fetched: From where it was fetched and when, as far as that is known.
        cut: Whether it is known to lack its end.
    """
    url, date = fetched
    head = page.text[:_HEAD_CHARACTERS]
    metadata: dict[str, Any] = {"format": "html", **page.metadata()}
    metadata |= {"cut": True} if cut else {}
    if url is None and (own := _own_address(head)):
        url, metadata["url_by"] = own, "page"
    return Found(
        locator,
        page.text,
        url=url,
        date=date,
        license=config.license,
        language=_own_language(head) or config.language,
        metadata=metadata,
    )


def _read_whole(piece: Piece, config: ReadConfig, format: Format) -> Read:
    if format == "code" and (fault := code_fault(piece.path)):
        yield Unread(piece.place, fault)
        return
    with open_piece(piece) as stream:
        if isinstance(stream, Unread):
            yield stream
            return
        data, fault = _content(stream, config)
        if not fault and format == "code":
            fault = code_fault(piece.path, data)
        if fault:
            yield Unread(piece.place, fault, f"{piece.size:,} bytes on disk")
        elif stream.damage is None or data.strip():
            yield _document(piece, data, format, config, cut=stream.damage is not None)
        yield from damaged_end(stream)


def _content(stream: ByteStream, config: ReadConfig) -> tuple[bytes, str]:
    """The bytes of a document, and why they cannot be used ("" for nothing)."""
    data = _bytes(stream, config.max_document_bytes + 1)
    if len(data) > config.max_document_bytes:
        return b"", f"is longer than {size_in_words(config.max_document_bytes)}"
    if stream.damage is None and not data.strip():
        return b"", "is empty"
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"))
    if not wide and config.encoding == "auto" and b"\0" in data[:_BINARY_WITHIN_BYTES]:
        return b"", "is binary, not text"
    return data, ""


def _bytes(stream: ByteStream, limit: int) -> bytes:
    """At most `limit` bytes; room is taken as they come, for most files are far below it."""
    parts: list[bytes] = []
    left = limit
    while left and (part := stream.read(min(left, _PART_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _document(piece: Piece, data: bytes, format: Format, config: ReadConfig, *, cut: bool) -> Found:
    decoded = decode(data, encoding=config.encoding)
    text, halves = without_half_pairs(decoded.text)
    decoded = Decoded(text, decoded.encoding, decoded.found_by, decoded.replaced + halves)
    if format == "html":
        return page_document(piece.place, decoded, config, cut=cut)
    metadata = {"format": format, **decoded.metadata()} | ({"cut": True} if cut else {})
    if format == "code":
        metadata["code"] = language_of(PurePath(piece.path))
    return Found(
        piece.place,
        text.replace("\r\n", "\n"),
        license=config.license,
        language=config.language,
        metadata=metadata,
    )


def _own_address(head: str) -> str | None:
    """What a page says that its address is: its canonical link, or `og:url`."""
    for match in _LINK.finditer(head):
        tag = match.group()
        if "canonical" not in tag and "og:url" not in tag:
            continue
        said = _attributes(tag)
        address = ""
        if said.get("rel", "").lower() == "canonical":
            address = said.get("href", "")
        elif "og:url" in (said.get("property"), said.get("name")):
            address = said.get("content", "")
        if _is_address(address):
            return address
    return None


def _attributes(tag: str) -> dict[str, str]:
    found = _ATTRIBUTE.findall(tag)
    return {name.lower(): html.unescape(a or b or c) for name, a, b, c in found}


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _own_language(head: str) -> str | None:
    tag = _HTML_TAG.search(head)
    if tag is None:
        return None
    said = _attributes(tag.group(1))
    match = _LANGUAGE.fullmatch((said.get("lang") or said.get("xml:lang") or "").strip())
    return match.group(1).lower() if match else None
