"""`python -m bench.near_duplicates`: what is found of planted copies, what is wrong, how fast.

Real documents are composed of real paragraphs up to the size asked for; copies of several kinds are
planted among them. The true similarity is counted apart from Puna: sets of 5-grams of `\\w+` words
of the case-folded text, as strings.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.texts import _documents
from puna.corpus.dedup import Clusters, NearConfig, find_near_duplicates, sign_unit, signatures
from puna.corpus.dedup.components import Units
from puna.corpus.dedup.near import Sketches, candidates
from puna.corpus.dedup.units import digest_of
from puna.corpus.schema import Found, make_batch

UNIT_DOCUMENTS = 4_000
BATCH_DOCUMENTS = 500
BANDS = ((0.9, 1.01), (0.8, 0.9), (0.7, 0.8), (0.5, 0.7), (0.0, 0.5))
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Planted:
    """A document, and of a copy, which one it is of."""

    text: str
    kind: str = ""
    original: int = -1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.near_duplicates", description=__doc__)
    parser.add_argument("--megabytes", type=float, default=20.0, help="of text, copies included")
    parser.add_argument("--copies", type=int, default=150, help="of each kind")
    options = parser.parse_args()
    documents = planted(options.megabytes * 1e6, options.copies)
    batches = [
        make_batch("bench", [Found(str(at + i), one.text) for i, one in enumerate(part)])
        for at, part in parts(documents, BATCH_DOCUMENTS)
    ]
    config = NearConfig()
    with tempfile.TemporaryDirectory() as place:
        clusters, folders = timed(batches, config, Path(place))
        similar = Truth([one.text for one in documents])
        print_recall(documents, batches, clusters, similar)
        print_precision(folders, config, Path(place), similar)


def timed(
    batches: Sequence[pa.RecordBatch], config: NearConfig, place: Path
) -> tuple[Clusters, list[Path]]:
    """Sign all units and find the clusters, one process; print how long each took."""
    size = sum(batch.column("text").nbytes for batch in batches) / 1e6
    count = sum(batch.num_rows for batch in batches)
    signatures(batches[0].slice(0, 1), config)  # compiled or loaded before
    began = Clock()
    for batch in batches:
        signatures(batch, config)
    print(f"{count:,} documents, {size:.0f} MB, one process")
    print(f"signatures and sketches: {began.told(size)}")
    folders, began = [], Clock()
    for at, part in parts(batches, UNIT_DOCUMENTS // BATCH_DOCUMENTS):
        folders.append(place / f"unit-{at}")
        sign_unit(part, folders[-1], config)
    print(f"the same, written by unit: {began.told(size)}")
    find_near_duplicates(folders[:1], config, place)  # compiled or loaded before
    began = Clock()
    clusters = find_near_duplicates(folders, config, place)
    print(f"search: {began.told(size)}")
    print(f"{len(clusters):,} clusters with {len(clusters.ids):,} documents")
    return clusters, folders


class Clock:
    """Wall and processor time from now on: on a machine that is shared only the latter holds."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def told(self, size: float) -> str:
        wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        return f"{wall:.2f} s, {cpu:.2f} s of CPU ({size / cpu:.0f} MB per second of CPU)"


