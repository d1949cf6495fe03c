"""Tokenizing against `datasets.map` with the same tokenizer.json; and the loader's share of a step.

Both read the same JSON lines (about 19 MB of English), and both leave token ids on the disk. Each
side runs in a process of its own, whose start is not counted, and the sides take turns. Ours also
finds duplicates, holds documents out and digests what it wrote.

PUNA_BENCH_TEXT_MB makes it shorter; `--keep` works as for tuning.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import pretraining
from bench.measure import Row, compare
from bench.pretraining_rows import loader_row
from bench.sides import Told, told
from bench.texts import Material, material
from bench.tokenizing_spec import Spec
from bench.work import Work

_MAP = "datasets.map in two processes"


def rows(work: Work, turns: int) -> Iterator[Row]:
    """Ours, the peer, and the peer with the bare library, turn by turn; then the loader."""
    found = material(work, "tokenizing")
    if found is None:
        return
    if importlib.util.find_spec("datasets") is None:
        print("tokenizing is left out: the package datasets is not installed", file=sys.stderr)
    else:
        yield from _rate_rows(work, turns, found)
    apart = pretraining.documents_apart(work, pretraining.prepare(work, found))
    yield loader_row([apart], "documents kept apart, a LLaMA of 20 M, one run")


def _rate_rows(work: Work, turns: int, found: Material) -> Iterator[Row]:
    place = str(work.folder.parent / "tokenizing")
    spec = Spec(str(found.text), str(found.shards), place, found.digest)
    sides: dict[str, list[Told]] = {"ours": [], "peer": [], "bare": []}
    for turn in range(turns):
        for name in _order(turn):
            sides[name].append(_told(work, spec, name, turn))
    yield from turn_rows(sides, found)


def turn_rows(sides: dict[str, list[Told]], found: Material) -> Iterator[Row]:
    """Rates of the whole way from text to tokens, and of encoding alone."""
    ours = sides["ours"]
    tokens = ours[0]["tokens"]
    size = f"{tokens:,} tokens of {found.documents:,} documents, {found.text_bytes / 1e6:.1f} MB"
    for name, target, peer in (
        (f"{_MAP}, transformers' tokenizer", 2.0, sides["peer"]),
        (f"{_MAP}, the library tokenizers alone", None, sides["bare"]),
    ):
        same = {one["digest"] for one in (*ours, *peer)}
        note = "the same tokens" if len(same) == 1 else "**other tokens**"
        for what, key in (
            ("documents to token ids on disk", "whole"),
            ("of it encoding, without first reading and last digests", "encoding"),
        ):
            yield compare(
                f"tokenizing, {what}: tokens/s against {name}",
                ([one[key] for one in ours], [one[key] for one in peer]),
                work=tokens,
                unit="tokens/s",
                target=target,
                note=f"{note}: {size}" if key == "whole" else "",
            )
    rates = [tokens / one["encoding"] for one in ours]
    per_second = statistics.median(rates) * found.text_bytes / tokens / 1e6
    yield Row(
        what="tokenizing: text that ours encodes",
        ours=per_second,
        peer=None,
        unit="MB/s",
        better="more",
        target="",
        met=None,
        spread="",
    )


def _order(turn: int) -> Sequence[str]:
    names = ("ours", "peer", "bare")
    return names if turn % 2 == 0 else names[::-1]


def _told(work: Work, spec: Spec, name: str, turn: int) -> Told:
    run = Path(spec.out) / f"tokenizing-{name}-{turn + 1}"
    placed = replace(spec, out=str(run), plain=name == "bare")
    module = "bench.tokenizing_ours" if name == "ours" else "bench.tokenizing_peer"
    return told(work, module, placed, _summary)


def _summary(found: Told) -> str:
    return (
        f"{found['whole']:.1f} s, {found['encoding']:.1f} s of it encoding; "
        f"{found['tokens']:,} tokens, {found['digest'][:12]}"
    )
