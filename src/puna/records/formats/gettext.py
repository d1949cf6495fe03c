"""Gettext catalogues: the strings of a program beside their translations, from .po and .mo.

Formats: https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html and MO-Files.html.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from puna.errors import InputError
from puna.records.formats.content import byte_lines, whole
from puna.records.row import Quarantine, Row

_MAGIC = 0x950412DE
_MAX_SHARING = 16  # equal strings may share their bytes; a file where all do would fill the memory
_CHARSET = re.compile(rb"charset=([A-Za-z0-9_.:-]+)")
_TEXT_CODECS = (  # how encodings of text are called; Python has codecs that are none
    *("utf", "ascii", "us-ascii", "iso", "latin", "cp", "windows", "koi8"),
    *("gb", "big5", "euc", "shift", "tis"),
)
_KEYWORD = re.compile(r"(msgctxt|msgid_plural|msgid|msgstr)(?:\[(\d{1,3})\])?\s*(?=\")")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*$')
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def read_mo(path: Path, quarantine: Quarantine) -> Iterator[Row]:
    """The translated strings of a compiled catalogue.

    Rows have `source`, `target` and `context` (empty where there is none); a string with plural
    forms pairs its singular with the first form. Untranslated strings are counted and left out.

    Raises:
        InputError: The file is no catalogue, or its tables point outside of it.
    """
    data = whole(path)
    order = {struct.pack(o + "I", _MAGIC): o for o in "<>"}.get(data[:4])
    if order is None or len(data) < 20:
        raise InputError("is no compiled gettext catalogue (.mo)", where=path)
    count, sources, targets = struct.unpack_from(order + "3I", data, 8)
    if max(sources, targets) + 8 * count > len(data):
        raise InputError(
            f"is damaged: tables of {count} strings do not fit into {len(data)} bytes",
            where=path,
            fix="install or fetch the catalogue again",
        )
    lengths = sum(struct.unpack_from(f"{order}{2 * count}I", data, sources)[::2])
    lengths += sum(struct.unpack_from(f"{order}{2 * count}I", data, targets)[::2])
    if lengths > _MAX_SHARING * len(data):
        raise InputError(
            f"is damaged: its strings add up to {lengths:,} of {len(data):,} bytes", where=path
        )
    charset = "utf-8"
    for number in range(count):
        locator = f"{path}#{number}"
        pair = [_string(data, order, table + 8 * number) for table in (sources, targets)]
        if pair[0] is None or pair[1] is None:
            quarantine.add(locator, "points outside of its file")
        elif not pair[0]:
            charset = _charset(pair[1], path)
        else:
            yield from _translated(pair[0], pair[1], charset, locator, quarantine)


def _string(data: bytes, order: str, position: int) -> bytes | None:
    length, start = struct.unpack_from(order + "2I", data, position)
    return data[start : start + length] if start + length <= len(data) else None


def _translated(
    source: bytes, target: bytes, charset: str, locator: str, quarantine: Quarantine
) -> Iterator[Row]:
    context, _, message = source.rpartition(b"\x04")
    try:
        texts = [part.partition(b"\x00")[0].decode(charset) for part in (message, target, context)]
    except UnicodeError:
        quarantine.add(locator, f"is not {charset}")
        return
    yield from _pair(texts[0], texts[1], texts[2], locator, quarantine)


def _pair(
    source: str, target: str, context: str, locator: str, quarantine: Quarantine
) -> Iterator[Row]:
    if target.strip():
        yield Row({"source": source, "target": target, "context": context}, locator)
    else:
        quarantine.add(locator, "is not translated")


def _charset(header: bytes, path: Path) -> str:
    """The encoding that a catalogue's header names; UTF-8 where it names none."""
    match = _CHARSET.search(header)
    name = match.group(1).decode().lower() if match else "utf-8"
    if name == "charset":  # the template's placeholder
        return "utf-8"
    try:
        if not name.startswith(_TEXT_CODECS):
            raise LookupError(name)
        codecs.lookup(name)  # decoding nothing would not look
    except LookupError as error:
        raise InputError(
            f"names an unknown charset {name!r}", where=path, fix="msgconv -t UTF-8 FILE"
        ) from error
    return name


@dataclass
class _Entry:
    """One entry of a .po file while it is being read."""

    line: int = 0
    fuzzy: bool = False
    obsolete: bool = False
    texts: dict[str, str] = field(default_factory=dict)
    """By keyword: msgctxt, msgid, msgid_plural, msgstr (the first form where there are several)."""
    last: str | None = None
    """The keyword that a continuation line belongs to; "" for text that is passed over."""
    fault: tuple[str, str] | None = None

    @property
    def complete(self) -> bool:
        return "msgstr" in self.texts


