"""Reading shards: folders of token files that `puna tokenize` made, mapped rather than loaded."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from puna.artifact import digest_file, digest_json
from puna.errors import InputError
from puna.tokens.shard_file import Array, ShardArrays, ShardFile, Split, open_shard_file
from puna.tokens.shard_index import ShardIndex, ToldFile, ToldSource, read_index
from puna.tokens.tokenizer import Tokenizer

MAPPED_FILES = 256  # of one split of a source, at once; a mapping holds a file descriptor
_CHECKED_TOKENS = 1 << 22  # at once, while a file is verified
_AGAIN = "fetch the folder again, or tokenize again"


class Documents:
    """The documents of one split of a source: several files as one, in their order.

    Attributes:
        count: Of documents.
        tokens: Of all documents together.
        lengths: Of each in tokens, int64 [D].
        text_bytes: UTF-8 bytes of each one's text, int64 [D].
    """

    def __init__(self, files: Sequence[ShardFile], vocabulary_size: int) -> None:
        """Over opened files; reads their indexes (16 bytes per document), and no tokens.

        Raises:
            InputError: A file's index is damaged.
        """
        self._files, self._size = tuple(files), vocabulary_size
        self._ends = list(accumulate(file.documents for file in files))
        indexes = [file.index() for file in files]
        none = np.zeros(0, dtype=np.int64)
        self.lengths: Array = np.concatenate([none, *(lengths for lengths, _ in indexes)])
        self.text_bytes: Array = np.concatenate([none, *(sizes for _, sizes in indexes)])
        self.count = sum(file.documents for file in files)
        self.tokens = sum(file.tokens for file in files)
        self._mapped: OrderedDict[int, ShardArrays] = OrderedDict()

    def read(self, document: int, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Tokens of one document.

        Args:
            document: Its number, from 0.
            start: The first token, counted within the document.
            stop: The one after the last.

        Returns:
            Token ids, int64 [stop - start]; a copy.

        Raises:
            InputError: An id is beyond the vocabulary, or the file cannot be read.
            IndexError: There is no such document, or no such token in it.
        """
        number, inner = self._place(document)
        if not 0 <= start <= stop <= int(self.lengths[document]):
            raise IndexError(
                f"tokens {start} to {stop} of a document of {self.lengths[document]} tokens"
            )
        arrays = self._arrays(number)
        first = int(arrays.offsets[inner]) + start
        ids = arrays.tokens[first : first + stop - start].astype(np.int64)
        if ids.size and int(ids.max()) >= self._size:
            raise _beyond(self._files[number].path, ids, first, self._size)
        return ids

    def id(self, document: int) -> bytes:
        """The 16 bytes that name a document."""
        number, inner = self._place(document)
        return bytes(self._arrays(number).ids[inner])

    def root(self, document: int) -> bytes:
        """The 16 bytes that a document shares with what it was derived from."""
        number, inner = self._place(document)
        return bytes(self._arrays(number).roots[inner])

    def licence(self, document: int) -> int:
        """The number of a document's licence, in the list of the shards."""
        number, inner = self._place(document)
        return int(self._arrays(number).licences[inner])

    def _place(self, document: int) -> tuple[int, int]:
        if not 0 <= document < self.count:
            raise IndexError(f"document {document} of {self.count}")
        number = bisect_right(self._ends, document)
        return number, document - (self._ends[number - 1] if number else 0)

    def _arrays(self, number: int) -> ShardArrays:
        found = self._mapped.get(number)
        if found is None:
            found = self._mapped[number] = self._files[number].map()
            if len(self._mapped) > MAPPED_FILES:
                self._mapped.popitem(last=False)
        else:
            self._mapped.move_to_end(number)
        return found


@dataclass(frozen=True)
class ShardSource:
    """One source of documents."""

    name: str
    licence: str
    language: str | None
    splits: Mapping[Split, Documents]

    def split(self, name: Split) -> Documents:
        """Its documents to learn from (`train`), or those that are held out (`held_out`)."""
        return self.splits[name]


