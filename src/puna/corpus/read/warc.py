"""WARC and WET: the pages of crawls, one record after the other, with nothing lost in silence.

The records are taken apart here, not by a library: so a record that is damaged, too long or of no
use is told with its place, reading goes on behind it, and zstd is read as gzip is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from puna.corpus.read.encoding import Decoded, decode
from puna.corpus.read.http import (
    MAX_HEAD_BYTES,
    Answer,
    charset,
    media_type,
    parse_answer,
    parse_headers,
    plain_body,
)
from puna.corpus.read.members import GzipMembers
from puna.corpus.read.rows import Read, damaged_end, without_half_pairs
from puna.corpus.read.streams import ByteStream, open_piece, size_in_words
from puna.corpus.read.units import Piece, ReadConfig, Unread
from puna.corpus.read.whole import page_document
from puna.corpus.schema import Found

_BEGINS = b"WARC/"
_VERSION = re.compile(rb"WARC/\d\.\d+\s*$")
_LENGTH = re.compile(r"\d{1,15}")
_HTML = frozenset(("text/html", "application/xhtml+xml"))
_TEXT = frozenset(("text/plain", "text/markdown", "text/x-markdown"))
_SILENT = frozenset(("", "application/octet-stream", "unknown/unknown", "application/unknown"))
_WITH_BODY = frozenset(("response", "resource", "conversion"))
_NO_DOCUMENTS = frozenset(("warcinfo", "request", "metadata"))
_HTML_BEGINS = re.compile(rb"\s*<(!doctype\s+html|html|head|body)\b", re.I)
_LINE_BYTES = 64 << 10
_NO_RECORD = "holds something that is no WARC record"
_TWO_LETTERS = (  # ISO 639-3 to ISO 639-1, of the languages that crawls hold most of
    " ara:ar ben:bn bul:bg cat:ca ces:cs dan:da deu:de ell:el eng:en est:et eus:eu fas:fa fin:fi"
    " fra:fr glg:gl heb:he hin:hi hrv:hr hun:hu ind:id isl:is ita:it jpn:ja kat:ka kaz:kk kor:ko"
    " lav:lv lit:lt mar:mr mkd:mk msa:ms nld:nl nob:nb nno:nn nor:no pol:pl por:pt ron:ro rus:ru"
    " slk:sk slv:sl spa:es sqi:sq srp:sr swe:sv tam:ta tel:te tha:th tur:tr ukr:uk urd:ur vie:vi"
    " zho:zh"
)


@dataclass(frozen=True)
class _Record:
    locator: str
    headers: Mapping[str, str]
    block: bytes

    @property
    def kind(self) -> str:
        return self.headers.get("warc-type", "").lower()


def read_warc(piece: Piece, config: ReadConfig) -> Read:
    """The pages and plain texts of a WARC or WET file.

    Those are answers of status 200 (response), files (resource) and texts made of pages
    (conversion); records about the crawl itself (warcinfo, request, metadata) are no documents.
    Every other record is put aside. A record is located by the byte that its gzip member begins
    at, as indexes of crawls do; in a file that is plain or zstd by its place in the expanded data.
    """
    with open_piece(piece) as stream:
        if isinstance(stream, Unread):
            yield stream
            return
        for part in _streams(stream, piece):
            if isinstance(part, Unread):
                yield part
                continue
            for record in _records(part, config.max_document_bytes):
                yield record if isinstance(record, Unread) else _document(record, config)
            yield from damaged_end(part)


def _streams(stream: ByteStream, piece: Piece) -> Iterator[ByteStream | Unread]:
    """The stream itself; or of gzip one for each member that begins in the piece.

    A member that is damaged, or bytes that are none, cost nothing of those behind.
    """
    if stream.compression != "gzip":
        yield stream
        return
    members = GzipMembers(stream.file, piece.start)
    found = members.find(_BEGINS) if piece.start else members.is_member()
    while found and (piece.stop is None or members.at < piece.stop):
        at = members.at
        member = ByteStream(piece.place, stream.file, members=members)
        yield member
        while member.read(_LINE_BYTES):
            pass
        if member.damage is not None:
            members.at = at + 1
            found = members.find(_BEGINS)
        elif not (found := members.is_member()) and not members.at_end():
            place = f"{piece.place}@{members.at}"
            yield Unread(place, "holds other bytes behind its compressed data")
            found = members.find(_BEGINS)


def _records(stream: ByteStream, limit_bytes: int) -> Iterator[_Record | Unread]:
    line = b""
    while True:
        at = stream.offset - len(line)
        line = line or stream.readline(_LINE_BYTES)
        if not line:
            return
        if not line.strip():
            line = b""
            continue
        locator = stream.locator(at)
        headers = _headers(stream) if _VERSION.match(line) else None
        length = _LENGTH.fullmatch((headers or {}).get("content-length", ""))
        if headers is None or length is None:
            if stream.damage is None:
                yield Unread(locator, _NO_RECORD, ascii(line[:40])[2:-1])
            line = _next_version(stream)
            continue
        line = b""
        yield from _read_block(stream, locator, headers, int(length.group()), limit_bytes)


def _read_block(
    stream: ByteStream, locator: str, headers: Mapping[str, str], length: int, limit_bytes: int
) -> Iterator[_Record | Unread]:
    record = _Record(locator, headers, b"")
    wanted = record.kind in _WITH_BODY
    if not wanted or length > limit_bytes + MAX_HEAD_BYTES:
        got = stream.skip(length)
        if wanted and got == length:
            reason = f"is longer than {size_in_words(limit_bytes)}"
            yield Unread(locator, reason, f"a record of {length:,} bytes")
        elif got == length and record.kind not in _NO_DOCUMENTS:
            reason = "is a WARC record of a kind that holds no document of its own"
            yield Unread(locator, reason, record.kind[:40])
    else:
        block = stream.read(length)
        got = len(block)
        if got == length:
            yield _Record(locator, headers, block)
    if got < length and stream.damage is None:
        reason = "ends in the middle of a WARC record"
        yield Unread(locator, reason, f"{got:,} of {length:,} bytes")


def _headers(stream: ByteStream) -> dict[str, str] | None:
    lines: list[bytes] = []
    size = 0
    while line := stream.readline(_LINE_BYTES):
        size += len(line)
        if not line.strip():
            return parse_headers(lines)
        if size > MAX_HEAD_BYTES:
            return None
        lines.append(line)
    return None


def _next_version(stream: ByteStream) -> bytes:
    """Go on to the next line that a record may begin with, and return it; b"" at the end."""
    while line := stream.readline(_LINE_BYTES):
        if _VERSION.match(line):
            return line
    return b""


def _document(record: _Record, config: ReadConfig) -> Found | Unread:
    if record.kind != "response":
        header = record.headers.get("content-type", "")
        kind, declared = media_type(header), charset(header)
        return _text_document(record, record.block, kind, declared, config)
    answer = parse_answer(record.block)
    if answer is None:
        kind = media_type(record.headers.get("content-type", ""))
        if kind in _HTML | _TEXT:
            return _text_document(record, record.block, kind, None, config)
        return Unread(record.locator, "holds no HTTP answer", kind[:80])
    if answer.status != 200:
        return Unread(record.locator, "is an answer of another status than 200", str(answer.status))
    return _answered(record, answer, config)


def _answered(record: _Record, answer: Answer, config: ReadConfig) -> Found | Unread:
    body, fault = plain_body(answer, config.max_document_bytes)
    if fault and fault != "cut":
        return Unread(record.locator, "is compressed in a way that is not read", fault)
    if len(body) > config.max_document_bytes:
        reason = f"is longer than {size_in_words(config.max_document_bytes)}"
        return Unread(record.locator, reason, "its body, expanded")
    if fault and not body:
        return Unread(record.locator, "has a body that cannot be expanded")
    kind = answer.media_type
    if kind in _SILENT:
        kind = record.headers.get("warc-identified-payload-type", "").lower()
    return _text_document(record, body, kind, answer.charset, config, cut=bool(fault))


def _text_document(
    record: _Record,
    body: bytes,
    kind: str,
    declared: str | None,
    config: ReadConfig,
    *,
    cut: bool = False,
) -> Found | Unread:
    if kind in _SILENT and _HTML_BEGINS.match(body):
        kind = "text/html"
    if kind not in _HTML and kind not in _TEXT:
        return Unread(record.locator, "is neither HTML nor plain text", kind[:80] or "not said")
    if not body.strip():
        return Unread(record.locator, "is empty")
    decoded = decode(body, declared=declared, encoding=config.encoding)
    text, halves = without_half_pairs(decoded.text)
    decoded = Decoded(text, decoded.encoding, decoded.found_by, decoded.replaced + halves)
    url = record.headers.get("warc-target-uri", "").strip("<> ") or None
    date = record.headers.get("warc-date") or None
    cut = cut or "warc-truncated" in record.headers
    if kind in _HTML:
        return page_document(record.locator, decoded, config, (url, date), cut=cut)
    languages = record.headers.get("warc-identified-content-language", "")
    metadata: dict[str, Any] = {"format": "text", **decoded.metadata()}
    metadata |= {"cut": True} if cut else {}
    metadata |= {"languages": languages} if "," in languages else {}
    return Found(
        record.locator,
        decoded.text,
        url=url,
        date=date,
        license=config.license,
        language=_language(languages) or config.language,
        metadata=metadata,
    )


def _language(codes: str) -> str | None:
    """The language that comes first, by two letters where it has such."""
    first = codes.partition(",")[0].strip().lower()
    at = _TWO_LETTERS.find(f" {first}:")
    return (_TWO_LETTERS[at + 5 : at + 7] if at >= 0 else first) or None
