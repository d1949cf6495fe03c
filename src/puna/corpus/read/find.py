"""Where the files of a source are, and what each is: by its name, or by how it begins."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath

from puna import records
from puna.corpus.read.code import is_vendored, language_of
from puna.corpus.read.remote import find_remote, is_hidden, is_remote
from puna.corpus.read.streams import open_piece
from puna.corpus.read.units import Format, Piece, ReadConfig, Unread, piece_of
from puna.errors import InputError
from puna.records.corpus_folder import is_corpus, whole_files

_COMPRESSED = re.compile(r"\.(gz|bz2|zst|xz)$", re.I)
_BY_SUFFIX: tuple[tuple[Format, str], ...] = (
    ("wet", r"\.wet"),
    ("warc", r"\.warc"),
    ("html", r"\.x?html?"),
    ("jsonl", r"\.(jsonl|ndjson)"),
    ("csv", r"\.csv"),
    ("tsv", r"\.tsv"),
    ("parquet", r"\.(parquet|pq)"),
    ("text", r"\.(txt|text)"),
    ("markdown", r"\.(md|markdown|mdown|mkd)"),
    ("mediawiki", r"\.xml(-p\d+p\d+)?"),
)
_BY_HEAD: tuple[tuple[Format, bytes], ...] = (
    ("warc", rb"WARC/[01]\.\d"),
    ("parquet", rb"PAR1"),
    ("mediawiki", rb"(?s)\s*(<\?xml.{0,200}\?>\s*)?<mediawiki\b"),
    ("html", rb"(?is)\s*(<!doctype html|<html\b|<\?xml.{0,200}\?>\s*<(!doctype )?html\b)"),
    ("jsonl", rb"\s*\{[^\n]*(\}\s*\Z|\}\r?\n|\Z)"),
)
_SNIFF_BYTES = 4096
_ABOUT = re.compile(  # what lies beside data and tells about them
    r"(readme|licen[cs]e|notice|copying|citation|changelog|requirements)\b.*\.txt(\.gz)?"
    r"|(dataset_infos?|dataset_dict|state|manifest|metadata)\.json",
    re.IGNORECASE,
)
_MAGIC = re.compile(r"[*?\[]")
_ROWS: tuple[records.Format, ...] = ("json", "jsonl", "csv", "tsv", "parquet", "txt")
_GIT_SECONDS = 300

Typed = tuple[Format, Piece]


def find_pieces(config: ReadConfig) -> list[Typed]:
    """All files of a source with their formats, each once, in a stable order.

    Raises:
        InputError: A name leads to no file, a file's format is not to be told, or git fails.
    """
    if not config.names:
        raise InputError("no files are named", fix="give a path, a glob or a folder")
    found: dict[str, Typed] = {}
    for name in config.names:
        for typed in _find(name, config):
            found.setdefault(typed[1].path, typed)
    return list(found.values())


def format_of(path: PurePath) -> Format | None:
    """The format that a file's name tells, compressed or not; None where it tells none."""
    name = _COMPRESSED.sub("", path.name)
    for format, pattern in _BY_SUFFIX:
        if re.search(pattern + "$", name, re.I):
            return format
    return "mediawiki" if "pages-articles" in name and ".xml" in name else None


def _find(name: str, config: ReadConfig) -> list[Typed]:
    if name.startswith(("package:", "hub:")):
        return [_typed(path, config) for path in records.find_files(name, _ROWS)]
    if is_remote(name):
        return _remote(name, config)
    path = Path(name).expanduser()
    if path.is_dir() and config.format in ("auto", "corpus") and is_corpus(path):
        return _some([("corpus", piece_of(file)) for file in whole_files(path)], name)
    if path.is_dir():
        return _in_folder(path, config, name)
    if path.exists():
        return [_typed(path, config)]
    if _MAGIC.search(name):
        return _matching(path, config, name)
    return [_typed(found, config) for found in records.find_files(name, _ROWS)]


def _typed(path: Path, config: ReadConfig) -> Typed:
    """A file that was named, with the format that is asked for or that it seems to have."""
    return _typed_piece(path, piece_of(path), config)


def _typed_piece(path: PurePath, piece: Piece, config: ReadConfig) -> Typed:
    if config.format != "auto":
        return config.format, piece
    found = format_of(path) or _sniffed(piece)
    if found is None:
        raise InputError(
            "neither its name nor how it begins tells what it is",
            where=piece.place,
            fix="say which it is, such as format: text (or jsonl, html, code ...)",
        )
    return found, piece


