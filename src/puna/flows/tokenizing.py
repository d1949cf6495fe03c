"""From documents to shards of tokens, in a folder that appears whole."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from puna.artifact import check_free, digest_json
from puna.errors import InputError
from puna.flows.tokenize_corpus import corpus_parents, with_corpus
from puna.flows.tokenize_data import Document, check_columns, read_source, source_files, stamps
from puna.flows.tokenize_encoding import Waiting, encode_all
from puna.flows.tokenize_place import (
    Workspace,
    open_workspace,
    publish,
    sweep_workspace,
    told_files,
)
from puna.flows.tokenize_plan import Plan, SourcePlan, load_plan, make_plan, save_plan
from puna.flows.tokenize_recipe import TokenizeRecipe
from puna.flows.tokenize_split import HELD_OUT, TRAIN
from puna.flows.tokenize_vocabulary import Base, load_vocabulary, make_vocabulary, open_base
from puna.flows.watcher import Watcher
from puna.flows.workspace import ASKED, is_made
from puna.meter import Meter
from puna.records import Quarantine, find_files
from puna.scale.cores import cores
from puna.tokens import Tokenizer
from puna.tokens.fertility import FertilityCounter
from puna.tokens.shard_file import SPLITS, VERSION, ShardLabel, Split, token_dtype
from puna.tokens.shard_index import KIND, ShardIndex, ToldSource, ToldVocabulary, read_index
from puna.tokens.shard_writer import ShardWriter, TokenDocument
from puna.tokens.shards import vocabulary_identity

MEASURED_DOCUMENTS = 1000  # of a source that holds nothing out, for fertility
_SPLIT_OF: Mapping[int, Split] = {TRAIN: "train", HELD_OUT: "held_out"}


@dataclass(frozen=True)
class TokenizeOptions:
    """Where the shards go."""

    out: Path
    """The folder to make."""
    force: bool = False
    """Replace the shards that are there, and leave unfinished work."""
    command: str = ""
    """What repeats the run, for the manifest."""


@dataclass(frozen=True)
class TokenizeResult:
    """What a run made."""

    path: Path
    index: ShardIndex
    identity: str
    """See `puna.tokens.shards.Shards.identity`."""
    fresh: bool
    """False: all was there already."""
    tokens_encoded: int
    """By this process."""
    seconds: float
    """That this process took to encode them."""

    @property
    def tokens_per_second(self) -> float:
        """Of the encoding; 0 where nothing was left to do."""
        return self.tokens_encoded / self.seconds if self.tokens_encoded else 0.0

    def lines(self) -> list[str]:
        """For a terminal: tokens by source, what was dropped, fertility, the rate."""
        index = self.index
        found = [_source_line(source) for source in index.sources]
        found += [f"left out   {count:,} x {why}" for why, count in index.dropped.items()]
        size = f"{index.vocabulary.size:,} tokens, stored as {index.dtype}"
        found += [f"vocabulary {size}", *FertilityCounter.from_dict(index.fertility).lines()]
        if self.tokens_encoded:
            rate = f"{self.tokens_per_second:,.0f} tokens/s"
            found.append(f"rate       {rate} over {self.tokens_encoded:,} tokens")
        return found


def tokenize(recipe: TokenizeRecipe, options: TokenizeOptions, watcher: Watcher) -> TokenizeResult:
    """Make shards of documents.

    The same call again goes on where a killed one was left, and ends with the same bits.

    Raises:
        InputError: Something in the recipe, the files, the vocabulary or the folder is not right.
    """
    out = options.out
    if not out.parent.is_dir():
        check_free(out, folder=True)
    recipe = with_corpus(recipe)
    files = source_files(recipe)
    base = open_base(recipe.vocabulary)
    asked = _asked(recipe, files, base)
    if not options.force and is_made(out, KIND, asked):
        sweep_workspace(out)
        return _result(out, fresh=False, tokens=0, seconds=0.0)
    check_free(out, force=options.force, folder=True)
    for name, source in recipe.sources.items():
        check_columns(name, source, files[name])
    with (
        Meter(recipe.meter) as meter,
        open_workspace(out, asked, force=options.force) as workspace,
    ):
        run = _Run(recipe, files, base, workspace, meter, watcher)
        if workspace.begun:
            watcher.note(f"going on with what an earlier run left in {workspace.path}")
        try:
            run.encode()
        except KeyboardInterrupt:
            watcher.note("what is done is kept; the same command goes on")
            raise
        if _asked(recipe, files, base) != asked:
            raise InputError(
                "some files changed while they were read", fix="begin again with --force"
            )
        measured = {
            ASKED: asked,
            "command": options.command,
            "host": f"{platform.system()} {platform.machine()}",
            "cost": meter.to_dict(),
        }
        publish(
            workspace,
            out,
            run.index(),
            config=run.config(),
            parents=corpus_parents(recipe),
            measured=measured,
            force=options.force,
        )
    return _result(out, fresh=True, tokens=run.tokens, seconds=run.seconds)


class _Run:
    """One run in its workspace."""

    def __init__(
        self,
        recipe: TokenizeRecipe,
        files: Mapping[str, list[Path]],
        base: Base | None,
        workspace: Workspace,
        meter: Meter,
        watcher: Watcher,
    ) -> None:
        self.recipe, self.files, self.base = recipe, files, base
        self.workspace, self.meter, self.watcher = workspace, meter, watcher
        self.fertility = FertilityCounter()
        self.tokens, self.seconds = 0, 0.0

    @cached_property
    def plan(self) -> Plan:
        """What becomes of each document; that of an earlier process where it is there."""
        if not self.workspace.plan.is_dir():
            with self.meter.stage("reading"):
                save_plan(
                    self.workspace.plan, make_plan(self.recipe, self.files, self.watcher.progress)
                )
        plan = load_plan(self.workspace.plan)
        for note in plan.notes:
            self.watcher.note(note)
        self.watcher.lines("documents", plan.lines())
        return plan

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary; that of an earlier process where it is there."""
        folder = self.workspace.vocabulary
        if not folder.is_dir():
            with self.meter.stage("vocabulary"):
                make_vocabulary(
                    self.recipe.vocabulary, self.base, self._sample(), folder, self.watcher.note
                )
        return load_vocabulary(folder)

    @cached_property
    def identity(self) -> str:
        """Of the vocabulary."""
        return vocabulary_identity(self.tokenizer)

    @cached_property
    def _framing(self) -> int:
        """Tokens of a document that stand for none of its text."""
        return 1 + self.tokenizer.add_bos

    def encode(self) -> None:
        """Fill the workspace with what is missing of the shards."""
        plan = self.plan
        assert self.tokenizer.eos_id is not None, "checked where it was opened"
        began = time.perf_counter()
        with self.meter.stage("encoding") as cost:
            before = self.tokens
            for name in self.recipe.sources:
                self._encode_source(name, plan.sources[name])
            cost.tokens += self.tokens - before
        self.seconds = time.perf_counter() - began

    def index(self) -> ShardIndex:
        """What shards.json is to say: counted from the files."""
        tokenizer = self.tokenizer
        assert tokenizer.eos_id is not None
        sources = tuple(
            ToldSource(
                name, source.licence, source.language, told_files(self.workspace.source(name), name)
            )
            for name, source in self.recipe.sources.items()
        )
        vocabulary = ToldVocabulary(
            self.identity,
            tokenizer.vocab_size,
            tokenizer.bos_id if tokenizer.add_bos else None,
            tokenizer.eos_id,
        )
        return ShardIndex(
            VERSION,
            vocabulary,
            token_dtype(tokenizer.vocab_size),
            self.plan.licences,
            sources,
            self.plan.dropped(),
            self.fertility.to_dict(),
        )

    def config(self) -> dict[str, Any]:
        """What was asked for, as the manifest tells it."""
        return {"made by": "tokenize", "data": self.plan.data, "asked": self.recipe.hashed()}

    def _encode_source(self, name: str, plan: SourcePlan) -> None:
        writers = {split: self._writer(name, split) for split in SPLITS}
        licences = {licence: number for number, licence in enumerate(self.plan.licences)}
        threads = self.recipe.threads or cores()
        done = sum(writer.kept.count for writer in writers.values())
        total = plan.count(TRAIN) + plan.count(HELD_OUT)
        told = f"tokenizing {name}"
        waiting = self._waiting(name, plan, writers)
        with closing(encode_all(waiting, self.tokenizer, threads=threads)) as encoded:
            for one in encoded:
                split, document, root, measured = one.waiting
                licence = licences.get(document.licence)
                if licence is None:
                    raise _changed(name)
                row = TokenDocument(document.id, root, licence, one.text_bytes, one.tokens)
                writers[split].add(row)
                if measured:
                    self._measure(name, document, len(one.tokens))
                self.tokens += len(one.tokens)
                done += 1
                if done % 256 == 0 and done < total:
                    self.watcher.progress(told, done, total)
        for writer in writers.values():
            writer.close()
        self.watcher.progress(told, total, total)

    def _writer(self, name: str, split: Split) -> ShardWriter:
        return ShardWriter(
            self.workspace.source(name),
            ShardLabel(self.identity, name, split),
            vocabulary_size=self.tokenizer.vocab_size,
            shard_tokens=self.recipe.shard_tokens,
        )

    def _waiting(
        self, name: str, plan: SourcePlan, writers: Mapping[Split, ShardWriter]
    ) -> Iterator[Waiting]:
        """The documents of a source that are in no whole file yet."""
        places = dict.fromkeys(SPLITS, 0)
        # Text that no vocabulary has been learnt from tells most; where there is any.
        measured = {"train": 0 if plan.count(HELD_OUT) else MEASURED_DOCUMENTS}
        for number, document in self._documents(name, plan):
            split = _SPLIT_OF.get(int(plan.decisions[number]))
            if split is None:
                continue
            place, kept = places[split], writers[split].kept
            places[split] += 1
            counts = place < measured.get(split, place + 1)
            if place >= kept.count:
                yield Waiting(split, document, plan.roots[number].tobytes(), counts)
                continue
            if kept.id(place) != document.id:
                raise _changed(name)
            if counts:
                self._measure(name, document, int(kept.lengths[place]))

    def _measure(self, name: str, document: Document, tokens: int) -> None:
        language = self.recipe.sources[name].language or name
        self.fertility.add(language, document.text, tokens - self._framing)

    def _sample(self) -> Iterator[str]:
        """The texts that a vocabulary is learnt from."""
        for name, plan in self.plan.sources.items():
            for number, document in self._documents(name, plan):
                if plan.sampled[number]:
                    yield document.text

    def _documents(self, name: str, plan: SourcePlan) -> Iterator[tuple[int, Document]]:
        """The documents of a source and their numbers, as many as when they were planned."""
        source, count = self.recipe.sources[name], len(plan.decisions)
        number = -1
        for number, document in enumerate(
            read_source(name, source, self.files[name], Quarantine())
        ):
            if number >= count:
                break
            yield number, document
        if number + 1 != count:
            raise _changed(name)


