"""The work that both sides of the tokenizing bench do, and what each reports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class Spec:
    """One run of one side."""

    text: str  # JSON lines with `text`
    vocabulary: str  # a folder with tokenizer.json and what goes beside it
    out: str
    data: str  # digest of the text
    threads: int = 2
    plain: bool = False  # the peer alone: the library `tokenizers` by itself within `map`

    PLACES: ClassVar[tuple[str, ...]] = ("text", "vocabulary", "out")

    @classmethod
    def read(cls, path: str) -> Spec:
        return cls(**json.loads(Path(path).read_text()))


def digest(documents: Iterable[np.ndarray]) -> str:
    """Of the tokens of all documents, in whatever order they lie."""
    each = sorted(hashlib.sha256(ids.astype(np.uint32).tobytes()).digest() for ids in documents)
    return hashlib.sha256(b"".join(each)).hexdigest()
