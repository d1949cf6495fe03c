"""Folders of shards for tests, made of token ids."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from puna.artifact import MANIFEST, digest_file, manifest, write_json, writing_folder
from puna.config import to_dict
from puna.flows.tokenize_place import told_files
from puna.tokens.shard_file import VERSION, ShardLabel, Split, token_dtype
from puna.tokens.shard_index import INDEX, KIND, ShardIndex, ToldSource, ToldVocabulary
from puna.tokens.shard_writer import ShardWriter, TokenDocument, token_array

VOCABULARY = hashlib.sha256(b"a vocabulary").hexdigest()
Sources = Mapping[str, Mapping[Split, Sequence[Sequence[int]]]]


def key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def document(name: str, ids: Sequence[int], size: int = 500) -> TokenDocument:
    tokens: array[int] = token_array(size)
    tokens.extend(ids)
    return TokenDocument(key(name), key(f"root of {name}"), len(name) % 2, 3 * len(ids), tokens)


def write_split(
    folder: Path,
    documents: Sequence[Sequence[int]],
    split: Split = "train",
    *,
    vocabulary: str = VOCABULARY,
    size: int = 500,
    shard_tokens: int = 64,
) -> ShardWriter:
    """Documents as the files of a source; `folder` has its name."""
    folder.mkdir(parents=True, exist_ok=True)
    label = ShardLabel(vocabulary, folder.name, split)
    writer = ShardWriter(folder, label, vocabulary_size=size, shard_tokens=shard_tokens)
    for number, ids in enumerate(documents):
        writer.add(document(f"{folder.name} {split} {number}", ids, size))
    writer.close()
    return writer


def write_shards(
    path: Path,
    sources: Sources,
    *,
    size: int = 500,
    shard_tokens: int = 64,
    vocabulary: str = VOCABULARY,
) -> Path:
    """A whole folder, as `puna tokenize` leaves it, but for the vocabulary."""
    with writing_folder(path) as folder:
        for name, splits in sources.items():
            for split, documents in splits.items():
                write_split(
                    folder / name,
                    documents,
                    split,
                    size=size,
                    shard_tokens=shard_tokens,
                    vocabulary=vocabulary,
                )
        index = ShardIndex(
            VERSION,
            ToldVocabulary(vocabulary, size, 1, 2),
            token_dtype(size),
            ("CC0-1.0", "MIT"),
            tuple(
                ToldSource(name, "CC0-1.0", "en", told_files(folder / name, name))
                for name in sources
            ),
            {},
            {},
        )
        seal(folder, index)
    return path


def seal(folder: Path, index: ShardIndex) -> None:
    """Write the index and a manifest that goes with it."""
    write_json(folder / INDEX, to_dict(index))
    files = {INDEX: digest_file(folder / INDEX)}
    files |= {file.name: file.sha256 for source in index.sources for file in source.files}
    told = manifest(KIND, config={}, parents=[], files=files, measured={})
    write_json(folder / MANIFEST, told)
