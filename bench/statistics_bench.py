"""How fast the figures of texts are computed, per core: `python -m bench.statistics_bench`.

On web pages, encyclopedia articles, stories and speeches (`../shared/data`), and Chinese laws.
Seconds are those of the thread's CPU time, the best of several turns: neighbours on the machine
lengthen the others.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from puna.corpus.c4 import C4
from puna.corpus.characters import character_table
from puna.corpus.schema import Found, make_batch
from puna.corpus.statistics import Statistics
from puna.corpus.text_twin import text_figures

TURNS = 7
BATCH_ROWS = 500


def data_folder() -> Path:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    return Path(os.environ.get("PUNA_DATA", beside))


def english() -> Iterator[str]:
    samples = data_folder() / "lm-samples"
    for name, end in (("c4-web", "\n"), ("enwiki-docs", "</doc>\n"), ("tinystories", "\n\n")):
        with gzip.open(samples / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
            yield from file.read().split(end)
    yield from lines_of("sotu/sotu.jsonl.gz")


def lines_of(place: str) -> Iterator[str]:
    with gzip.open(data_folder() / place, "rt", encoding="utf-8") as file:
        for line in file:
            yield str(json.loads(line)["text"])


def batches(texts: list[str], language: str) -> list[pa.RecordBatch]:
    found = [Found(str(row), text, language=language) for row, text in enumerate(texts)]
    starts = range(0, len(found), BATCH_ROWS)
    return [make_batch("bench", found[start : start + BATCH_ROWS]) for start in starts]


def seconds_of(work: Callable[[], object], turns: int = TURNS) -> float:
    found = []
    for _ in range(turns):
        start = time.thread_time()
        work()
        found.append(time.thread_time() - start)
    return min(found)


def rate_of_twin(texts: list[str]) -> float:
    """MB/s of plain Python, on a few texts."""
    few = texts[:40]
    character_table("puna")
    start = time.thread_time()
    for text in few:
        text_figures(text, "puna", ("the",), 30)
    return megabytes(few) / (time.thread_time() - start)


def megabytes(texts: list[str]) -> float:
    return sum(len(text.encode("utf-8")) for text in texts) / 1e6


def main() -> None:
    steps = (
        ("statistics", Statistics()),
        ("statistics, datatrove's words", Statistics(splitter="datatrove")),
        ("c4 (lines)", C4()),
    )
    for language, texts in (
        ("en", list(english())),
        ("zh", list(lines_of("zh-laws/laws.jsonl.gz"))),
    ):
        rows, size = batches(texts, language), megabytes(texts)
        print(f"{language}: {len(texts)} texts, {size:.1f} MB")
        for name, step in steps:
            apply = step.open()
            apply(rows[0])
            seconds = seconds_of(lambda apply=apply, rows=rows: [apply(batch) for batch in rows])
            print(f"  {name:32} {size / seconds:6.1f} MB/s per core")
        print(f"  {'the twin in plain Python':32} {rate_of_twin(texts):6.2f} MB/s per core")


if __name__ == "__main__":
    main()
