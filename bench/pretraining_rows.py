"""The rows of the pretraining bench, from what the runs told."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.measure import Row, compare
from bench.sides import Told

SAME = 1e-3  # bits per byte: two models so near are the same
TRAINER, PLAIN = "transformers' Trainer", "a plain loop"


@dataclass(frozen=True)
class Sides:
    """What every turn of every side told."""

    ours: list[Told]
    peer: list[Told]
    plain: list[Told]


def turn_rows(sides: Sides, parameters: int) -> Iterator[Row]:
    """Rates, memory, what was learnt, whole runs, and what the machine could do."""
    size = f"{parameters / 1e6:.3g} M"
    tokens = sides.ours[0]["tokens"]
    for name, peer, target in ((TRAINER, sides.peer, 1.5), (PLAIN, sides.plain, 1.0)):
        yield compare(
            f"pretraining a LLaMA of {size}: tokens/s against {name}",
            (_all(sides.ours, "seconds"), _all(peer, "seconds")),
            work=tokens,
            unit="tokens/s",
            target=target,
            note=f"{tokens:,} tokens a turn, the first step left out",
        )
    for name, peer, limit in ((TRAINER, sides.peer, 1.67), (PLAIN, sides.plain, None)):
        yield compare(
            f"the same: peak memory above the loaded model, against {name}",
            (_mebibytes(sides.ours), _mebibytes(peer)),
            unit="MiB",
            target=limit,
            note="" if limit is None else "at most 0.6x is asked",
        )
    for name, peer in ((TRAINER, sides.peer), (PLAIN, sides.plain)):
        yield _learnt(name, sides.ours, peer)
    for name, peer in ((TRAINER, sides.peer), (PLAIN, sides.plain)):
        yield compare(
            f"the same: from the start of the process to the last step, against {name}",
            (_all(sides.ours, "whole"), _all(peer, "whole")),
        )
    for name, peer in ((TRAINER, sides.peer), (PLAIN, sides.plain)):
        yield _utilisation(name, sides.ours, peer)
    yield loader_row(sides.ours)


def small_row(small: Told, ours: Sequence[Told]) -> Row:
    """The memory of the Trainer with micro-batches as small as ours; in one run."""
    grown = statistics.median(_mebibytes(ours)), _mebibytes([small])[0]
    rate = small["tokens"] / small["seconds"]
    return Row(
        what="the same: peak memory above the loaded model, against the Trainer with micro-batches "
        "as small as ours",
        ours=grown[0],
        peer=grown[1],
        unit="MiB",
        better="less",
        target="",
        met=None,
        spread="one run",
        note=f"it then takes {rate:,.0f} tokens/s",
    )


def apart_row(apart: Told, ours: Sequence[Told]) -> Row:
    """What it costs to keep documents apart, which is our default; in one run."""
    shown = [one["tokens"] / one["seconds"] for one in (apart, *ours)]
    return Row(
        what="the same, documents kept apart: tokens/s; the other is ours, rows as one text",
        ours=shown[0],
        peer=statistics.median(shown[1:]),
        unit="tokens/s",
        better="more",
        target="",
        met=None,
        spread="one run",
        note="other targets and another attention, so its loss is not to be compared",
    )


def loader_row(runs: Sequence[Told], note: str = "rows as one text") -> Row:
    """The part of a step in which the loop waits for its batches."""
    shares = [100 * told["loader_seconds"] / told["seconds"] for told in runs]
    share = statistics.median(shares)
    rate = statistics.median(told["tokens"] / told["loader_seconds"] for told in runs)
    return Row(
        what="the loader's share of a step",
        ours=share,
        peer=None,
        unit="%",
        better="less",
        target="under 2 %",
        met=share < 2,
        spread=f"{min(shares):.2f} to {max(shares):.2f} %",
        note=f"{note}; the loader alone gives {rate:,.0f} tokens/s",
    )


def summary(told: Told) -> str:
    """A run in a line, for whoever waits."""
    rate = told["tokens"] / told["seconds"]
    return (
        f"{rate:,.0f} tokens/s, {told['grown'] / 2**20:,.0f} MiB, {told['whole']:.0f} s in all; "
        f"training loss {told['training_loss']:.4f}, held out {told['loss']:.4f} nats, "
        f"{told['bits_per_byte']:.4f} bits per byte"
    )


def _learnt(name: str, ours: Sequence[Told], peer: Sequence[Told]) -> Row:
    """Bits per byte on held-out text, by one judge for both."""
    row = compare(
        f"the same: bits per byte on held-out text, against {name}",
        (_all(ours, "bits_per_byte"), _all(peer, "bits_per_byte")),
        unit="bits",
    )
    apart = max(
        abs(o - p) for o in _all(ours, "bits_per_byte") for p in _all(peer, "bits_per_byte")
    )
    losses = (statistics.median(_all(side, "training_loss")) for side in (ours, peer))
    means = ", ".join(f"{loss:.5f}" for loss in losses)
    return replace(
        row,
        target=f"within {SAME:g}",
        met=apart <= SAME,
        note=f"{row.ours:.5f}, {row.peer:.5f}; mean training losses {means} nats",
    )


def _utilisation(name: str, ours: Sequence[Told], peer: Sequence[Told]) -> Row:
    """Which part of the rate of one large product the whole step reaches; the same FLOPs each."""
    flops = ours[0]["flops_per_token"]
    best = max(_all(ours, "matrix_flops"))
    shares = [
        100 * statistics.median(told["tokens"] / told["seconds"] for told in side) * flops / best
        for side in (ours, peer)
    ]
    return Row(
        what=f"the same: model-FLOPs utilisation, against {name}",
        ours=shares[0],
        peer=shares[1],
        unit="%",
        better="more",
        target="",
        met=None,
        spread="",
        note=f"{flops / 1e6:,.0f} MFLOP a token, of {best / 1e9:,.0f} GFLOP/s in one product",
    )


def _all(side: Sequence[Told], key: str) -> list[float]:
    return [float(told[key]) for told in side]


def _mebibytes(side: Sequence[Told]) -> list[float]:
    return [grown / 2**20 for grown in _all(side, "grown")]
