"""HTTP answers as crawls store them: status, headers, and the body as the server meant it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

MAX_HEAD_BYTES = 256 << 10
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[^\r\n]{0,1000}\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    """Its code, such as 200."""
    headers: Mapping[str, str]
    """By lower-case name; of several of one name the first."""
    body: bytes
    """As it was sent: perhaps in chunks, perhaps compressed."""

    @property
    def media_type(self) -> str:
        """Such as `text/html`; empty where it is not said."""
        return media_type(self.headers.get("content-type", ""))

    @property
    def charset(self) -> str | None:
        """What the header says about the encoding of text."""
        return charset(self.headers.get("content-type", ""))


def media_type(header: str) -> str:
    """The media type of a Content-Type header, in lower case without its parameters."""
    return header.partition(";")[0].strip().lower()


def charset(header: str) -> str | None:
    """The charset of a Content-Type header."""
    match = _CHARSET.search(header[:1000])
    return match.group(1) if match else None


def parse_answer(block: bytes) -> Answer | None:
    """The answer that a block of bytes holds; None where it holds none."""
    status = _STATUS.match(block)
    if status is None:
        return None
    end = _HEAD_END.search(block, 0, MAX_HEAD_BYTES)
    head = block[: end.start()] if end else block[:MAX_HEAD_BYTES]
    body = block[end.end() :] if end else b""
    return Answer(int(status.group(1)), parse_headers(head.split(b"\n")[1:]), body)


def parse_headers(lines: list[bytes]) -> dict[str, str]:
    """Header lines by lower-case name; the first of each name counts, folded lines are joined."""
    headers: dict[str, str] = {}
    last, folds = "", False
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text[:1] in (" ", "\t"):
            if folds:
                headers[last] += " " + text.strip()
            continue
        name, colon, value = text.partition(":")
        last = name.strip().lower()
        folds = bool(colon) and last not in headers
        if folds:
            headers[last] = value.strip()
    return headers


def plain_body(answer: Answer, limit_bytes: int) -> tuple[bytes, str]:
    """The body without chunks and compression, and what was wrong ("" for nothing).

    Crawls often store bodies expanded and leave the headers as they were: a body that is not what
    they say is taken as it is.

    Args:
        answer: The answer.
        limit_bytes: More than one byte above this is never expanded.

    Returns:
        The body and "cut" for one that ends too early or `limit_bytes` + 1 long; or nothing and
        the name of a compression that is not read.
    """
    body, fault = answer.body, ""
    if "chunked" in answer.headers.get("transfer-encoding", "").lower():
        body, fault = _without_chunks(body)
    for name in reversed(answer.headers.get("content-encoding", "").lower().split(",")):
        name = name.strip()
        if name in ("gzip", "x-gzip", "deflate"):
            body, cut = _expanded(body, name, limit_bytes)
            fault = fault or cut
        elif name not in ("", "identity", "none", "utf-8") and not _is_text(body):
            return b"", name[:40]
    return body, fault


def _is_text(body: bytes) -> bool:
    return not body or body.lstrip()[:1] == b"<"


def _without_chunks(body: bytes) -> tuple[bytes, str]:
    parts: list[bytes] = []
    at = 0
    while True:
        size = _CHUNK.match(body, at)
        if size is None:
            return (b"".join(parts), "cut") if parts else (body, "")
        length, start = int(size.group(1), 16), size.end()
        if not length:
            return b"".join(parts), ""
        parts.append(body[start : start + length])
        if start + length > len(body):
            return b"".join(parts), "cut"
        at = start + length
        at += 2 if body[at : at + 2] == b"\r\n" else 1 if body[at : at + 1] == b"\n" else 0


def _expanded(body: bytes, name: str, limit_bytes: int) -> tuple[bytes, str]:
    if name != "deflate" and not body.startswith(b"\x1f\x8b"):
        return body, ""
    # Of "deflate" there are two readings: with zlib's own header, and without.
    for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        member = zlib.decompressobj(bits)
        try:
            data = member.decompress(body, limit_bytes + 1)
        except zlib.error:
            data = _before_damage(body, bits, limit_bytes)
            if data:
                return data, "cut"
            continue
        whole = member.eof or len(data) > limit_bytes
        return data, "" if whole else "cut"
    return (body, "") if _is_text(body) else (b"", "cut")


def _before_damage(body: bytes, bits: int, limit_bytes: int) -> bytes:
    member = zlib.decompressobj(bits)
    parts: list[bytes] = []
    size = 0
    try:
        for at in range(0, len(body), 1024):
            parts.append(member.decompress(body[at : at + 1024], max(1, limit_bytes + 1 - size)))
            size += len(parts[-1])
            if size > limit_bytes or member.unconsumed_tail:
                break
    except zlib.error:
        pass
    return b"".join(parts)
