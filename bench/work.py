"""The common work: the same weights in several formats, the same prompts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from puna.flows.convert import ConvertOptions, convert
from puna.store.locate import locate

PROMPT = (
    "The history of the domestication of animals in South America begins high in the Andes, "
    "where people and llamas have lived together for thousands of years. "
)


@dataclass(frozen=True)
class Work:
    """Where the weights are."""

    quantized: Path  # llama-base as its package carries it
    folder: Path  # the same weights as float32 safetensors
    single: Path  # the same weights as a float32 GGUF
    kept: Path | None = None  # where long benches keep what they have measured


@contextmanager
def prepared(kept: Path | None = None) -> Iterator[Work]:
    """Convert llama-base into a temporary folder, and remove it at the end."""
    place = Path(tempfile.mkdtemp(prefix="puna-bench-"))
    try:
        source = locate("llama-base").path
        work = Work(source, place / "hf", place / "f32.gguf", kept)
        convert(source, work.folder, ConvertOptions(to="hf"), progress=_ignore)
        convert(work.folder, work.single, ConvertOptions(to="gguf"), progress=_ignore)
        yield work
    finally:
        shutil.rmtree(place, ignore_errors=True)


def prompt_ids(tokens: int) -> list[int]:
    """A prompt of exactly so many tokens, of ordinary English."""
    import puna

    text = PROMPT * (tokens // 20 + 1)
    ids = puna.load("llama-base").tokenizer.encode(text)
    return ids[:tokens]


def _ignore(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
