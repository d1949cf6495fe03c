"""A tiny base, forty pairs to learn from, and what a run of them left behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generate import tiny
from puna.config import from_dict
from puna.flows.tune_recipe import TuneRecipe
from puna.flows.tuning import TuneOptions, Tuning, tune
from puna.train import StepMetrics

WORDS = ("llama", "sea", "time", "grass", "high", "there", "where", "once", "upon", "land", "ask")
METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "top_layers": {"method": "top_layers", "layers": 1},
    "lora": {"method": "lora", "rank": 4, "layers": 1},
    "dora": {"method": "dora", "rank": 4, "layers": 1},
    "adapter": {"method": "adapter", "reduction": 4, "layers": 1},
}
CLOCKS = ("seconds", "tokens_per_second", "memory_bytes")


@dataclass
class Heard:
    """What a watcher was told; `at` is called by the name of what happened, and may end it all."""

    at: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    told: dict[str, list[str]] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)

    def begin(self, step: int, total: int | None) -> None:
        self._at("begin")

    def step(self, metrics: StepMetrics) -> None:
        self.steps.append(metrics.step)
        self._at(f"step {metrics.step}")

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        self.evaluations.append(dict(metrics))
        self._at(f"evaluated {step}")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def end(self) -> None:
        self._at("end")

    def progress(self, what: str, done: int, total: int) -> None:
        self.stages.append(what)
        self._at(what)

    def lines(self, title: str, lines: list[str]) -> None:
        self.told[title] = lines
        self._at(title)

    def _at(self, what: str) -> None:
        self.at.get(what, lambda: None)()


def save_base(folder: Path) -> Path:
    """The base."""
    return tiny.save_folder(folder)


def pairs(count: int = 40, *, begin: int = 0) -> list[dict[str, str]]:
    """Different questions, and answers that can be learnt."""
    numbers = range(begin, begin + count)
    return [{"source": f"{WORDS[n % 11]} {n}", "target": WORDS[(n + 1) % 11]} for n in numbers]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """As JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(base: Path, pairs_file: Path, **changes: Any) -> dict[str, Any]:
    """A recipe as plain data; `changes` replace whole entries of it."""
    return {
        "model": str(base),
        "data": {"train": str(pairs_file), "splits": {"validation": 6, "test": 5}},
        "wording": {"prompt": "Say: {source}"},
        "method": METHODS["lora"],
        "batches": {"batch_tokens": None, "batch_examples": 8},
        "train": {"epochs": 2, "optim": {"learning_rate": 0.01}},
        "evaluation": {"max_new_tokens": 4, "resamples": 100},
        "meter": {"use_codecarbon": False},
        "device": "cpu",
        **changes,
    }


def run(
    out: Path, recipe: Mapping[str, Any], heard: Heard | None = None, **options: bool
) -> Tuning:
    """Tune as a recipe of plain data says."""
    config = from_dict(TuneRecipe, recipe, "recipe")
    return tune(config, TuneOptions(out, **options), heard or Heard())


def figures(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without clocks."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key not in CLOCKS} for row in rows]


def losses(folder: Path, kind: str = "step") -> list[float]:
    """Of steps, or of evaluations."""
    name = "loss" if kind == "step" else "validation_loss"
    return [row[name] for row in figures(folder) if row["kind"] == kind]


def product(folder: Path) -> dict[str, Any]:
    """The product's files by digest; of the manifest, what is hashed."""
    place = folder / "model"
    told = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in place.iterdir()
        if path.name != "manifest.json"
    }
    manifest = json.loads((place / "manifest.json").read_text())
    return told | {"manifest.json": manifest["identity"] | {"digest": manifest["digest"]}}


def judgement(folder: Path, name: str) -> dict[str, Any]:
    """before.json or after.json without clocks."""
    told: dict[str, Any] = json.loads((folder / name).read_text())
    return {key: value for key, value in told.items() if key != "seconds"}


def assert_same_run(one: Path, other: Path) -> None:
    """All that does not tell the time is the same."""
    assert figures(one) == figures(other)
    assert product(one) == product(other)
    for name in ("before.json", "after.json"):
        assert judgement(one, name) == judgement(other, name)
    kept = ("mask", "evaluations", "best_step", "paired", "samples", "method", "asked", "data")
    summaries = [json.loads((run / "summary.json").read_text()) for run in (one, other)]
    assert [summaries[0][key] for key in kept] == [summaries[1][key] for key in kept]