def _asked(recipe: TokenizeRecipe, files: Mapping[str, list[Path]], base: Base | None) -> str:
    """A digest over all that decides the bits of the result."""
    from puna import __version__

    judged: list[Any] = []
    if recipe.decontaminate is not None:
        named = recipe.decontaminate.files
        judged = stamps(find_files(named if isinstance(named, str) else list(named)))
    return digest_json(
        {
            "recipe": recipe.hashed(),
            "files": {name: stamps(found) for name, found in files.items()},
            "judged": judged,
            "vocabulary": None if base is None else base.identity,
            "puna": __version__,
        }
    )


def _result(out: Path, *, fresh: bool, tokens: int, seconds: float) -> TokenizeResult:
    index, identity = read_index(out)
    return TokenizeResult(out, index, identity, fresh, tokens, seconds)


def _source_line(source: ToldSource) -> str:
    told = []
    for split, word in zip(SPLITS, ("to learn from", "held out"), strict=True):
        files = [file for file in source.files if file.split == split]
        tokens = sum(file.tokens for file in files)
        told.append(f"{tokens:,} tokens of {sum(f.documents for f in files):,} documents {word}")
    return f"{source.name}: {', '.join(told)}"


def _changed(name: str) -> InputError:
    return InputError(
        "its documents are not those that were read first",
        where=f"sources.{name}",
        fix="begin again with --force, and leave its files alone meanwhile",
    )
