"""Every tuning recipe runs from its file to a product that answers, on a tiny model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

import puna
from flows.tuning_setup import Heard, pairs, write_rows
from house.source import REPOSITORY
from puna.config import load_recipe
from puna.flows.tune_recipe import TuneRecipe
from puna.flows.tuning import TuneOptions, Tuning, tune

FOLDER = REPOSITORY / "recipes"
RECIPES = sorted(
    path.name
    for path in FOLDER.glob("*.yaml")
    if "data" in yaml.safe_load(path.read_text(encoding="utf-8"))
)
# Settings that only make a run small, or that this machine may not have.
SMALL = (
    "device=cpu",
    "threads=1",
    "train.epochs=null",
    "train.max_steps=2",
    "train.schedule.warmup_steps=0",
    "batches.batch_tokens=null",
    "batches.batch_examples=8",
    "watch.max_examples=4",
    "evaluation.max_new_tokens=4",
    "evaluation.resamples=50",
    "meter.use_codecarbon=false",
)


def alpaca() -> list[dict[str, str]]:
    names = {"source": "input", "target": "output"}
    return [
        {"instruction": "Say it.", **{names[key]: text for key, text in row.items()}}
        for row in pairs()
    ]


def data(folder: Path, recipe: TuneRecipe, name: str) -> list[str]:
    """The recipe's kind of data, and the overrides that name the files."""
    if recipe.data.train_targets is not None:
        for start, split in enumerate(("train", "validation", "test")):
            rows = pairs(20, begin=20 * start)
            for side in ("source", "target"):
                lines = "".join(row[side] + "\n" for row in rows)
                (folder / f"{split}.{side}").write_text(lines)
        files = [(split, folder / split) for split in ("train", "validation", "test")]
        return [
            f"data.{split}{key}={path}.{side}"
            for split, path in files
            for key, side in (("", "source"), ("_targets", "target"))
        ]
    small = ["data.splits.validation=6", "data.splits.test=5"]
    if recipe.objective == "next_token":
        texts = "".join(f"Once upon a time there was {row['source']}.\n" for row in pairs())
        (folder / "text.txt").write_text(texts)
        return [f"data.train={folder / 'text.txt'}", *small]
    rows = alpaca() if name == "tune-instructions.yaml" else pairs()
    return [f"data.train={write_rows(folder / 'rows.jsonl', rows)}", *small]


def run(name: str, folder: Path, base: Path) -> tuple[TuneRecipe, Tuning]:
    written = load_recipe(FOLDER / name, TuneRecipe)
    changes = [f"model={base}", *SMALL, *data(folder, written, name)]
    if getattr(written.method, "layers", None) is not None:
        changes.append("method.layers=1")  # the tiny model has two
    recipe = load_recipe(FOLDER / name, TuneRecipe, changes)
    return written, tune(recipe, TuneOptions(folder / "run"), Heard())


def test_there_are_recipes_for_the_main_ways() -> None:
    wanted = {"lora", "top-layers", "instructions", "text"}
    assert {f"tune-{way}.yaml" for way in wanted} | {"translate-gpu.yaml"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_and_its_product_answers(name: str, tmp_path: Path, tiny_base: Path) -> None:
    written, done = run(name, tmp_path, tiny_base)
    assert done.summary["training"]["steps"] == 2
    assert done.report.stat().st_size > 1000
    assert set(done.summary["after"]["metrics"]) == set(written.evaluation.metrics)
    assert done.summary["evaluations"], "nothing was validated"
    cached = getattr(written.method, "layers", None) is not None and written.trunk_cache.enabled
    assert (done.summary["cache"] is not None) == cached
    llama = puna.load(str(done.path))
    sampling = puna.Sampling(max_tokens=3)
    assert llama.is_taught == (written.objective == "instruction")
    made: Any = llama.ask("llama 3", sampling) if llama.is_taught else llama.generate("Once")
    assert made.ids


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_only_metrics_that_are_known(name: str) -> None:
    recipe = load_recipe(FOLDER / name, TuneRecipe)
    for watched in recipe.watch.metrics:
        dataclasses.replace(recipe.evaluation, metrics=(watched,))
    best = recipe.train.best_metric.removeprefix("validation_")
    assert best in ("loss", *recipe.watch.metrics)
