"""shards.json: which shard files there are, of which sources, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.artifact import MANIFEST, digest_file, read_json, read_manifest
from puna.config import from_dict
from puna.errors import InputError
from puna.tokens.shard_file import SPLITS, VERSION, Split, shard_name

INDEX, KIND = "shards.json", "shards"
ORIGINS = "origins.json"  # of an extended vocabulary: the old ids of each new piece


@dataclass(frozen=True)
class ToldFile:
    """One shard file."""

    name: str
    """Relative to the folder: SOURCE/SPLIT-00000.safetensors."""
    split: Split
    """What its documents are for."""
    tokens: int
    """In it, those that begin and end documents included."""
    documents: int
    """In it."""
    text_bytes: int
    """UTF-8 bytes of their texts."""
    sha256: str
    """Of the file."""


@dataclass(frozen=True)
class ToldSource:
    """One source of documents."""

    name: str
    """As mixtures name it."""
    licence: str
    """Of documents that bring none of their own."""
    language: str | None
    """What fertility is told by."""
    files: tuple[ToldFile, ...]
    """Training first, each split in its order."""


@dataclass(frozen=True)
class ToldVocabulary:
    """The vocabulary that made the tokens."""

    identity: str
    """See `puna.tokens.shards.vocabulary_identity`."""
    size: int
    """All ids are below."""
    bos_id: int | None
    """Begins documents; None: nothing does."""
    eos_id: int
    """Ends every document."""


@dataclass(frozen=True)
class ShardIndex:
    """What shards.json holds."""

    version: int
    """Of the format."""
    vocabulary: ToldVocabulary
    """What the ids are of."""
    dtype: str
    """Of the stored tokens: uint16 or uint32."""
    licences: tuple[str, ...]
    """That the files number."""
    sources: tuple[ToldSource, ...]
    """In the order of the recipe."""
    dropped: dict[str, int]
    """Documents and rows that were left out, by the reason."""
    fertility: Any
    """Tokens per word and per byte, by language."""


def read_index(folder: Path) -> tuple[ShardIndex, str]:
    """Read the index of a folder of shards.

    Returns:
        The index, and the folder's identity: the digest of its manifest.

    Raises:
        InputError: The folder holds no shards, or its index or manifest is damaged or of another
            format; or one is not the other's.
    """
    path = folder / INDEX
    again = "tokenize into another folder: puna tokenize RECIPE --out FOLDER"
    if not folder.is_dir():
        what = "is a file; shards are a folder" if folder.exists() else "does not exist"
        raise InputError(what, where=folder, fix="name what puna tokenize made")
    if not path.is_file():
        raise InputError(f"holds no shards: there is no {INDEX}", where=folder, fix=again)
    told = read_json(path)
    version = told.get("version") if isinstance(told, Mapping) else None
    if version != VERSION:
        raise InputError(
            f"is of format {version!r}; this puna reads format {VERSION}", where=path, fix=again
        )
    index = from_dict(ShardIndex, told, str(path))
    _check(index, path)
    manifest = read_manifest(folder / MANIFEST)
    if manifest is None or manifest["identity"]["kind"] != KIND:
        raise InputError(
            "is missing, damaged, or not that of shards", where=folder / MANIFEST, fix=again
        )
    if manifest["identity"]["files"].get(INDEX) != digest_file(path):
        raise InputError("was changed since it was written", where=path, fix=again)
    return index, str(manifest["digest"])


def _check(index: ShardIndex, path: Path) -> None:
    """Refuse what could not have been written: the names lead to files that are opened."""
    if len({source.name for source in index.sources}) != len(index.sources) or not index.sources:
        raise InputError("names a source twice, or none at all", where=path)
    for source in index.sources:
        if source.name in ("", "..") or Path(source.name).name != source.name:
            raise InputError(f"{source.name!r} is no name of a source", where=path)
        wanted = [
            f"{source.name}/{shard_name(split, number)}"
            for split in SPLITS
            for number in range(sum(file.split == split for file in source.files))
        ]
        names = [file.name for file in source.files]
        if names != wanted:
            raise InputError(
                f"the files of {source.name} are {names[:3]}, expected {wanted[:3]}", where=path
            )
    vocabulary = index.vocabulary
    ends = [vocabulary.eos_id, *([] if vocabulary.bos_id is None else [vocabulary.bos_id])]
    if not all(0 <= end < vocabulary.size for end in ends):
        raise InputError(f"the ids {ends} are not of a vocabulary of {vocabulary.size}", where=path)
