"""Main-text extraction on real pages with gold text: how right it is, and how fast.

The 181 pages of scrapinghub's article-extraction-benchmark, by its own measure: precision and
recall of shingles of four tokens, a page's counts divided by their sum, averaged over pages; F1 of
the two averages, with an interval from resampling pages. The pages come in pairs of one site; the
filter was tuned on the sites of one half (`tuned`), and the other half (`held out`) tells how good
it is elsewhere. Speed is that of the text of the pages, in UTF-8, in one process, by its CPU
time, turn by turn.

`python -m bench.extraction` prints the table; PUNA_DATA names the place of the data.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import re
import statistics
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.measure import Row
from bench.work import Work
from puna.corpus.extract import ExtractConfig, Mode, open_extractor

Extractor = Callable[[str], str]
_TOKEN = re.compile(r"\w+")
_SHINGLE_TOKENS = 4
_RESAMPLED = 1000
_FULL, _TUNED, _HELD_OUT = "all pages", "tuned", "held out"


@dataclass(frozen=True)
class GoldPage:
    """A page, and what its main text is."""

    html: str
    gold: str
    half: str  # of the sites: `tuned` or `held out`


@dataclass(frozen=True)
class Score:
    """How right an extractor is over pages."""

    f1: float
    precision: float
    recall: float
    interval: float  # half the width of F1's 95 % interval


def rows(work: Work, turns: int) -> Iterator[Row]:
    """F1 and speed of all sides, as rows of the common table."""
    pages = gold_pages(data_folder())
    if not pages:
        return
    table = measured(pages, turns)
    plain, precise = table["resiliparse plain"], table["precise"]
    for name in ("fast", "auto"):
        ours = table[name]
        peer, peer_name = (plain, "resiliparse plain") if name == "fast" else (precise, "precise")
        gain = ours.scores[_FULL].f1 - peer.scores[_FULL].f1
        need = 0.03 if name == "fast" else -0.01
        yield Row(
            what=f"extraction, {name}: F1 less that of {peer_name}, held out beside",
            ours=gain,
            peer=None,
            unit="F1",
            better="more",
            target=f"at least {need:+g}",
            met=gain >= need,
            spread="",
            note=f"{_said(ours)} against {_said(peer)}",
        )
        yield Row(
            what=f"extraction, {name}: HTML per second and core",
            ours=statistics.median(ours.rates),
            peer=statistics.median(peer.rates),
            unit="MB/s",
            better="more",
            target="at least 20 MB/s" if name == "fast" else "",
            met=statistics.median(ours.rates) >= 20 if name == "fast" else None,
            spread=f"{min(ours.rates):.1f} to {max(ours.rates):.1f} MB/s",
            note=f"peer: {peer_name}",
        )


@dataclass(frozen=True)
class Side:
    """What was measured of one extractor."""

    scores: dict[str, Score]
    rates: list[float]  # MB/s, one a turn


def sides() -> dict[str, Extractor]:
    """The extractors, by name; each takes a page and returns its text."""
    from resiliparse.extract.html2text import extract_plain_text

    def plain(html: str) -> str:
        return extract_plain_text(html, main_content=True)

    def tuned(html: str) -> str:
        return extract_plain_text(
            html,
            main_content=True,
            preserve_formatting=True,
            list_bullets=False,
            alt_texts=False,
            comments=False,
        )

    ours = {mode: _ours(mode) for mode in ("fast", "precise", "auto")}
    return {"resiliparse plain": plain, "resiliparse tuned": tuned, **ours}


def _ours(mode: Mode) -> Extractor:
    extract = open_extractor(ExtractConfig(mode=mode))
    return lambda html: extract(html).text


def measured(pages: Sequence[GoldPage], turns: int) -> dict[str, Side]:
    """Scores by half of the pages, and the rate of every turn, of all extractors."""
    extractors = sides()
    rates: dict[str, list[float]] = {name: [] for name in extractors}
    texts: dict[str, list[str]] = {}
    size = sum(len(page.html.encode()) for page in pages) / 1e6
    for extractor in extractors.values():  # imports and caches are not timed
        extractor(pages[0].html)
    for turn in range(turns):
        order = list(extractors) if turn % 2 == 0 else list(extractors)[::-1]
        for name in order:
            began = time.process_time()
            texts[name] = [extractors[name](page.html) for page in pages]
            rates[name].append(size / (time.process_time() - began))
    return {
        name: Side(
            {half: score(_pairs(pages, texts[name], half)) for half in (_FULL, _TUNED, _HELD_OUT)},
            rates[name],
        )
        for name in extractors
    }


def gold_pages(folder: Path) -> list[GoldPage]:
    """The pages of the benchmark with their gold text; none where the data are not here."""
    place = folder / "article-extraction-benchmark"
    if not place.is_dir():
        print(f"extraction is left out: no data at {place}", file=sys.stderr)
        return []
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    with gzip.open(place / "ground-truth.json.gz", "rt", encoding="utf-8") as file:
        gold = json.load(file)
    found = []
    with tarfile.open(place / "html.tar") as archive:
        for member in sorted(archive.getmembers(), key=lambda one: one.name):
            if not member.name.endswith(".html.gz"):
                continue
            content = archive.extractfile(member)
            assert content is not None
            data = gzip.decompress(io.BytesIO(content.read()).getvalue())
            html = bytes_to_str(data, detect_encoding(data, html5_compatible=True) or "utf-8")
            about = gold[Path(member.name).name.removesuffix(".html.gz")]
            found.append(GoldPage(html, about["articleBody"], _half(about["url"])))
    return found


def data_folder() -> Path:
    """Where the real data lie."""
    return Path(os.environ.get("PUNA_DATA", "../shared/data"))


def score(pairs: Sequence[tuple[str, str]]) -> Score:
    """The benchmark's measure over pairs of gold text and extracted text."""
    counts = [shares(gold, found) for gold, found in pairs]
    draw = random.Random(0)
    drawn = [_f1(draw.choices(counts, k=len(counts)))[0] for _ in range(_RESAMPLED)]
    f1, precision, recall = _f1(counts)
    return Score(f1, precision, recall, 1.96 * statistics.stdev(drawn))


