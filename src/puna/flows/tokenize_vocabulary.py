"""The vocabulary of a tokenizing run: taken from a model, learnt, or extended; and its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from puna.artifact import writing_folder
from puna.errors import InputError
from puna.flows.opening import MAX_STACKED, checkpoint_tokenizer, read_config
from puna.flows.products import find_product, is_tuning
from puna.flows.tokenize_plan import EXTENDING_BYTES
from puna.flows.tokenize_recipe import VocabularyChoice
from puna.store import open_checkpoint
from puna.store.files import write_side_files
from puna.store.hf import read_tokenizer_files
from puna.store.locate import locate
from puna.tokens import Tokenizer, open_tokenizer
from puna.tokens.bpe import train_vocabulary
from puna.tokens.extending import extend_vocabulary
from puna.tokens.shard_index import ORIGINS
from puna.tokens.shards import vocabulary_identity
from puna.tune import read_tuned

_FILES = ("tokenizer.json", "tokenizer.model")


@dataclass(frozen=True)
class Base:
    """The vocabulary that a recipe names."""

    tokenizer: Tokenizer
    origins: bytes | None
    """The file that says what its pieces were made of, where it was extended itself."""

    @property
    def identity(self) -> str:
        """What its ids stand for."""
        return vocabulary_identity(self.tokenizer)


def open_base(choice: VocabularyChoice) -> Base | None:
    """The vocabulary that a recipe names; None where it is to be learnt.

    Raises:
        InputError: There is no such model, or its vocabulary has no token to end a text with.
    """
    name = choice.model if choice.extend is None else choice.extend
    if name is None:
        return None
    path = _find(name)
    if path.is_dir() and any((path / file).is_file() for file in _FILES):
        tokenizer = open_tokenizer(read_tokenizer_files(path), where=path)
    else:
        checkpoint = open_checkpoint(path)
        tokenizer = checkpoint_tokenizer(checkpoint, read_config(checkpoint))
    if tokenizer.eos_id is None:
        raise InputError(
            "its vocabulary has no token that ends a text, so documents could not be told apart",
            where=name,
            fix="name another model, or learn a vocabulary (vocabulary: {train: {size: 32000}})",
        )
    origins = path / ORIGINS
    return Base(tokenizer, origins.read_bytes() if origins.is_file() else None)


def make_vocabulary(
    choice: VocabularyChoice,
    base: Base | None,
    texts: Iterable[str],
    folder: Path,
    tell: Callable[[str], None],
) -> None:
    """Make the vocabulary and write its files into a new folder: whole or absent.

    Args:
        choice: What the recipe says.
        base: What `open_base` opened.
        texts: What to learn from; not read where nothing is learnt.
        folder: The place.
        tell: Is told what a user should know.

    Raises:
        InputError: Nothing can be learnt from the texts, or the disk refused the write.
    """
    origins = None if base is None else base.origins
    if choice.train is not None:
        tokenizer = train_vocabulary(texts, choice.train, progress=tell)
    elif choice.pieces is not None and base is not None:
        extended = extend_vocabulary(
            base.tokenizer, texts, choice.pieces, max_bytes=EXTENDING_BYTES, progress=tell
        )
        tokenizer = extended.tokenizer
        origins = json.dumps([list(ids) for ids in extended.origins]).encode()
    else:
        assert base is not None, "the choice is one of three"
        tokenizer = base.tokenizer
    files = tokenizer.to_files() | ({} if origins is None else {ORIGINS: origins})
    with writing_folder(folder) as place:
        write_side_files(place, files)


def load_vocabulary(folder: Path) -> Tokenizer:
    """Open what `make_vocabulary` wrote: what is published is what encodes.

    Raises:
        InputError: The files are damaged.
    """
    return open_tokenizer(read_tokenizer_files(folder), where=folder)


def _find(name: str) -> Path:
    """The folder or file of a model; of a tuning, that of what it stands on."""
    path = find_product(locate(name).path)
    for _ in range(MAX_STACKED):
        if not is_tuning(path):
            return path
        path = find_product(locate(read_tuned(path).base.name).path)
    raise InputError(f"stands on more than {MAX_STACKED} other tunings", where=name)
