"""What a tokenizing run would do, found by looking at the first documents: nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from puna.artifact import format_bytes
from puna.flows.tokenize_contamination import read_contamination
from puna.flows.tokenize_corpus import with_corpus
from puna.flows.tokenize_data import Document, check_columns, read_source, source_files
from puna.flows.tokenize_encoding import Waiting, encode_all
from puna.flows.tokenize_recipe import TokenizeRecipe, VocabularyChoice
from puna.flows.tokenize_vocabulary import Base, open_base
from puna.records import Quarantine
from puna.scale.cores import cores

TRIED_DOCUMENTS = 1000  # of each source


def rehearse(recipe: TokenizeRecipe) -> Iterator[str]:
    """Lines that tell the sources, the vocabulary, and what would be held out and left out.

    Where there is a vocabulary already, the first documents are encoded: tokens per byte, the rate,
    and, for files that are not compressed, about how many tokens there would be.

    Args:
        recipe: The recipe.

    Raises:
        InputError: What the run itself would refuse, as far as it can be seen so early.
    """
    recipe = with_corpus(recipe)
    files = source_files(recipe)
    base = open_base(recipe.vocabulary)
    yield f"vocabulary  {_vocabulary(recipe.vocabulary, base)}"
    for name, source in recipe.sources.items():
        check_columns(name, source, files[name])
        quarantine = Quarantine()
        read = read_source(name, source, files[name], quarantine)
        tried = list(islice(read, TRIED_DOCUMENTS))
        size = sum(path.stat().st_size for path in files[name])
        yield (
            f"source      {name}: {len(files[name]):,} files, {format_bytes(size)}; licence "
            f"{source.licence}; language {source.language or 'not stated'}"
        )
        yield f"            {_texts(tried)}"
        yield from (f"            left out so far: {line}" for line in quarantine.lines())
        if base is not None and tried:
            yield f"            {_encoded(recipe, base, tried, files[name])}"
    most = "" if recipe.max_held_out is None else f", at most {recipe.max_held_out:,} of a source"
    yield f"held out    {recipe.held_out:.3%} of the documents{most}"
    yield f"duplicates  {'left out' if recipe.drop_duplicates else 'kept'}"
    if recipe.decontaminate is not None:
        notes: list[str] = []
        told = read_contamination(recipe.decontaminate, notes)
        yield f"judged on   {told.runs:,} runs of {told.words} words, left out of training"
        yield from (f"            {note}" for note in notes)


def _vocabulary(choice: VocabularyChoice, base: Base | None) -> str:
    if choice.train is not None:
        return f"to be learnt: {choice.train.kind} of {choice.train.size:,} tokens"
    assert base is not None
    size = f"{base.tokenizer.vocab_size:,} tokens"
    if choice.pieces is not None:
        return f"that of {choice.extend}, {size}, and {choice.pieces:,} pieces to be learnt"
    return f"that of {choice.model}, {size}"


def _texts(tried: Sequence[Document]) -> str:
    sizes = [len(document.text.encode()) for document in tried]
    mean = format_bytes(sum(sizes) / max(1, len(sizes)))
    most = format_bytes(max(sizes, default=0))
    return f"the first {len(tried):,} documents: {mean} each, {most} at most"


def _encoded(
    recipe: TokenizeRecipe, base: Base, tried: Sequence[Document], files: Sequence[Path]
) -> str:
    waiting = [Waiting("train", document, bytes(16), False) for document in tried]
    began = time.perf_counter()
    threads = recipe.threads or cores()
    done = list(encode_all(waiting, base.tokenizer, threads=threads))
    seconds = time.perf_counter() - began
    tokens, size = sum(len(one.tokens) for one in done), sum(one.text_bytes for one in done)
    line = f"{tokens / size:.3f} tokens per byte, {tokens / seconds:,.0f} tokens/s"
    plain = all(path.suffix in (".jsonl", ".txt", ".json") for path in files)
    if not plain or recipe.vocabulary.pieces is not None:
        return line
    # Keys and quotes count as text here: a bound from above.
    most = sum(path.stat().st_size for path in files) * tokens / size
    return f"{line}: at most about {most:,.0f} tokens, {most / (tokens / seconds):,.0f} s"
