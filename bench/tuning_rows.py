"""The rows of the tuning bench, from what the runs told."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.measure import Row
from bench.tuning_spec import Spec

LAYERS = 6
SAME = 1e-3  # nats: two losses so near are the same
COMPOSED = "the epochs measured, and the median later one for the rest"
Told = dict[str, Any]  # what a side printed


@dataclass(frozen=True)
class Sides:
    """What every turn of every side told."""

    ours_all: list[Told]
    peer_all: list[Told]
    ours_top: list[Told]
    ours_live: list[Told]  # the same without the cache
    peer_top: list[Told]
    long: list[Told] = field(default_factory=list)  # ours_top over more epochs, once


def turn_rows(sides: Sides, spec: Spec) -> Iterator[Row]:
    """Rates, memory, losses, the cache's factor, whole runs, and times to a loss."""
    tokens = sides.ours_all[0]["tokens"]
    trained = sides.ours_all[0]["trained"]
    for what, target, ours, peer in (
        ("LoRA on all layers", 1.5, sides.ours_all, sides.peer_all),
        (
            f"LoRA on the last {LAYERS}, trunk cached, later epochs",
            None,
            sides.ours_top,
            sides.peer_top,
        ),
    ):
        speeds = [
            [tokens / s for told in side for s in told["epoch_seconds"][1:]]
            for side in (ours, peer)
        ]
        yield _row(
            f"{what}: tokens/s",
            speeds,
            "tokens/s",
            "more",
            target,
            f"trained {trained / tokens:.0%} of them",
        )
    yield from _sameness_rows(sides, spec)
    yield _cache_row(sides, spec, trained / tokens)
    yield from _whole_rows(sides)
    yield from _loss_rows(sides, spec)


def _sameness_rows(sides: Sides, spec: Spec) -> Iterator[Row]:
    """Memory, and that both sides learnt the same."""
    memory = [[told["grown"] / 2**20 for told in side] for side in (sides.ours_all, sides.peer_all)]
    yield _row(
        "LoRA on all layers: peak memory above the loaded model",
        memory,
        "MiB",
        "less",
        1 / 0.6,
        "at most 0.6x is asked",
    )
    for what, ours, peer in (
        ("all layers", sides.ours_all, sides.peer_all),
        (f"last {LAYERS}", sides.ours_top, sides.peer_top),
    ):
        losses = [[told["losses"][-1] for told in side] for side in (ours, peer)]
        yield _row(
            f"validation loss after {spec.epochs} epochs, {what}", losses, "nats", "less", None, ""
        )


def _whole_rows(sides: Sides) -> Iterator[Row]:
    """From the start of the process to the last validation."""
    for what, peer, targets in (
        (f"peft on the last {LAYERS}", sides.peer_top, (2.0, 2.3)),
        ("peft on all layers", sides.peer_all, (3.0, 3.6)),
    ):
        for epochs, target in zip((3, 10), targets, strict=True):
            runs = [[_whole(told, epochs) for told in side] for side in (sides.ours_top, peer)]
            note = "" if epochs == 3 else COMPOSED
            yield _row(
                f"last {LAYERS} cached, {epochs} epochs, against {what}",
                runs,
                "s",
                "less",
                target,
                note,
            )
    real, composed = sides.long[0]["marks"][-1], _median(_whole(t, 10) for t in sides.ours_top)
    yield Row(
        what=f"last {LAYERS} cached, 10 epochs: one real run, against what was composed for it",
        ours=real,
        peer=composed,
        unit="s",
        better="less",
        target="",
        met=None,
        spread="",
        note="the composed time stands in the peer's column",
    )


def entry_row(dtype: str, told: Told, sides: Sides) -> Row:
    """What smaller entries of the trunk cache cost in validation loss, in one run."""
    loss, exact = told["losses"][-1], sides.ours_top[0]["losses"][-1]
    return Row(
        what=f"validation loss with {dtype} entries; the other is float32",
        ours=loss,
        peer=exact,
        unit="nats",
        better="less",
        target="",
        met=None,
        spread="one run",
        note=f"{loss - exact:+.4f}",
    )


def _loss_rows(sides: Sides, spec: Spec) -> Iterator[Row]:
    """Seconds to the validation loss that peft ends with."""
    for what, ours, peers in (
        ("all layers, peft on the same", sides.ours_all, sides.peer_all),
        (f"last {LAYERS} cached, peft on the same", sides.ours_top, sides.peer_top),
        (f"last {LAYERS} cached, peft on all layers", sides.long, sides.peer_all),
    ):
        goal = _median(told["losses"][-1] for told in peers)
        reached = [_time_to(told, goal + SAME) for told in ours]
        name = f"time to peft's final validation loss: {what}"
        whole = _median(told["marks"][-1] for told in peers)
        times = [time for time in reached if time is not None]
        if len(times) < len(reached):
            best, epochs = ours[0]["losses"][-1], len(ours[0]["losses"])
            note = f"never: {best:.4f} after {epochs} epochs, peft ends at {goal:.4f}"
            spent = _median(told["marks"][-1] for told in ours)
            yield Row(name, spent, None, "s", "less", "", None, "", note)
        else:
            note = f"{goal:.4f} nats, within {SAME:g}"
            yield Row(name, _median(times), whole, "s", "less", "", None, "", note)


def _time_to(told: Told, goal: float) -> float | None:
    """Seconds to the first validation that is no worse than the goal."""
    for mark, loss in zip(told["marks"], told["losses"], strict=True):
        if loss <= goal:
            return float(mark)
    return None


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _whole(told: Told, epochs: int) -> float:
    """Seconds from the start of the process to the end of so many epochs."""
    marks = told["marks"]
    later = statistics.median(b - a for a, b in itertools.pairwise(marks))
    return float(marks[-1] + later * (epochs - len(marks)))


def _cache_row(sides: Sides, spec: Spec, trained_share: float) -> Row:
    """Cached against uncached, from the second epoch on: the factor reached, and the possible."""
    from puna.flows.opening import read_config
    from puna.model import count
    from puna.store import open_checkpoint

    config = read_config(open_checkpoint(Path(spec.base)))
    counts = count(config)
    block = 2 * counts.block_parameters
    head = 2 * config.vocab_size * config.hidden_size * trained_share
    trunk = block * (config.num_hidden_layers - LAYERS)
    top = 2 * (block * LAYERS + head)  # forward, and backward to the activations alone
    allowed = (trunk + top) / top
    later = [
        [s for told in side for s in told["epoch_seconds"][1:]]
        for side in (sides.ours_top, sides.ours_live)
    ]
    row = _row(
        "trunk cache: seconds of a later epoch, against none",
        later,
        "s",
        "less",
        0.85 * allowed,
        "",
    )
    return replace(row, note=f"arithmetic allows {allowed:.2f}x; 85 % of it is asked")


def _row(
    what: str,
    sides: Sequence[Sequence[float]],
    unit: str,
    better: str,
    target: float | None,
    note: str,
) -> Row:
    ours, peer = (statistics.median(side) for side in sides)
    pairs = zip(*sides, strict=True)
    ratios = sorted(p / o if better == "less" else o / p for o, p in pairs)
    ratio = peer / ours if better == "less" else ours / peer
    return Row(
        what=what,
        ours=ours,
        peer=peer,
        unit=unit,
        better=better,
        target="" if target is None else f"at least {target:.3g}x",
        met=None if target is None else ratio >= target,
        spread=f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
        note=note,
    )