def _remote(name: str, config: ReadConfig) -> list[Typed]:
    """Files in a store: of a folder those of known formats."""
    pieces, in_folder = find_remote(name)
    if not in_folder:
        typed = [_typed_piece(PurePosixPath(piece.path), piece, config) for piece in pieces]
        return _some(typed, name)
    found: list[Typed] = []
    for piece in pieces:
        path = PurePosixPath(piece.path)
        format = config.format if config.format != "auto" else format_of(path)
        about = format_of(path) is None or _ABOUT.fullmatch(path.name)
        code = format == "code" and language_of(path) is not None
        if format is not None and (code or not about) and not is_hidden(piece, name):
            found.append((format, piece))
    return _some(found, name)


def _known(path: Path) -> Format | None:
    """The format of a file in a folder: JSON is rows only where it has an object in each line."""
    if _COMPRESSED.sub("", path.name).lower().endswith(".json"):
        return "jsonl" if _sniffed(piece_of(path)) == "jsonl" else None
    return format_of(path)


def _sniffed(piece: Piece) -> Format | None:
    with open_piece(piece) as stream:
        head = b"" if isinstance(stream, Unread) else stream.read(_SNIFF_BYTES)
    return next((format for format, pattern in _BY_HEAD if re.match(pattern, head)), None)


def _matching(path: Path, config: ReadConfig, name: str) -> list[Typed]:
    first = next(number for number, part in enumerate(path.parts) if _MAGIC.search(part))
    folder, pattern = Path(*path.parts[:first]), "/".join(path.parts[first:])
    try:
        matches = sorted(folder.glob(pattern))
    except (ValueError, NotImplementedError, IndexError) as error:
        raise InputError(f"is no glob: {error}", where=name) from error
    hidden = any(part.startswith(".") for part in Path(pattern).parts)
    files = [
        match
        for match in matches
        if _is_file(match) and (hidden or not _is_hidden(match.relative_to(folder)))
    ]
    return _some([_typed(file, config) for file in files], name)


def _in_folder(folder: Path, config: ReadConfig, name: str) -> list[Typed]:
    code = config.format == "code" or (config.format == "auto" and (folder / ".git").exists())
    if code:
        return _some(list(_code_in(folder)), name)
    found: list[Typed] = []
    for path, fault in _walk(folder):
        format = _known(path)
        if fault:
            skipped = dataclasses.replace(piece_of(path), skip=fault)
            found.append((config.format if config.format != "auto" else "text", skipped))
        elif format is not None and not _ABOUT.fullmatch(path.name):
            wanted = format if config.format == "auto" else config.format
            if (
                config.format == "auto"
                and format == "mediawiki"
                and _sniffed(piece_of(path)) != format
            ):
                continue  # XML is much else
            if format == wanted or {format, wanted} == {"warc", "wet"}:
                found.append((wanted, piece_of(path)))
    return _some(found, name)


def _code_in(folder: Path) -> Iterator[Typed]:
    """Files of code: those that git tracks, or all where the folder is no working tree."""
    tracked = _tracked(folder) if (folder / ".git").exists() else _walk(folder)
    for path, fault in tracked:
        if fault or language_of(path) is not None:
            vendored = "is others' code (a vendored folder)"
            fault = fault or (vendored if is_vendored(path.relative_to(folder)) else "")
            yield "code", dataclasses.replace(piece_of(path), skip=fault)


def _tracked(folder: Path) -> Iterator[tuple[Path, str]]:
    # A hook that the folder's own configuration names (fsmonitor) must not run.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise InputError(f"git cannot list its files: {reason}", where=folder) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(
            f"git cannot be asked for its files: {error}",
            where=folder,
            fix="install git, or name the files by a glob",
        ) from error
    for inner in sorted(set(done.stdout.split(b"\0")) - {b""}):
        path = folder / os.fsdecode(inner)
        if not path.is_dir():  # a submodule is one
            yield path, ""


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files below a folder, sorted, without hidden ones; what cannot be listed has a reason."""
    faults: list[OSError] = []
    for place, folders, names in os.walk(folder, onerror=faults.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and _is_file(path):
                yield path, ""
    for error in faults:
        yield Path(str(error.filename)), f"cannot be listed: {error.strerror}"


def _is_file(path: Path) -> bool:
    """Whether it is one, or a link that leads nowhere: reading it tells so."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_hidden(inner: Path) -> bool:
    return any(part.startswith(".") for part in inner.parts)


def _some(found: list[Typed], name: str) -> list[Typed]:
    if not found:
        raise InputError(
            "holds or matches no file to read",
            where=name,
            fix="name the files by a glob, and what they are (format: text, html, code ...)",
        )
    return found
