"""LoRA against transformers' Trainer with peft: same base, start, examples, batches; float32.

Each side runs in a process of its own, from its start to the validation after the last epoch; the
sides take turns. `--pairs` and `--turns` make it shorter.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure import Row
from bench.tuning_spec import Spec
from bench.work import Work

LAYERS = 6
Told = dict[str, Any]  # what a side printed


@dataclass(frozen=True)
class Sides:
    """What every turn of every side told."""

    ours_all: list[Told]
    peer_all: list[Told]
    ours_top: list[Told]
    ours_live: list[Told]  # the same without the cache
    peer_top: list[Told]


def rows(work: Work, turns: int) -> Iterator[Row]:
    """All layers, then the last six."""
    data = Path(os.environ.get("PUNA_DATA", "../shared/data")) / "multi30k"
    if not data.is_dir():
        print(f"tuning is left out: no data at {data}", file=sys.stderr)
        return
    shared = work.folder.parent / "tuning"
    shared.mkdir(exist_ok=True)
    pairs = int(os.environ.get("PUNA_BENCH_PAIRS", "600"))
    spec = Spec(str(work.folder), str(data.resolve()), str(shared), "", pairs=pairs)
    prepare(spec)
    sides = Sides([], [], [], [], [])
    for turn in range(turns):
        for name in _order(turn):
            told = _run(_spec(spec, name, turn), ours=name.startswith("ours"))
            getattr(sides, name).append(told)
            print(f"turn {turn + 1}, {name}: {_summary(told)}", file=sys.stderr, flush=True)
    yield from _rows(sides, spec)
    yield from _entry_rows(sides, spec)


def _entry_rows(sides: Sides, spec: Spec) -> Iterator[Row]:
    """What smaller entries of the trunk cache cost in validation loss, in one run each."""
    exact = sides.ours_top[0]["losses"][-1]
    for dtype in ("bfloat16", "int8"):
        one = replace(_spec(spec, f"ours_{dtype}", 0), layers=LAYERS, trunk_dtype=dtype)
        loss = _run(one, ours=True)["losses"][-1]
        what = f"validation loss with {dtype} entries; the other is float32"
        yield Row(what, loss, exact, "nats", "less", "", None, "one run", f"{loss - exact:+.4f}")


def prepare(spec: Spec) -> None:
    """The batches of every epoch as plain data, and adapters for both sides to start from."""
    import torch

    from puna.config import from_dict
    from puna.flows.opening import open_model
    from puna.flows.tune_data import encode, read_items
    from puna.flows.tune_recipe import TuneRecipe
    from puna.tokens.batches import plan
    from puna.tokens.rendering import Renderer
    from puna.tune import BaseReference, attach, save_tuned

    for layers in (None, LAYERS):
        recipe = from_dict(TuneRecipe, replace(spec, layers=layers).recipe())
        base = open_model(spec.base, device=torch.device("cpu"), dtype=None)
        tuned = attach(base.model, recipe.method, seed=recipe.method_seed)
        folder = Path(spec.shared) / f"start-{layers or 'all'}"
        folder.mkdir(exist_ok=True)
        save_tuned(folder, tuned, base=BaseReference(spec.base))
    raw = read_items(recipe.data, recipe.wording)
    renderer = Renderer(base.tokenizer, recipe.template)
    found = encode(raw, renderer, recipe.examples, everything=False).examples
    lengths = {name: [len(example) for example in found[name]] for name in found}

    def batches(name: str, epoch: int, shuffle: bool) -> list[list[int]]:
        planned = plan(lengths[name], recipe.batches, seed=0, epoch=epoch, shuffle=shuffle)
        return [[index for row in batch for index in row] for batch in planned]

    work = {
        name: [{"ids": e.ids.tolist(), "trained": e.trained.tolist()} for e in found[name]]
        for name in ("train", "validation")
    }
    (Path(spec.shared) / "batches.json").write_text(
        json.dumps(
            {
                **work,
                "epochs": [batches("train", epoch, True) for epoch in range(10)],
                "validation_batches": batches("validation", 0, False),
            }
        )
    )


def _order(turn: int) -> Sequence[str]:
    names = ("ours_all", "peer_all", "ours_top", "peer_top", "ours_live")
    return names if turn % 2 == 0 else names[::-1]


def _spec(spec: Spec, name: str, turn: int, epochs: int = 3) -> Spec:
    place = Path(spec.shared) / f"{name}-{turn}-{epochs}"
    place.mkdir()
    return replace(
        spec,
        out=str(place / "run"),
        layers=None if name.endswith("all") else LAYERS,
        cached=name != "ours_live",
        epochs=epochs,
    )


def _run(spec: Spec, *, ours: bool) -> Told:
    file = spec.write(Path(spec.out).parent / "spec.json")
    module = "bench.tuning_ours" if ours else "bench.tuning_peer"
    done = subprocess.run(
        [sys.executable, "-m", module, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOMP_SPINCOUNT": "1000"},  # as our command line sets it; for both
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-3000:]}")
    told: Told = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def _summary(told: Told) -> str:
    marks = ", ".join(f"{mark:.0f}" for mark in told["marks"])
    losses = ", ".join(f"{loss:.4f}" for loss in told["losses"])
    return f"epochs end at {marks} s; losses {losses}; {told['grown'] / 2**20:.0f} MiB"


def _rows(sides: Sides, spec: Spec) -> Iterator[Row]:
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
    yield _cache_row(sides, spec, trained / tokens)
    for what, peer, targets in (
        (f"peft on the last {LAYERS}", sides.peer_top, (2.0, 2.3)),
        ("peft on all layers", sides.peer_all, (3.0, 3.6)),
    ):
        for epochs, target in zip((3, 10), targets, strict=True):
            runs = [[_whole(told, epochs) for told in side] for side in (sides.ours_top, peer)]
            note = "" if epochs == 3 else "composed of the first epoch and the median later one"
            yield _row(
                f"last {LAYERS} cached, {epochs} epochs, against {what}",
                runs,
                "s",
                "less",
                target,
                note,
            )


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
