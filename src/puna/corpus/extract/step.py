"""The step `extract`: pages of HTML become their main text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from puna.corpus import schema
from puna.corpus.extract.fast import Extracted, open_fast
from puna.corpus.extract.page import excess, looks_like_html, tags
from puna.corpus.extract.precise import open_precise
from puna.corpus.step import Apply
from puna.errors import InputError

Mode = Literal["fast", "precise", "auto"]

_MAX_PRECISE_DEPTH = 120  # libxml2 cuts a page at 256 elements, of which `excess` counts the half

_TITLE = re.compile(r"<title(?=[\s>])[^<>]*>([^<]*)</title", re.IGNORECASE)


@dataclass(frozen=True)
class ExtractConfig:
    """Main text of web pages; documents that are not HTML stay as they are.

    A page of which nothing is left is dropped (`extract.empty`); one that is too much for a parser
    goes to quarantine. The title goes into the metadata, with what extracted the text.
    """

    VERSION: ClassVar[int] = 1

    step: Literal["extract"] = "extract"
    """As recipes call it."""
    mode: Mode = "auto"
    """`fast` is resiliparse with a filter of lines; `precise` is trafilatura, and fast where that
    finds nothing; `auto` is fast, and precise where the fast one is unsure."""
    sure: float = 0.5
    """Confidence of the fast one, 0 to 1, below which `auto` takes the precise one."""
    max_bytes: int = 8 << 20
    """Bytes of a page; a larger one goes to quarantine."""
    max_depth: int = 512
    """Elements of a page within one another, as many as browsers allow; a deeper one goes to
    quarantine."""
    max_precise_tags: int = 20_000
    """Elements of a page; one with more is left to the fast one, since trafilatura would take
    longer than about two seconds."""

    def __post_init__(self) -> None:
        if not 0 <= self.sure <= 1:
            raise InputError(f"sure must lie between 0 and 1, found {self.sure}")
        for name in ("max_bytes", "max_depth", "max_precise_tags"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, found {getattr(self, name)}")

    def open(self) -> Apply:
        """Load what extracts, once in a worker.

        Raises:
            MissingPackageError: resiliparse, or trafilatura where the mode needs it, is missing.
        """
        work = _Work(self, open_extractor(self))

        def apply(batch: pa.RecordBatch) -> pa.RecordBatch:
            return work.apply(batch)

        return apply


def open_extractor(config: ExtractConfig) -> Callable[[str], Extracted]:
    """What gives the main text of one page, by the configuration's mode.

    Raises:
        MissingPackageError: A package that the mode needs is not installed.
    """
    fast = open_fast()
    if config.mode == "fast":
        return fast
    precise = open_precise(thorough=config.mode == "precise")

    def fits(page: str) -> bool:
        data = np.frombuffer(page.encode(), np.uint8)
        return tags(data) <= config.max_precise_tags and not excess(page, data, _MAX_PRECISE_DEPTH)

    def extract(page: str) -> Extracted:
        if config.mode == "precise":
            text = precise(page) if fits(page) else ""
            return Extracted(text, 1.0, "precise") if text else fast(page)
        found = fast(page)
        if found.confidence >= config.sure or not fits(page):
            return found
        text = precise(page)
        return Extracted(text, found.confidence, "precise") if text else found

    return extract


def title_of(page: str) -> str | None:
    """What a page calls itself, on one line; None where it does not say."""
    found = _TITLE.search(page)
    title = " ".join(html.unescape(found[1]).split()) if found else ""
    return title or None


class _Work:
    """One step at work on batches."""

    def __init__(self, config: ExtractConfig, extract: Callable[[str], Extracted]):
        self.config, self.extract = config, extract

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        column, about = batch.column("text"), batch.column("metadata").to_pylist()
        texts: list[str] = column.to_pylist()
        confidence = np.full(len(texts), np.nan, dtype=np.float32)
        drops: dict[int, str] = {}
        errors: dict[int, str] = {}
        changed: list[int] = []
        for row in np.flatnonzero(schema.alive(batch)).tolist():
            metadata = _as_object(about[row])
            if not looks_like_html(texts[row], metadata):
                continue
            found = self._row(texts[row], column[row])
            if isinstance(found, str):
                errors[row] = found
                continue
            if not found.text.strip():
                drops[row] = "extract.empty"
                continue
            about[row] = _told(metadata, title_of(texts[row]), found)
            texts[row], confidence[row] = found.text, found.confidence
            changed.append(row)
        batch = schema.with_texts(batch, texts, changed)
        batch = schema.with_columns(batch, {"metadata": pa.array(about, type=pa.string())})
        batch = schema.with_stats(batch, {"extract_confidence": confidence})
        return schema.with_errors(schema.with_drops(batch, drops), errors)

    def _row(self, page: str, scalar: Any) -> Extracted | str:
        """The main text of one page, or why there is none to be had."""
        data = np.frombuffer(scalar.as_buffer(), np.uint8)
        if len(data) > self.config.max_bytes:
            return f"extract: {len(data):,} bytes, more than max_bytes ({self.config.max_bytes:,})"
        if (too_much := excess(page, data, self.config.max_depth)) is not None:
            return f"extract: {too_much}"
        try:
            return self.extract(page)
        except Exception as error:  # of a library, by one page: the others of the batch go on
            return f"extract: {type(error).__name__}: {error}"


def _told(metadata: Mapping[str, Any], title: str | None, found: Extracted) -> str:
    told = {**metadata, "extracted": found.by}
    if title is not None:
        told.setdefault("title", title)
    return json.dumps(told, ensure_ascii=False, sort_keys=True)


def _as_object(metadata: str | None) -> dict[str, Any]:
    found = json.loads(metadata) if metadata else {}
    return found if isinstance(found, dict) else {}