class Truth:
    """Similarity as sets of strings have it."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._sets: dict[int, frozenset[str]] = {}

    def __call__(self, left: int, right: int) -> float:
        a, b = self._set(left), self._set(right)
        return len(a & b) / len(a | b) if a | b else 0.0

    def _set(self, number: int) -> frozenset[str]:
        if number not in self._sets:
            words = WORD.findall(self._texts[number].casefold())
            size = min(5, len(words))
            grams = (" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
            self._sets[number] = frozenset(grams)
        return self._sets[number]


def print_recall(
    documents: Sequence[Planted],
    batches: Sequence[pa.RecordBatch],
    clusters: Clusters,
    similar: Truth,
) -> None:
    """Share of the planted copies that are in the cluster of their original."""
    ids = [one for batch in batches for one in batch.column("id").to_pylist()]
    kept = {a.tobytes(): b.tobytes() for a, b in zip(clusters.ids, clusters.kept_ids, strict=True)}
    by_kind: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for number, one in enumerate(documents):
        if one.original >= 0:
            own, other = kept.get(ids[number]), kept.get(ids[one.original])
            found = own is not None and own == other
            by_kind[one.kind].append((found, similar(number, one.original)))
    print("\n| kind of copy | n | mean Jaccard | recall |\n|---|---:|---:|---:|")
    for kind, results in by_kind.items():
        print(f"| {kind} | {len(results)} | {_mean(j for _, j in results):.3f} "
              f"| {_mean(f for f, _ in results):.3f} |")  # fmt: skip
    every = [result for results in by_kind.values() for result in results]
    print("\n| true Jaccard | n | recall |\n|---|---:|---:|")
    for low, high in (*BANDS, (0.8, 1.01)):
        inside = [f for f, j in every if low <= j < high]
        name = f"{low:g} to {min(high, 1):g}"
        print(f"| {name} | {len(inside)} | {_mean(inside):.3f} |")


def print_precision(
    folders: Sequence[Path], config: NearConfig, place: Path, similar: Truth
) -> None:
    """Share of the edges, checked and unchecked, that have the similarity asked for."""
    units = Units(folders, "near", digest_of(config))
    sketches, right, edges, unchecked = Sketches(units, config), 0, 0, 0
    all_pairs = 0
    with tempfile.TemporaryDirectory(dir=place) as work:
        for pairs in candidates(units, config, Path(work)):
            passed = sketches.similarities(pairs) >= np.float32(config.threshold)
            for (left, other), good in zip(pairs.T.tolist(), passed.tolist(), strict=True):
                true = similar(left, other) >= config.threshold
                all_pairs, unchecked = all_pairs + 1, unchecked + true
                edges, right = edges + good, right + (good and true)
    print(f"\nedges: {edges:,} of {all_pairs:,} candidates; with a true Jaccard of at least "
          f"{config.threshold}: {right / max(edges, 1):.4f} "
          f"(without the check {unchecked / max(all_pairs, 1):.4f})")  # fmt: skip


def planted(size: float, copies: int) -> list[Planted]:
    """Documents of about `size` bytes, copies of each kind among them, in an order that mixes."""
    rng = random.Random(7)
    texts = composed(size, rng)
    found = [Planted(text) for text in texts]
    long_enough = [i for i, text in enumerate(texts) if len(text.split()) >= 60]
    for kind, change in KINDS.items():
        for original in rng.sample(long_enough, min(copies, len(long_enough))):
            found.append(Planted(change(texts[original], rng), kind, original))
    order = list(range(len(found)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    return [
        Planted(one.text, one.kind, place.get(one.original, -1))
        for one in (found[old] for old in order)
    ]


def composed(size: float, rng: random.Random) -> list[str]:
    """Documents of 2 to 12 paragraphs: as they stand first, then of paragraphs drawn by lot."""
    data = Path(os.environ.get("PUNA_DATA", "../shared/data"))
    paragraphs: list[str] = []
    for text in _documents(data):
        paragraphs += [one.strip() for one in text.split("\n") if len(one) > 80]
    texts, left, at = [], size, 0
    while left > 0:
        count = rng.randint(2, 12)
        if at < len(paragraphs):
            chosen, at = paragraphs[at : at + count], at + count
        else:
            chosen = rng.sample(paragraphs, count)
        texts.append("\n\n".join(chosen))
        left -= len(texts[-1].encode())
    return texts


def parts(items: Sequence, size: int) -> Iterator[tuple[int, Sequence]]:  # type: ignore[type-arg]
    for at in range(0, len(items), size):
        yield at, items[at : at + size]


def _exact(text: str, rng: random.Random) -> str:
    return text


def _normalised(text: str, rng: random.Random) -> str:
    """Another case, other spaces, other punctuation."""
    words = text.upper().split()
    return "  ".join(word.rstrip(".,;:") + rng.choice(["", ",", " -"]) for word in words)


def _block(text: str, rng: random.Random) -> str:
    """A run of 5 % of the words is other words."""
    words = text.split()
    size = max(len(words) // 20, 1)
    at = rng.randrange(len(words) - size + 1)
    return " ".join([*words[:at], *(rng.choice(words) for _ in range(size)), *words[at + size :]])


def _words(share: float) -> Callable[[str, random.Random], str]:
    """Words are left out, doubled or replaced."""

    def change(text: str, rng: random.Random) -> str:
        words = text.split()
        found: list[str] = []
        for word in words:
            if rng.random() >= share:
                found.append(word)
            else:
                found += rng.choice([[], [word, word], [rng.choice(words)]])
        return " ".join(found)

    return change


KINDS = {
    "exact": _exact,
    "case, spaces, punctuation": _normalised,
    "block edit, 5 % of the words": _block,
    **{f"{share} % of the words edited": _words(share / 100) for share in (0.5, 1, 2, 3, 5, 8)},
}


def _mean(values: Iterator[float] | Sequence[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else float("nan")


if __name__ == "__main__":
    main()
