"""Small shards, a recipe for a model of two layers, and what a run of it left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.tuning_setup import Heard, figures, product, write_rows
from puna.cli import run as command
from puna.config import from_dict
from puna.flows.pretrain_recipe import PretrainRecipe
from puna.flows.pretraining import Pretraining, PretrainOptions, pretrain

WORDS = ("llama", "sea", "time", "grass", "high", "there", "where", "once", "upon", "land", "ask")
SHAPE = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "tie_embeddings": True}


def texts(count: int = 240, *, begin: int = 0) -> list[dict[str, str]]:
    """Different documents of one manner, which can be learnt."""
    return [
        {
            "text": f"Once upon a time the {WORDS[n % 11]} number {n} went to the "
            f"{WORDS[(n + 3) % 11]}. There it saw the {WORDS[(n * n) % 11]} and was glad."
        }
        for n in range(begin, begin + count)
    ]


def make_shards(
    folder: Path, sources: Mapping[str, list[dict[str, str]]], vocabulary: Mapping[str, Any]
) -> Path:
    """Tokenize documents as a user does."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {
        name: {"files": str(write_rows(folder / f"{name}.jsonl", rows)), "licence": "CC0-1.0"}
        for name, rows in sources.items()
    }
    recipe = {
        "sources": named,
        "vocabulary": dict(vocabulary),
        "held_out": 0.05,
        "meter": {"use_codecarbon": False},
    }
    place = folder / "tokenize.yaml"
    place.write_text(json.dumps(recipe))
    out = folder / "shards"
    assert command(["tokenize", str(place), "--out", str(out), "--quiet"]) == 0
    return out


def asked(shards: Path | list[str], **changes: Any) -> dict[str, Any]:
    """A recipe as plain data; `changes` replace whole entries of it."""
    return {
        "shards": shards if isinstance(shards, list) else str(shards),
        "model": SHAPE,
        "rows": {"row_tokens": 32, "step_rows": 8, "batch_rows": 4},
        "train": {
            "max_steps": 10,
            "checkpoint_every_steps": 3,
            "optim": {"learning_rate": 0.01},
        },
        "evaluation": {"every_steps": 4, "max_tokens": 400},
        "samples": {"prompts": ["Once upon", ""], "every_steps": 4, "max_new_tokens": 5},
        "peak_flops_per_second": 1e11,
        "meter": {"use_codecarbon": False},
        "device": "cpu",
        **changes,
    }


def raise_model(
    out: Path, recipe: Mapping[str, Any], heard: Heard | None = None, **options: bool
) -> Pretraining:
    """Pretrain as a recipe of plain data says."""
    config = from_dict(PretrainRecipe, recipe, "recipe")
    return pretrain(config, PretrainOptions(out, **options), heard or Heard())


def assert_same_raised(one: Path, other: Path) -> None:
    """All that does not tell the time is the same."""
    assert figures(one) == figures(other)
    assert product(one) == product(other)
    assert (one / "samples.jsonl").read_text() == (other / "samples.jsonl").read_text()
    kept = ("model", "data", "consumed", "evaluations", "held_out", "best_step", "samples")
    told = [json.loads((run / "summary.json").read_text()) for run in (one, other)]
    assert [told[0][key] for key in kept] == [told[1][key] for key in kept]
