"""Small sources, a recipe for them, and what a run of it left behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from flows.tuning_setup import Heard, write_rows
from puna.config import from_dict
from puna.flows.tokenize_recipe import TokenizeRecipe
from puna.flows.tokenizing import TokenizeOptions, TokenizeResult, tokenize
from puna.tokens.shards import Documents, Shards, open_shards

WORDS = ("llama", "sea", "time", "grass", "high", "there", "where", "once", "upon", "land", "ask")
SMALL = {"train": {"size": 320}}


def text(number: int) -> str:
    """A text that is no other number's."""
    words = [WORDS[(number * step + step) % 11] for step in range(1, 9)]
    return f"Once upon a time, number {number}: {' '.join(words)}. 大羊驼 {number}\nÜber die See."


def rows(count: int, *, begin: int = 0) -> list[dict[str, Any]]:
    """Different documents."""
    return [{"text": text(number)} for number in range(begin, begin + count)]


def asked(
    folder: Path,
    sources: Mapping[str, Sequence[Mapping[str, Any]]],
    vocabulary: Mapping[str, Any],
    **changes: Any,
) -> dict[str, Any]:
    """A recipe as plain data, whose sources are written into a folder."""
    folder.mkdir(exist_ok=True)
    named = {
        name: {"files": str(write_rows(folder / f"{name}.jsonl", given)), "licence": "CC0-1.0"}
        for name, given in sources.items()
    }
    return {
        "sources": named,
        "vocabulary": dict(vocabulary),
        "held_out": 0.1,
        "shard_tokens": 1500,
        "threads": 2,
        "meter": {"use_codecarbon": False},
        **changes,
    }


def run(
    out: Path, recipe: Mapping[str, Any], heard: Heard | None = None, **options: bool
) -> TokenizeResult:
    """Tokenize as a recipe of plain data says."""
    config = from_dict(TokenizeRecipe, recipe, "recipe")
    return tokenize(config, TokenizeOptions(out, **options), heard or Heard())


def content(folder: Path) -> dict[str, str]:
    """Digests of all files; of the manifest, of the part that does not tell the time."""
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    told = json.loads((folder / "manifest.json").read_text())
    return found | {"manifest.json": json.dumps([told["identity"], told["digest"]])}


def backend_of(folder: Path) -> Backend:
    """The vocabulary of shards, opened by the library itself."""
    return Backend.from_file(str(folder / "tokenizer.json"))


def tokens_of(documents: Documents) -> list[list[int]]:
    """All tokens, by document."""
    return [
        documents.read(number, 0, int(length)).tolist()
        for number, length in enumerate(documents.lengths)
    ]


def texts_of(folder: Path, shards: Shards | None = None) -> dict[str, dict[str, list[str]]]:
    """The texts by source and split, decoded by the library itself."""
    backend = backend_of(folder)
    shards = shards or open_shards(folder)
    return {
        name: {
            split: [backend.decode(ids) for ids in tokens_of(source.split(split))]
            for split in ("train", "held_out")
        }
        for name, source in shards.sources.items()
    }


def left_behind(out: Path) -> list[str]:
    """What lies beside the folder and is not it."""
    return [path.name for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")]
