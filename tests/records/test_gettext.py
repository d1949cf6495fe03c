from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.errors import InputError
from records.reading import places, read, values

HEADER = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n'
PO = (
    HEADER
    + """#. a comment
#: file.py:3
msgid "Save"
msgstr "Enregistrer"

msgctxt "menu"
msgid ""
"Open\\t\\"all\\" "
"files\\n"
msgstr "Ouvrir "
"tout\\101"

#, python-format, fuzzy
#| msgid "Old"
msgid "New"
msgstr "Nouveau"
msgid "Untranslated"
msgstr ""

msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d fichier"
msgstr[1] "%d "
"fichiers"

#~ msgid "Gone"
#~ msgstr "Parti"

msgid "Last"
msgstr "Dernier"
"""
)
ROWS = [
    {"source": "Save", "target": "Enregistrer", "context": ""},
    {"source": 'Open\t"all" files\n', "target": "Ouvrir toutA", "context": "menu"},
    {"source": "%d file", "target": "%d fichier", "context": ""},
    {"source": "Last", "target": "Dernier", "context": ""},
]


def compiled(pairs: list[tuple[bytes, bytes]], order: str = "<") -> bytes:
    """A .mo file as the format's documentation describes it."""
    start = 28 + 16 * len(pairs)
    tables: list[list[tuple[int, int]]] = [[], []]
    body = b""
    for side in (0, 1):
        for pair in pairs:
            tables[side].append((len(pair[side]), start + len(body)))
            body += pair[side] + b"\0"
    head = struct.pack(order + "7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, start)
    entries = [struct.pack(order + "2I", *entry) for table in tables for entry in table]
    return head + b"".join(entries) + body


def test_a_catalogue_for_people(tmp_path: Path) -> None:
    rows, quarantine = read(tmp_path, "x.po", PO)
    assert values(rows) == ROWS
    assert places(rows) == ["7", "10", "24", "33"]
    assert dict(quarantine.counts) == {
        "is fuzzy: nobody has confirmed it": 1,
        "is not translated": 1,
        "is obsolete": 1,
    }


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_compiled_catalogue(tmp_path: Path, order: str) -> None:
    pairs = [
        (b"", b"Content-Type: text/plain; charset=ISO-8859-1\n"),
        (b"Save", "Économiser".encode("latin-1")),
        (b"menu\x04Open", b"Ouvrir"),
        (b"%d file\0%d files", b"%d fichier\0%d fichiers"),
        (b"Untranslated", b""),
    ]
    rows, quarantine = read(tmp_path, "x.mo", compiled(pairs, order))
    assert values(rows) == [
        {"source": "Save", "target": "Économiser", "context": ""},
        {"source": "Open", "target": "Ouvrir", "context": "menu"},
        {"source": "%d file", "target": "%d fichier", "context": ""},
    ]
    assert rows[0].locator.endswith("x.mo#1")
    assert quarantine.counts == {"is not translated": 1}


def test_babel_reads_the_same(tmp_path: Path) -> None:
    pofile = pytest.importorskip("babel.messages.pofile")
    mofile = pytest.importorskip("babel.messages.mofile")
    text = PO.replace("\\101", "A").encode()  # babel knows no octal escapes
    catalog = pofile.read_po(io.BytesIO(text))
    wanted = {
        (m.context or "", m.id if isinstance(m.id, str) else m.id[0], _first(m.string))
        for m in catalog
        if m.id and not m.fuzzy and _first(m.string)
    }
    buffer = io.BytesIO()
    mofile.write_mo(buffer, catalog)
    for name, data in (("x.po", text), ("x.mo", buffer.getvalue())):
        rows, _ = read(tmp_path, name, data)
        found = {(r["context"], r["source"], r["target"]) for r in values(rows)}
        assert found == wanted


def _first(string: str | tuple[str, ...]) -> str:
    return string if isinstance(string, str) else string[0]


def test_a_bad_entry_costs_only_itself(tmp_path: Path) -> None:
    entries = [
        b'msgid "a"\nmsgstr "x"y\n',
        b'msgid "b"\nmsgid "c"\nmsgstr "C"\n',
        b'msgid "d"\nmsgstr "\xff"\n\n',
        b'"floating"\n\n',
        b'msgid "e"\nmsgstr "\\377"\n\n',
        b'msgid "f"\nmsgstr "1"\nmsgstr "2"\n\n',
        b'msgid "g"\nmsgstr "G"\n',
    ]
    rows, quarantine = read(tmp_path, "x.po", HEADER.encode() + b"".join(entries))
    assert [row["source"] for row in values(rows)] == ["c", "g"]
    assert dict(quarantine.counts) == {
        "is no gettext": 3,
        "is no whole entry": 1,
        "is not utf-8": 1,
        "has a keyword twice": 1,
    }
    assert quarantine.samples[0] == (
        f"{tmp_path / 'x.po'}:5",
        "is no gettext: line 6: 'msgstr \"x\"y'",
    )


def test_files_that_are_no_catalogue(tmp_path: Path) -> None:
    good = compiled([(b"a", b"b"), (b"c", b"d")])
    with pytest.raises(InputError, match="is no compiled gettext catalogue"):
        read(tmp_path, "x.mo", b"PK" + good)
    with pytest.raises(InputError, match="is damaged: tables of 2 strings"):
        read(tmp_path, "x.mo", good[:40])
    entries = struct.pack("<2I", 100_000, 28 + 16_000) * 2000
    sharing = struct.pack("<7I", 0x950412DE, 0, 1000, 28, 28 + 8000, 0, 0) + entries
    with pytest.raises(InputError, match="its strings add up to 200,000,000 of 116,028 bytes"):
        read(tmp_path, "x.mo", sharing + b"x" * 100_000)
    rows, quarantine = read(tmp_path, "x.mo", good[:-2])
    assert [row["source"] for row in values(rows)] == ["a"]
    assert quarantine.counts == {"points outside of its file": 1}
    for charset in ("klingon", "utf-8t", "unicode_escape", "zip"):
        named = HEADER.replace("UTF-8", charset)
        with pytest.raises(InputError, match=f"unknown charset '{charset}'"):
            read(tmp_path, "x.po", named)
    rows, _ = read(tmp_path, "x.po", PO.replace("UTF-8", "CHARSET"))
    assert values(rows) == ROWS


def test_a_text_that_speaks_of_a_charset_does_not_change_it(tmp_path: Path) -> None:
    text = 'msgid ""\n"charset={} "\n"is old"\nmsgstr "é"\n\nmsgid "b"\nmsgstr "è"\n'
    for charset in ("latin-1", "klingon"):
        rows, quarantine = read(tmp_path, "x.po", HEADER + text.format(charset))
        assert [row["target"] for row in values(rows)] == ["é", "è"]
        assert quarantine.total == 0


LINE = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=15)


@given(st.dictionaries(LINE.filter(str.strip), LINE.filter(str.strip), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_babel_writes_comes_back(tmp_path: Path, strings: dict[str, str]) -> None:
    catalogs = pytest.importorskip("babel.messages.catalog")
    pofile = pytest.importorskip("babel.messages.pofile")
    catalog = catalogs.Catalog(locale="fr")
    for source, target in strings.items():
        catalog.add(source, target)
    buffer = io.BytesIO()
    pofile.write_po(buffer, catalog, width=0)
    rows, _ = read(tmp_path, "x.po", buffer.getvalue())
    fuzzy = {m.id for m in catalog if m.fuzzy}
    found = {row["source"]: row["target"] for row in values(rows)}
    assert found == {s: t for s, t in strings.items() if s not in fuzzy}
