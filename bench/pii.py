"""`python -m bench.pii`: precision and recall by kind on annotated sentences, and MB/s."""

from __future__ import annotations

import gzip
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from puna.corpus.pii import COMMON_KINDS, DETECTORS, Kind, PiiConfig, find_personal
from puna.corpus.schema import Found, make_batch

KINDS_BY_ENTITY: dict[str, Kind] = {
    "EMAIL_ADDRESS": "email",
    "IP_ADDRESS": "ip",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "US_SSN": "national_id",
}
DOCUMENT_CHARS = 8000
TURNS = 3


def main() -> None:
    """Print both tables."""
    data = Path(os.environ.get("PUNA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    print("\n".join(accuracy(data / "presidio-pii" / "synth_dataset_v2.json.gz")))
    print()
    print("\n".join(speed(real_texts(data))))


def accuracy(path: Path) -> Iterator[str]:
    """Spans that overlap one of the same kind are right; `exact` are those with the same ends."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = json.load(file)
    wanted, found, hit, right, exact = (Counter[Kind]() for _ in range(5))
    for row in rows:
        gold = [
            (KINDS_BY_ENTITY[span["entity_type"]], span["start_position"], span["end_position"])
            for span in row["spans"]
            if span["entity_type"] in KINDS_BY_ENTITY
        ]
        spans = [(s.kind, s.start, s.stop) for s in find_personal(row["full_text"], COMMON_KINDS)]
        wanted.update(kind for kind, _, _ in gold)
        found.update(kind for kind, _, _ in spans)
        hit.update(one[0] for one in gold if any(map(overlaps(one), spans)))
        right.update(one[0] for one in spans if any(map(overlaps(one), gold)))
        exact.update(one[0] for one in gold if one in spans)
    yield f"{len(rows)} sentences of {path.parent.name}/{path.name}"
    yield "| kind | annotated | found | recall | precision | exact |"
    yield "|---|---:|---:|---:|---:|---:|"
    for kind in COMMON_KINDS:
        if wanted[kind] or found[kind]:
            recall, same = (n[kind] / max(wanted[kind], 1) for n in (hit, exact))
            precision = right[kind] / max(found[kind], 1)
            yield (
                f"| {kind} | {wanted[kind]} | {found[kind]} | {recall:.3f} | {precision:.3f}"
                f" | {same:.3f} |"
            )


def overlaps(one: tuple[Kind, int, int]) -> Callable[[tuple[Kind, int, int]], bool]:
    return lambda other: one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def real_texts(data: Path) -> list[str]:
    """English, Chinese and code-like text, cut into documents."""
    texts = []
    for name in ("wikitext-2", "lm-samples", "sotu", "zh-laws", "pydocs-en-zh"):
        for path in sorted((data / name).rglob("*.gz")):
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
                text = file.read(6_000_000)
            texts += [text[i : i + DOCUMENT_CHARS] for i in range(0, len(text), DOCUMENT_CHARS)]
    return texts


def speed(texts: list[str]) -> Iterator[str]:
    """Medians over some turns on one core."""
    batch = make_batch("bench", [Found(str(n), text) for n, text in enumerate(texts)])
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    yield f"{len(texts)} documents, {megabytes:.1f} MB, CPU time of one core, median of {TURNS}"
    yield "| what | MB/s | documents that pass |"
    yield "|---|---:|---:|"
    texts_column: pa.Array = batch.column("text")
    for detector in DETECTORS:
        seconds = timed(
            lambda d=detector: pc.match_substring_regex(texts_column, pattern=d.prefilter)
        )
        passed = pc.sum(pc.match_substring_regex(texts_column, pattern=detector.prefilter)).as_py()
        alone = timed(lambda d=detector: PiiConfig(kinds=(d.kind,)).open()(batch))
        yield f"| pre-filter {detector.kind} | {megabytes / seconds:.0f} | {passed} |"
        yield f"| step, {detector.kind} alone | {megabytes / alone:.0f} | |"
    whole = timed(lambda: PiiConfig().open()(batch))
    yield f"| step, all but handles | {megabytes / whole:.1f} | |"


def timed(work: Callable[[], object]) -> float:
    """Seconds of CPU, median over the turns after one to warm up."""
    work()
    times = []
    for _ in range(TURNS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
