"""The shards of a pretraining run: opened, held against one another, and dealt out as batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from puna.artifact import MANIFEST, digest_json, read_manifest
from puna.errors import InputError
from puna.flows.pretrain_recipe import PretrainRecipe
from puna.scale.world import World
from puna.store.checkpoint import TokenizerFiles
from puna.tokens import Tokenizer, open_tokenizer
from puna.tokens.shard_loader import HeldOut, ShardLoader, held_out_batches
from puna.tokens.shards import Documents, Shards, ShardSource, open_shards, vocabulary_identity

VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Material:
    """The shards of a run, all of one vocabulary."""

    shards: tuple[Shards, ...]
    tokenizer: Tokenizer
    sources: Mapping[str, ShardSource]
    train: Mapping[str, Documents]
    """By source; those that have any."""
    held_out: Mapping[str, Documents]
    """The same."""

    @cached_property
    def identity(self) -> str:
        """A digest over the identities of the shards."""
        return digest_json([shards.identity for shards in self.shards])

    @property
    def vocab_size(self) -> int:
        """Ids of the vocabulary."""
        return self.shards[0].vocabulary_size

    @property
    def tokens(self) -> int:
        """To learn from, each once."""
        return sum(documents.tokens for documents in self.train.values())

    def verify(self, progress: Callable[[str, int, int], None]) -> None:
        """Read everything once.

        Args:
            progress: Called with (what, done, total).

        Raises:
            InputError: A digest is not that of its file, or an id is beyond the vocabulary.
        """
        for shards in self.shards:
            shards.verify(lambda done, total: progress("checking shards", done, total))

    def told(self) -> dict[str, Any]:
        """Plain data, for the report."""
        return {
            "shards": [str(shards.path) for shards in self.shards],
            "identity": self.identity,
            "vocabulary": {
                "size": self.vocab_size,
                "identity": self.shards[0].vocabulary_identity,
            },
            "sources": {name: self._told_source(name) for name in self.sources},
        }

    def _told_source(self, name: str) -> dict[str, Any]:
        source = self.sources[name]
        train, held_out = (source.split(split) for split in ("train", "held_out"))
        return {
            "licence": source.licence,
            "language": source.language,
            "documents": train.count,
            "tokens": train.tokens,
            "text_bytes": int(train.text_bytes.sum()),
            "held_out_documents": held_out.count,
            "held_out_tokens": held_out.tokens,
        }

    def lines(self) -> list[str]:
        """The same for a terminal."""
        found = []
        for name in self.sources:
            told = self._told_source(name)
            found.append(
                f"{name}: {told['documents']:,} documents, {told['tokens']:,} tokens; held out "
                f"{told['held_out_documents']:,} documents, {told['held_out_tokens']:,} tokens"
            )
        return [*found, f"vocabulary: {self.vocab_size:,} tokens"]

    def ancestors(self) -> list[dict[str, Any]]:
        """What the manifests of the shards say, for the lineage of the model."""
        found = []
        for shards in self.shards:
            told = read_manifest(shards.path / MANIFEST)
            if told is not None:
                kept = {"digest": told["digest"], **told["identity"], **told["measured"]}
                found.append({key: value for key, value in kept.items() if key != "files"})
        return found


def open_material(folders: Sequence[Path]) -> Material:
    """Open shards, and refuse those that do not go together.

    Args:
        folders: What `puna tokenize` made.

    Raises:
        InputError: A folder is missing or damaged, the vocabularies differ, two folders have a
            source of the same name, or there is nothing to learn from.
    """
    opened = tuple(open_shards(folder) for folder in folders)
    for other in opened[1:]:
        _check_same_vocabulary(opened[0], other)
    sources: dict[str, ShardSource] = {}
    for shards in opened:
        for name, source in shards.sources.items():
            if name in sources:
                raise InputError(
                    f"has a source {name!r}, as another folder of the run does",
                    where=shards.path,
                    fix="tokenize one of them under another name",
                )
            sources[name] = source
    splits = {
        split: {
            name: found for name, source in sources.items() if (found := source.split(split)).count
        }
        for split in ("train", "held_out")
    }
    if not splits["train"]:
        raise InputError("hold no document to learn from", where=", ".join(map(str, folders)))
    return Material(opened, _tokenizer(opened[0]), sources, splits["train"], splits["held_out"])


def _check_same_vocabulary(first: Shards, other: Shards) -> None:
    if other.vocabulary_identity == first.vocabulary_identity:
        return
    raise InputError(
        f"was made with another vocabulary ({other.vocabulary_size:,} tokens, identity "
        f"{other.vocabulary_identity[:16]}) than {first.path} ({first.vocabulary_size:,} tokens, "
        f"{first.vocabulary_identity[:16]})",
        where=other.path,
        fix=f"tokenize its texts with vocabulary: {{model: {first.path}}}",
    )


def _tokenizer(shards: Shards) -> Tokenizer:
    """The vocabulary that lies beside shards."""
    files = {
        name: (shards.path / name).read_bytes()
        for name in VOCABULARY_FILES
        if (shards.path / name).is_file()
    }
    tokenizer = open_tokenizer(
        TokenizerFiles(files), where=shards.path, vocab_size=shards.vocabulary_size
    )
    found = vocabulary_identity(tokenizer)
    if found != shards.vocabulary_identity:
        raise InputError(
            f"its vocabulary (identity {found[:16]}) is not the one that its shards were made "
            f"with ({shards.vocabulary_identity[:16]})",
            where=shards.path,
            fix="put the files of the vocabulary back, or tokenize again",
        )
    return tokenizer


def make_loader(
    recipe: PretrainRecipe, material: Material, steps: int | None, world: World
) -> ShardLoader:
    """The batches of this rank.

    Args:
        recipe: Says how large they are, and of what.
        material: The documents.
        steps: Optimizer steps; None: as many as the mixture has, which may be without end.
        world: The ranks.

    Raises:
        InputError: The mixture does not fit the sources, there is too little text, or batches
            cannot be dealt out.
    """
    return ShardLoader(
        material.train,
        recipe.mixture,
        recipe.rows.settled(world.size, world.device.type),
        seed=recipe.train.seed,
        steps=steps,
        rank=world.rank,
        size=world.size,
    )


def steps_of(recipe: PretrainRecipe, material: Material, world: World) -> int | None:
    """Optimizer steps of the run; None where time alone ends it.

    Args:
        recipe: Says how long the run is.
        material: The documents.
        world: The ranks.

    Raises:
        InputError: The mixture does not fit the sources, there is too little text for a row, less
            than is asked, or nothing says how long the run is.
    """
    asked = recipe.train.max_steps
    if recipe.tokens is not None:
        asked = -(-recipe.tokens // recipe.step_tokens)
    most = make_loader(recipe, material, None, world).max_steps
    if most is None:
        if asked is None and recipe.train.max_seconds is None:
            raise InputError(
                "a mixture by weights never ends, and nothing says how long the run is",
                fix="set tokens, or train.max_seconds",
            )
        return asked
    if asked is not None and asked > most:
        raise InputError(
            f"{asked:,} steps of {recipe.step_tokens:,} tokens are asked for, and the mixture has "
            f"text for {most:,}",
            fix="ask for fewer, read the sources more than once by mixture.epochs, or mix them by "
            "mixture.weights, which never end",
        )
    return most if asked is None else asked


def held_out_of(recipe: PretrainRecipe, material: Material) -> dict[str, HeldOut]:
    """What the model is judged on, by source.

    Args:
        recipe: Says how much.
        material: The documents.
    """
    vocabulary = material.shards[0]
    found = {
        name: held_out_batches(
            documents,
            recipe.rows,
            max_tokens=recipe.evaluation.max_tokens,
            bos_id=vocabulary.bos_id,
            eos_id=vocabulary.eos_id,
        )
        for name, documents in material.held_out.items()
    }
    return {name: one for name, one in found.items() if any(b.trained for b in one.batches)}


def mean_context(documents: Iterable[Documents], row_tokens: int, *, separate: bool) -> float:
    """How many tokens a token attends to on the average, itself included.

    Args:
        documents: What is read.
        row_tokens: Tokens of a row.
        separate: Whether documents of a row do not see one another; a longer document is cut.
    """
    if not separate:
        return (row_tokens + 1) / 2
    pairs = tokens = 0.0
    for source in documents:
        lengths = np.asarray(source.lengths, dtype=np.float64)
        whole, rest = np.floor(lengths / row_tokens), np.mod(lengths, row_tokens)
        pairs += float((whole * row_tokens * (row_tokens + 1) / 2 + rest * (rest + 1) / 2).sum())
        tokens += float(lengths.sum())
    return pairs / tokens if tokens else 0.0
