"""`puna plan` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[..., Any]


def test_a_plan_of_a_preset(puna: Call) -> None:
    ran = puna("plan", "7B", "--hardware", "a100-80gb", "--ranks", "8", "--tokens", "1T")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("model         llama-7b: 6,738,415,616 parameters\n")
    assert "memory of each device, at the highest moment of a step\n" in ran.out
    for word in ("weights", "optimizer", "activations", "logits", "together"):
        assert f"\n  {word} " in ran.out
    assert "(in the head)\n" in ran.out, "where there are no gradients yet"
    assert "DOES NOT FIT" not in ran.out


def test_gradients_where_a_step_is_highest_with_them(puna: Call) -> None:
    ran = puna("plan", "7B", "--hardware", "a100-80gb", "--ranks", "8", "--checkpointing")
    assert (ran.code, ran.err) == (0, "")
    assert "\n  gradients " in ran.out
    assert "block's gradients)\n" in ran.out


def test_the_carbon_of_the_llama_paper(puna: Call) -> None:
    where = ("--hardware", "a100-80gb", "--device-hours", "82432", "--ranks", "8")
    ran = puna("plan", "7B", *where, "--carbon-grams-per-kwh", "385", "--pue", "1.1", "--json")
    told = json.loads(ran.out)
    assert round(told["energy_kwh"] / 1000) == 36
    assert round(told["co2e_kg"] / 1000) == 14


def test_the_training_can_be_described(puna: Call) -> None:
    options = ("--method", "lora", "--rank", "4", "--row-tokens", "64", "--batch-rows", "3")
    more = ("--checkpointing", "--dtype", "float32", "--no-sharded", "--ranks", "2")
    ran = puna("plan", "laptop-10m", "--hardware", "two-cores", "--json", *options, *more)
    assert ran.code == 0, ran.err
    setting = json.loads(ran.out)["setting"]
    assert (setting["rows"], setting["row_tokens"], setting["ranks"]) == (3, 64, 2)
    assert (setting["sharded"], setting["activation_checkpointing"]) == (False, True)
    assert setting["method"]["rank"] == 4


def test_a_checkpoint_and_a_described_device(puna: Call, tiny_folder: Path) -> None:
    device = "flops=100G,memory=2GB,watts=30,price=0.01"
    ran = puna("plan", tiny_folder, "--hardware", device, "--tokens", "1M")
    assert ran.code == 0, ran.err
    assert "tuning by lora" in ran.out
    assert "\ncost          $0.0" in ran.out


def test_what_fits(puna: Call) -> None:
    ran = puna("plan", "laptop-10m", "--fit", "--hardware", "two-cores")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("fits          laptop-10m with ")
    ran = puna("plan", "--fit", "--hardware", "two-cores,memory=600M", "--row-tokens", "128")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("fits          ")


def test_errors(puna: Call) -> None:
    ran = puna("plan")
    assert ran.code == 2
    assert "name a model" in ran.err
    assert "fix: puna plan --fit tells the largest preset that fits" in ran.err
    ran = puna("plan", "7B", "--hardware", "a100")
    assert ran.code == 2
    assert "nearest: a100-80gb" in ran.err
    assert puna("plan", "7B", "--tokens", "many", "--hardware", "h200").code == 2


def test_what_cannot_be_planned(puna: Call, tmp_path: Path) -> None:
    recipe = tmp_path / "tokenize.yaml"
    recipe.write_text("sources: {web: {files: web.jsonl}}\n")
    ran = puna("plan", recipe, "--hardware", "a100-80gb")
    assert ran.code == 2 and "is a recipe of puna tokenize" in ran.err
    ran = puna(*["plan", "7b", "--hardware", "a100-80gb", "--tokens", "1T", "--device-hours", "3"])
    assert ran.code == 2 and "both say how long the run is" in ran.err
