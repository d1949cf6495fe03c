"""Dumps of MediaWiki: the articles of an XML export as plain text, read as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from xml.parsers import expat

from puna.corpus.read.rows import Read, damaged_end
from puna.corpus.read.streams import ByteStream, open_piece, size_in_words
from puna.corpus.read.units import Piece, ReadConfig, Unread
from puna.corpus.read.wikitext import Namespaces, namespaces_of, plain_text
from puna.corpus.schema import Found

_PORTION_BYTES = 64 << 10
_MAX_DEPTH = 32
_MAX_TAG_BYTES = 1 << 20  # the parser holds a tag whole
_MAX_FIELD_CHARACTERS = 4096
_REDIRECT = re.compile(
    r"\s*#\s*(redirect|weiterleitung|redirection|重定向|перенаправление)\b", re.I
)
_FIELDS = frozenset(
    ("page/title", "page/ns", "page/id", "page/revision/timestamp", "page/revision/model")
)
_SITE = frozenset(("siteinfo/base", "siteinfo/namespaces/namespace"))


class _RefusedError(Exception):
    """What an export never has; the message is a reason."""


@dataclass
class _Page:
    number: int
    at: int
    fields: dict[str, str] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    size: int = 0
    redirect: bool = False
    revisions: int = 0


class _Handler:
    """Collects pages from the parser's calls; it holds one page at a time."""

    def __init__(self, limit: int):
        self.limit = limit
        self.done: list[_Page] = []
        self.base = ""
        self.language: str | None = None
        self.namespaces: dict[int, str] = {}
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.StartDoctypeDeclHandler = self.doctype
        self._path: list[str] = []
        self._where = ""
        self._words: list[str] = []
        self._key = 0
        self._page: _Page | None = None
        self._count = 0

    def doctype(self, *_: Any) -> None:
        """An export has none, and entities are what bombs are made of."""
        raise _RefusedError("holds a document type, which dumps never do")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        if not self._path and name != "mediawiki":
            raise _RefusedError("is no MediaWiki dump")
        if len(self._path) >= _MAX_DEPTH:
            raise _RefusedError("is nested more deeply than dumps ever are")
        self._path.append(name)
        self._where = "/".join(self._path[1:])
        self._words = []
        if len(self._path) == 1:
            self.language = next((v for k, v in attributes.items() if k.endswith(" lang")), None)
        elif self._where == "page":
            self._count += 1
            self._page = _Page(self._count, self.parser.CurrentByteIndex)
        elif self._page is not None and self._where == "page/redirect":
            self._page.redirect = True
        elif self._page is not None and self._where == "page/revision":
            # Of a dump with all revisions the last one counts.
            self._page.text, self._page.size = [], 0
            self._page.revisions += 1
        elif self._where == "siteinfo/namespaces/namespace":
            key = attributes.get("key", "")
            self._key = int(key) if re.fullmatch(r"-?\d{1,6}", key) else 0

    def characters(self, data: str) -> None:
        if self._where == "page/revision/text":
            if self._page is not None:
                self._page.size += len(data)
                if self._page.size <= self.limit:
                    self._page.text.append(data)
        elif self._where in _FIELDS | _SITE and len(self._words) < _MAX_FIELD_CHARACTERS:
            self._words.append(data)

    def end(self, name: str) -> None:
        words = "".join(self._words)[:_MAX_FIELD_CHARACTERS]
        if self._page is not None and self._where in _FIELDS:
            self._page.fields[self._path[-1]] = words
        elif self._where == "siteinfo/base":
            self.base = words
        elif self._where == "siteinfo/namespaces/namespace" and words:
            self.namespaces[self._key] = words
        elif self._where == "page" and self._page is not None:
            self.done.append(self._page)
            self._page = None
        self._path.pop()
        self._where = "/".join(self._path[1:])
        self._words = []


def read_mediawiki(piece: Piece, config: ReadConfig) -> Read:
    """The articles (namespace 0) of a MediaWiki export, plain or compressed.

    Redirects, pages of other namespaces and such that hold no wikitext are put aside. Document
    types are refused, so no entity is ever expanded.
    """
    with open_piece(piece) as stream:
        if isinstance(stream, Unread):
            yield stream
            return
        handler = _Handler(config.max_document_bytes)
        namespaces: Namespaces | None = None
        for page in _pages(stream, handler):
            if isinstance(page, Unread):
                yield page
                continue
            namespaces = namespaces or namespaces_of(handler.namespaces)
            yield _document(page, handler, namespaces, piece, config)
        yield from damaged_end(stream)


def _pages(stream: ByteStream, handler: _Handler) -> Iterator[_Page | Unread]:
    while True:
        data = stream.read(_PORTION_BYTES)
        fault = None
        try:
            if data or stream.damage is None:
                handler.parser.Parse(data, not data)
            if stream.offset - handler.parser.CurrentByteIndex > _MAX_TAG_BYTES:
                raise _RefusedError("holds a tag longer than dumps ever have")
        except _RefusedError as error:
            fault = Unread(f"{stream.place}@{handler.parser.CurrentByteIndex}", str(error))
        except expat.ExpatError as error:
            reason = "is not sound XML from here on" if stream.offset else "is empty"
            detail = f"{expat.ErrorString(error.code)} at line {error.lineno:,}"
            at = handler.parser.ErrorByteIndex
            fault = Unread(f"{stream.place}@{at}", reason, detail)
        yield from handler.done
        handler.done.clear()
        if fault is not None:
            yield fault
        if fault is not None or not data:
            return


def _document(
    page: _Page, handler: _Handler, namespaces: Namespaces, piece: Piece, config: ReadConfig
) -> Found | Unread:
    number = page.fields.get("id", "")
    locator = f"{piece.place}#{number if number.isdecimal() else f'page-{page.number}'}"
    title = page.fields.get("title", "").strip()
    if page.fields.get("ns", "0").strip() != "0":
        return Unread(locator, "is no article (another namespace)", title)
    if page.redirect or _REDIRECT.match("".join(page.text[:4])):
        return Unread(locator, "is a redirect", title)
    if page.fields.get("model", "wikitext") != "wikitext":
        return Unread(locator, "holds no wikitext", page.fields["model"])
    if page.size > config.max_document_bytes:
        reason = f"is longer than {size_in_words(config.max_document_bytes)}"
        return Unread(locator, reason, f"{page.size:,} characters")
    text = plain_text("".join(page.text), namespaces)
    if not text:
        return Unread(locator, "is empty", title)
    metadata: dict[str, Any] = {"format": "mediawiki", "title": title}
    metadata |= {"revisions": page.revisions} if page.revisions > 1 else {}
    return Found(
        locator,
        f"{title}\n\n{text}" if title else text,
        url=_address(handler.base, title),
        date=page.fields.get("timestamp"),
        license=config.license,
        language=handler.language or config.language,
        metadata=metadata,
    )


def _address(base: str, title: str) -> str | None:
    """Where an article stands, by where the main page does."""
    folder = base.rpartition("/")[0]
    return f"{folder}/{quote(title.replace(' ', '_'), safe='/:(),')}" if folder and title else None