def shares(gold: str, found: str) -> tuple[float, float, float]:
    """Shingles in both, only found, and only gold, as shares of all three."""
    wanted, given = _shingles(gold), _shingles(found)
    both = (wanted & given).total()
    parts = (both, given.total() - both, wanted.total() - both)
    total = sum(parts)
    hit, extra, missed = (part / total if total else 0.0 for part in parts)
    return hit, extra, missed


def _f1(counts: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    precision = statistics.fmean(hit / (hit + extra) for hit, extra, _ in counts if hit + extra)
    recall = statistics.fmean(hit / (hit + missed) for hit, _, missed in counts if hit + missed)
    return 2 * precision * recall / (precision + recall), precision, recall


def _shingles(text: str) -> Counter[tuple[str, ...]]:
    tokens = _TOKEN.findall(text)
    last = max(1, len(tokens) - _SHINGLE_TOKENS + 1) if tokens else 0
    return Counter(tuple(tokens[place : place + _SHINGLE_TOKENS]) for place in range(last))


def _half(url: str) -> str:
    site = urlsplit(url).netloc.removeprefix("www.")
    return _TUNED if hashlib.sha256(site.encode()).digest()[0] % 2 == 0 else _HELD_OUT


def _pairs(pages: Sequence[GoldPage], texts: Sequence[str], half: str) -> list[tuple[str, str]]:
    return [
        (page.gold, text)
        for page, text in zip(pages, texts, strict=True)
        if half in (_FULL, page.half)
    ]


def _said(side: Side) -> str:
    full, held = side.scores[_FULL], side.scores[_HELD_OUT]
    return (
        f"F1 {full.f1:.3f} +- {full.interval:.3f} (precision {full.precision:.3f}, "
        f"recall {full.recall:.3f}; held out {held.f1:.3f})"
    )


def main() -> None:
    """Print the table of all extractors."""
    parser = argparse.ArgumentParser(prog="python -m bench.extraction", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="turns of each side")
    turns = parser.parse_args().turns
    pages = gold_pages(data_folder())
    if not pages:
        return
    counts = Counter(page.half for page in pages)
    print(f"{len(pages)} pages: {dict(counts)}; MB/s: median of {turns} turns (least to most)")
    print("| | F1 | precision | recall | F1, tuned half | F1, held out | MB/s per core |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, side in measured(pages, turns).items():
        full, half, held = (side.scores[which] for which in (_FULL, _TUNED, _HELD_OUT))
        print(
            f"| {name} | {full.f1:.3f} +- {full.interval:.3f} | {full.precision:.3f} "
            f"| {full.recall:.3f} | {half.f1:.3f} | {held.f1:.3f} +- {held.interval:.3f} "
            f"| {statistics.median(side.rates):.1f} "
            f"({min(side.rates):.1f} to {max(side.rates):.1f}) |"
        )


if __name__ == "__main__":
    main()
