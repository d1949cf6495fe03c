"""Pretraining against transformers' Trainer and a plain loop: same rows, same fresh weights.

Each side runs in a process of its own, and the sides take turns. The peers compute four rows at
once; ours as many as it chooses, and the Trainer runs once with as many. The model is in LLaMA's
proportions, of 20 million parameters. Rows are text after text, as the peers have them; ours with
documents kept apart runs once. One judge, ours, says what the weights of each side are worth.

PUNA_BENCH_STEPS and PUNA_BENCH_TEXT_MB make it shorter or longer; with `--keep FOLDER` a bench
that was broken off goes on behind the last run that told something.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from bench.measure import Row
from bench.pretraining_rows import Sides, apart_row, loader_row, small_row, summary, turn_rows
from bench.pretraining_spec import Spec
from bench.sides import Told, told
from bench.texts import Material, material
from bench.work import Work

STEPS = 10
SMALL_ROWS = 2  # of a micro-batch, as ours chooses them


@dataclass(frozen=True)
class Prepared:
    """What the sides are given."""

    spec: Spec
    parameters: int


def rows(work: Work, turns: int) -> Iterator[Row]:
    """Ours, the Trainer and the plain loop, turn by turn; then ours with documents apart."""
    found = material(work, "pretraining")
    if found is None:
        return
    ready = prepare(work, found)
    sides = Sides([], [], [])
    for turn in range(turns):
        for name in _order(turn):
            getattr(sides, name).append(_told(work, ready.spec, name, turn))
    yield from turn_rows(sides, ready.parameters)
    small = replace(ready.spec, batch_rows=SMALL_ROWS)
    yield small_row(_told(work, small, "peer", 0), sides.ours)
    apart = documents_apart(work, ready)
    yield apart_row(apart, sides.ours)
    yield loader_row([apart], "documents kept apart")


def documents_apart(work: Work, ready: Prepared) -> Told:
    """Our side as it is by default; one run."""
    return _told(work, replace(ready.spec, separate=True), "ours", 0)


def prepare(work: Work, found: Material) -> Prepared:
    """Fresh weights, and the rows that our loader gives, as plain arrays."""
    from safetensors.torch import save_file

    from bench.pretraining_ours import opened
    from puna.model import LlamaConfig, LlamaModel, count, init_weights
    from puna.tokens.shards import open_shards

    shared = work.folder.parent / "pretraining"
    shared.mkdir(exist_ok=True)
    steps = int(os.environ.get("PUNA_BENCH_STEPS", str(STEPS)))
    spec = Spec(str(shared), str(found.shards), "", "", steps=steps)
    shape = LlamaConfig(
        vocab_size=open_shards(found.shards).vocabulary_size,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=64,
    )
    (shared / "config.json").write_text(json.dumps(shape.to_hf()))
    fresh = init_weights(LlamaModel(shape), 0).state_dict()
    save_file(dict(fresh), shared / "fresh.safetensors")
    loader = opened(spec)
    batches = [batch for _, batch in islice(loader, steps * loader.micro_batches)]
    digest = hashlib.sha256()
    for name in ("ids", "targets"):
        array = np.concatenate([getattr(batch, name).numpy() for batch in batches])
        assert array.min() >= 0, "a row is not full: the text is too short for so many steps"
        digest.update(array.tobytes())
        np.save(shared / f"{name}.npy", array.astype(np.int32))
    return Prepared(replace(spec, data=digest.hexdigest()), count(shape).parameters)


def _order(turn: int) -> Sequence[str]:
    names = ("ours", "peer", "plain")
    return names if turn % 2 == 0 else names[::-1]


def _told(work: Work, spec: Spec, name: str, turn: int) -> Told:
    small = spec.batch_rows == SMALL_ROWS
    kind = f"{'-apart' if spec.separate else ''}{'-small' if small else ''}"
    run = f"pretraining-{name}{kind}-{turn + 1}"
    placed = replace(spec, out=str(Path(spec.shared) / run))
    return told(work, f"bench.pretraining_{name}", placed, summary)
