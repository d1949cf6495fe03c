"""LoRA against transformers' Trainer with peft: same base, start, examples, batches; float32.

Each side runs in a process of its own, from its start to the validation after the last epoch, and
the sides take turns. `--turns` and PUNA_BENCH_PAIRS make it shorter; with `--keep FOLDER` what
every run told is kept there, and a bench that was broken off goes on behind the last of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bench.measure import Row
from bench.tuning_rows import LAYERS, Sides, Told, entry_row, turn_rows
from bench.tuning_spec import Spec
from bench.work import Work

LONG = 10  # epochs of the one run that checks what the turns compose


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
            getattr(sides, name).append(_told(work, _spec(spec, name, turn), f"turn {turn + 1}"))
    sides.long.append(_told(work, _spec(spec, "ours_top", 0, LONG), "once"))
    yield from turn_rows(sides, spec)
    for dtype in ("bfloat16", "int8"):
        one = replace(_spec(spec, f"ours_{dtype}", 0), trunk_dtype=dtype)
        yield entry_row(dtype, _told(work, one, "once"), sides)


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
    return replace(
        spec,
        out=str(Path(spec.shared) / f"{name}-{turn}-{epochs}" / "run"),
        layers=None if name.endswith("all") else LAYERS,
        cached=name != "ours_live",
        epochs=epochs,
    )


def _told(work: Work, spec: Spec, when: str) -> Told:
    """What a run tells, or told to a bench that was broken off."""
    place = Path(spec.out).parent
    if work.kept is not None:
        kept = work.kept / f"{place.name}.json"
        asked = {**asdict(spec), "base": "", "shared": "", "out": ""}  # places change
        if kept.exists() and (before := json.loads(kept.read_text()))["asked"] == asked:
            told: Told = before["told"]
        else:
            told = _run(spec, place)
            kept.write_text(json.dumps({"asked": asked, "told": told}))
    else:
        told = _run(spec, place)
    print(f"{when}, {place.name}: {_summary(told)}", file=sys.stderr, flush=True)
    return told


def _run(spec: Spec, place: Path) -> Told:
    place.mkdir()
    module = "bench.tuning_ours" if place.name.startswith("ours") else "bench.tuning_peer"
    done = subprocess.run(
        [sys.executable, "-m", module, str(spec.write(place / "spec.json"))],
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