def read_po(path: Path, quarantine: Quarantine) -> Iterator[Row]:
    """The translated strings of a .po file, as `read_mo` gives them.

    Entries that are not translated, fuzzy (a guess that nobody has confirmed) or obsolete are
    counted and left out; an entry with a line that cannot be read goes to the quarantine.

    Raises:
        InputError: The file cannot be read, or its header names an unknown charset.
    """
    for entry in _entries(path, quarantine):
        locator = f"{path}:{entry.line}"
        texts = entry.texts
        if entry.fault is not None:
            quarantine.add(locator, *entry.fault)
        elif "msgid" not in texts or "msgstr" not in texts:
            quarantine.add(locator, "is no whole entry", "msgid or msgstr is missing")
        elif entry.obsolete:
            quarantine.add(locator, "is obsolete")
        elif not texts["msgid"]:
            continue  # the header
        elif entry.fuzzy:
            quarantine.add(locator, "is fuzzy: nobody has confirmed it")
        else:
            context = texts.get("msgctxt", "")
            yield from _pair(texts["msgid"], texts["msgstr"], context, locator, quarantine)


def _entries(path: Path, quarantine: Quarantine) -> Iterator[_Entry]:
    charset = "utf-8"
    entry = _Entry()
    for number, raw in byte_lines(path, quarantine):
        if _CHARSET.search(raw) and _in_header(raw, entry):
            charset = _charset(raw, path)
        try:
            line = raw.decode(charset).strip()
        except UnicodeError:
            entry.line = entry.line or number
            entry.fault = entry.fault or (f"is not {charset}", f"line {number}")
            continue
        obsolete = line.startswith("#~")
        line = line.removeprefix("#~").lstrip() if obsolete else line
        if _begins(line, entry):
            yield entry
            entry = _Entry()
        if line.startswith("#,"):
            entry.fuzzy |= "fuzzy" in re.split(r"[,\s]+", line[2:])
        elif line and not line.startswith(("#", "|")):
            entry.line = entry.line or number
            entry.obsolete |= obsolete
            _take(line, number, entry)
    if entry.line:
        yield entry


def _in_header(raw: bytes, entry: _Entry) -> bool:
    """Whether a line is of the header: the translation of nothing, without a context.

    Of a text in several lines the first is empty, too, and the others may speak of a charset.
    """
    translating = entry.last == "msgstr" or raw.lstrip().startswith(b"msgstr")
    return translating and entry.texts.get("msgid") == "" and "msgctxt" not in entry.texts


def _begins(line: str, entry: _Entry) -> bool:
    """Whether a line begins another entry: a comment, or a keyword that comes first in one."""
    if not entry.line:
        return False
    if not line or line.startswith("#"):
        return entry.complete or entry.fault is not None
    keyword = _KEYWORD.match(line)
    if keyword is None or keyword.group(1) not in ("msgctxt", "msgid"):
        return False
    lost = entry.fault is not None and "msgid" in entry.texts
    return entry.complete or lost or keyword.group(1) in entry.texts


def _take(line: str, number: int, entry: _Entry) -> None:
    """Add one line, a keyword with its text or a continuation, to an entry."""
    keyword = _KEYWORD.match(line)
    quoted = _QUOTED.match(line, keyword.end() if keyword else 0)
    if quoted is None or (keyword is None and entry.last is None):
        entry.fault = entry.fault or ("is no gettext", f"line {number}: {line[:60]!r}")
        return
    try:
        text = _ESCAPE.sub(_unescaped, quoted.group(1))
    except ValueError as error:
        entry.fault = entry.fault or ("is no gettext", f"line {number}: {error}")
        return
    if keyword is None:
        if entry.last:
            entry.texts[entry.last] += text
        return
    name = keyword.group(1)
    further = keyword.group(2) is not None and int(keyword.group(2)) > 0
    if name in entry.texts and not further:
        entry.fault = entry.fault or ("has a keyword twice", f"line {number}: {name}")
    entry.last = "" if further else name
    if not further:
        entry.texts[name] = text


def _unescaped(match: re.Match[str]) -> str:
    octal, hexadecimal, letter = match.groups()
    if letter is not None:
        return _ESCAPES.get(letter, letter)
    code = int(octal, 8) if octal is not None else int(hexadecimal, 16)
    if code > 127:  # a byte of the file's encoding, which nobody writes so
        raise ValueError(f"the escape {match.group()} is beyond ASCII")
    return chr(code)