@dataclass(frozen=True)
class Shards:
    """An opened folder of shards."""

    path: Path
    identity: str
    """The digest of the manifest."""
    index: ShardIndex
    sources: Mapping[str, ShardSource]
    """By name, in the order of the recipe that made them."""

    @property
    def vocabulary_identity(self) -> str:
        """See `vocabulary_identity`."""
        return self.index.vocabulary.identity

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        return self.index.vocabulary.size

    @property
    def bos_id(self) -> int | None:
        """Begins every document; None: nothing does."""
        return self.index.vocabulary.bos_id

    @property
    def eos_id(self) -> int:
        """Ends every document."""
        return self.index.vocabulary.eos_id

    @property
    def licences(self) -> tuple[str, ...]:
        """What `Documents.licence` numbers."""
        return self.index.licences

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every file, and hold it against its digest and the vocabulary.

        Args:
            progress: Called with the files that are done, and their number.

        Raises:
            InputError: A file is not the one that was written, or holds an id that the vocabulary
                has not; the file and the position are named.
        """
        files = [file for source in self.index.sources for file in source.files]
        for done, told in enumerate(files):
            if progress is not None:
                progress(done, len(files))
            self._verify(told)
        if progress is not None:
            progress(len(files), len(files))

    def _verify(self, told: ToldFile) -> None:
        path = self.path / told.name
        arrays = open_shard_file(path).map()
        for first in range(0, len(arrays.tokens), _CHECKED_TOKENS):
            ids = arrays.tokens[first : first + _CHECKED_TOKENS]
            if int(ids.max()) >= self.vocabulary_size:
                raise _beyond(path, ids, first, self.vocabulary_size)
        if int(arrays.licences.max()) >= len(self.licences):
            raise InputError("names a licence that shards.json has not", where=path, fix=_AGAIN)
        if digest_file(path) != told.sha256:
            raise InputError(
                "is damaged: its digest is not the one that was written", where=path, fix=_AGAIN
            )


def open_shards(path: Path) -> Shards:
    """Open a folder that `puna tokenize` made.

    Everything that is cheap is checked: the index, and of every file its size, its header, the
    vocabulary that it names and where its documents lie. `Shards.verify` reads the rest.

    Raises:
        InputError: It is no such folder, or a file is missing, cut short, of another vocabulary,
            or not what the index says.
    """
    index, identity = read_index(path)
    sources = {source.name: _open_source(path, source, index) for source in index.sources}
    return Shards(path, identity, index, MappingProxyType(sources))


def vocabulary_identity(tokenizer: Tokenizer) -> str:
    """A digest over what each id stands for: two vocabularies have one if their ids are the same.

    It does not depend on the file that the vocabulary was read from, nor on chat templates.
    """
    return digest_json(
        {
            "scheme": tokenizer.scheme,
            "tokens": [_token(tokenizer, index) for index in range(tokenizer.vocab_size)],
            "special": sorted(tokenizer.special_tokens.items()),
            "bos": tokenizer.bos_id,
            "eos": tokenizer.eos_id,
        }
    )


def _token(tokenizer: Tokenizer, index: int) -> str | None:
    try:
        return tokenizer.id_to_token(index)
    except InputError:  # an id that no token has
        return None


def _open_source(path: Path, told: ToldSource, index: ShardIndex) -> ShardSource:
    files: dict[Split, list[ShardFile]] = {"train": [], "held_out": []}
    for file in told.files:
        opened = open_shard_file(path / file.name)
        _check(opened, file, told.name, index)
        files[file.split].append(opened)
    splits = {split: Documents(found, index.vocabulary.size) for split, found in files.items()}
    for split, documents in splits.items():
        expected = sum(file.text_bytes for file in told.files if file.split == split)
        if int(documents.text_bytes.sum()) != expected:
            raise InputError(
                f"the {split} files of {told.name} do not say the bytes of text that shards.json "
                "does",
                where=path,
                fix=_AGAIN,
            )
    return ShardSource(told.name, told.licence, told.language, MappingProxyType(splits))


def _check(opened: ShardFile, told: ToldFile, source: str, index: ShardIndex) -> None:
    """A file must be the one that the index speaks of."""
    wanted = index.vocabulary.identity
    if opened.label.vocabulary != wanted:
        raise InputError(
            f"is a shard of another vocabulary ({opened.label.vocabulary[:16]}); those of this "
            f"folder are of {wanted[:16]}",
            where=opened.path,
            fix="tokenize all sources with one vocabulary",
        )
    pairs = (
        ("source", opened.label.source, source),
        ("split", opened.label.split, told.split),
        ("documents", opened.documents, told.documents),
        ("tokens", opened.tokens, told.tokens),
        ("dtype", opened.dtype, index.dtype),
    )
    for name, found, expected in pairs:
        if found != expected:
            raise InputError(
                f"is not the file that shards.json names: {name} is {found}, expected {expected}",
                where=opened.path,
                fix=_AGAIN,
            )


def _beyond(path: Path, ids: Array, first: int, size: int) -> InputError:
    place = int((ids >= size).argmax())
    return InputError(
        f"token {first + place} is {int(ids[place])}, beyond the vocabulary of {size} ids",
        where=path,
        fix=_AGAIN,
    )
