"""Texts that quality rules are tried on: generated ones, and a batch made of any."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from hypothesis import strategies as st

from puna.corpus.schema import Found, make_batch

PIECES = (
    *("a", "b", "ab", " ", "\n", "\n\n", "\r\n", "\x0b", "\u2028", "\x85", "\u3000", "\t"),
    *(".", "...", "…", "?", "!", '"', "'", "’", "”", "-", "•", "#", ",", "{", "[1]", "[edit]"),
    *("[citation needed]", "_", "__", "==", "中", "国", "。", "，", "「", "」", "カ", "ー", "１"),
    *("é", "e\u0301", "\u200d", "\u200b", "\xad", "\ufeff", "\U0001f468", "❤\ufe0f", "\x00"),
    *("1", "2.5", "1,000", "don't", "l’eau", "the ", "of ", "and ", "word ", "longer words here "),
    *("JavaScript", "lorem Ipsum", "use coo\u212aies", "Terms of use", "A sentence stands here. "),
    *("Another one is here, too.\n", "不是的。", "\U000e0001", "\U0010ffff", "ſ", "İ", "ΑΣ"),
)
"""What tells the rules apart: marks, breaks, spaces, scripts and phrases."""

texts = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
    # The same again and again, so that all kinds of repetition are met.
    st.builds(
        lambda pieces, times: "".join(pieces * times),
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=25),
        st.integers(1, 6),
    ),
)


def batch_of(found: Sequence[str], languages: Sequence[str | None] | None = None) -> pa.RecordBatch:
    """Documents with these texts."""
    codes = languages or [None] * len(found)
    return make_batch(
        "test",
        [
            Found(locator=str(number), text=text, language=code)
            for number, (text, code) in enumerate(zip(found, codes, strict=True))
        ],
    )


def real_texts(shared_data: Path, each: int) -> list[str]:
    """So many web pages, encyclopedia articles, stories, speeches and Chinese laws."""
    samples = shared_data / "lm-samples"
    found = []
    for name, end in (("c4-web", "\n"), ("enwiki-docs", "</doc>\n"), ("tinystories", "\n\n")):
        with gzip.open(samples / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
            found += file.read().split(end)[:each]
    for place in ("sotu/sotu.jsonl.gz", "zh-laws/laws.jsonl.gz"):
        with gzip.open(shared_data / place, "rt", encoding="utf-8") as file:
            lines = [next(file) for _ in range(each)]
        found += [str(json.loads(line)["text"])[:20_000] for line in lines]
    return found
