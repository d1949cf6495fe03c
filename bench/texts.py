"""English text for the benches of tokenizing and pretraining: as documents, and as shards."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.work import Work

VOCABULARY = 8192
SOURCE = "english"
_GROUP = 50  # speeches of a play that make a document


@dataclass(frozen=True)
class Material:
    """The same text in the forms that the sides take."""

    text: Path  # JSON lines with `id` and `text`
    shards: Path  # of a vocabulary that was learnt from it, 1 % held out
    digest: str  # over the text
    documents: int
    text_bytes: int


def material(work: Work, part: str) -> Material | None:
    """Write the text and tokenize it, once for all parts; None where there is none."""
    data = Path(os.environ.get("PUNA_DATA", "../shared/data"))
    if not (data / "sotu").is_dir():
        print(f"{part} is left out: no data at {data}", file=sys.stderr)
        return None
    folder = work.folder.parent / "texts"
    text, shards = folder / "text.jsonl", folder / "shards"
    if not shards.exists():
        folder.mkdir(exist_ok=True)
        _write(data, text)
        _tokenize(text, shards)
    found = [json.loads(line)["text"] for line in text.open(encoding="utf-8")]
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    return Material(text, shards, digest, len(found), sum(len(one.encode()) for one in found))


def _write(data: Path, path: Path) -> None:
    """Every document once, in an order that mixes them; as much as PUNA_BENCH_TEXT_MB says."""
    from puna.records.documents import text_key  # a text that comes twice would be left out

    documents = list({text_key(text): text for text in _documents(data)}.values())
    random.Random(0).shuffle(documents)
    left = float(os.environ.get("PUNA_BENCH_TEXT_MB", "1000")) * 1e6
    with path.open("w", encoding="utf-8") as file:
        for text in documents:
            if left <= 0:
                break
            left -= len(text.encode())
            name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            file.write(json.dumps({"id": name, "text": text}) + "\n")


def _documents(data: Path) -> Iterator[str]:
    """Articles, speeches, chapters, web pages and scenes, about 19 MB."""
    for part in ("valid", "test"):
        whole = _read(data / "wikitext-2" / f"{part}.txt.gz")
        yield from _cut(whole, r"^(?= = [^=].* = *$)")
    yield from _cut(_read(data / "books" / "moby-dick.txt.gz"), r"^(?=CHAPTER \d)")
    for line in _read(data / "sotu" / "sotu.jsonl.gz").splitlines():
        yield json.loads(line)["text"].strip()
    pages = _read(data / "lm-samples" / "enwiki-docs.txt.gz")
    yield from _cut(pages, r"^(?:<doc [^\n]*>|</doc>)$")
    yield from _cut(_read(data / "lm-samples" / "c4-web.txt.gz"), r"\n")
    plays = _cut(_read(data / "tinyshakespeare" / "input.txt.gz"), r"\n\n")
    yield from ("\n\n".join(plays[i : i + _GROUP]) for i in range(0, len(plays), _GROUP))


def _read(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def _cut(whole: str, pattern: str) -> list[str]:
    parts = re.split(pattern, whole, flags=re.MULTILINE)
    return [part.strip() for part in parts if part.strip()]


def _tokenize(text: Path, shards: Path) -> None:
    from puna.config import from_dict
    from puna.flows.tokenize_recipe import TokenizeRecipe
    from puna.flows.tokenizing import TokenizeOptions, tokenize

    recipe = {
        "sources": {SOURCE: {"files": str(text), "licence": "several"}},
        "vocabulary": {"train": {"size": VOCABULARY}},
        "held_out": 0.01,
        "threads": 2,
        "meter": {"use_codecarbon": False},
    }
    tokenize(from_dict(TokenizeRecipe, recipe), TokenizeOptions(shards), quiet())


def quiet() -> Any:
    """A watcher that tells nobody."""
    from puna.train import Silent

    class Quiet(Silent):
        def progress(self, what: str, done: int, total: int) -> None:
            """Nothing."""

        def lines(self, title: str, lines: list[str]) -> None:
            """Nothing."""

    return Quiet()
