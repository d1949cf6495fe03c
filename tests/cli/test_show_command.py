"""`puna show` of runs and tunings, and the way back from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.pretraining_setup import make_shards, texts
from flows.tuned import make_tuning
from flows.tuning_setup import METHODS, asked, pairs, run, write_rows

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def tuned_run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A finished run."""
    place = tmp_path_factory.mktemp("show")
    data = write_rows(place / "pairs.jsonl", pairs())
    return run(place / "my-run", asked(tiny_folder, data)).path


def facts(out: str) -> dict[str, str]:
    """The first table."""
    rows = [line.split(maxsplit=1) for line in out.split("\n\n")[0].splitlines()]
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def test_a_run(puna: Call, tuned_run: Path, tiny_folder: Path) -> None:
    ran = puna("show", tuned_run)
    assert ran.code == 0, ran.err
    told = facts(ran.out)
    assert told["run"] == str(tuned_run)
    assert told["state"].startswith("finished 20")
    assert told["base"] == str(tiny_folder)
    assert told["method"].startswith("lora: ")
    assert "parameters learn, " in told["method"]
    assert told["method"].endswith(", the last layer")
    assert told["data"] == "29 train, 6 validation, 5 test (parallel)"
    assert str(tuned_run.parent / "pairs.jsonl") in ran.out
    assert told["training"].startswith("8 steps, ")
    assert told["quality"].startswith("Exact match ")
    assert "Perplexity " in ran.out
    assert "(estimate" in told["cost"]
    assert told["report"] == str(tuned_run / "report.html")
    product, lineage = ran.out.split("\n\n")[1:]
    assert "lora: rank 4, the last layer" in product
    assert "prompt: 'Say: {source}'" in product
    digest = json.loads((tuned_run / "model/manifest.json").read_text())["digest"]
    lines = [line.strip() for line in lineage.splitlines()]
    assert lines[0] == "lineage"
    assert lines[1].startswith(f"tuning {digest[:16]}, made by puna ")
    assert lines[-1].startswith(f"base {tiny_folder}, identity ")
    assert puna("show", tuned_run / "model").out.split("\n\n")[-1] == lineage


def test_a_run_that_is_not_finished(puna: Call, tuned_run: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    shutil.copytree(tuned_run / "checkpoints", place / "checkpoints")
    told = json.loads((tuned_run / "run.json").read_text())
    (place / "run.json").write_text(json.dumps({**told, "state": "running"}))
    ran = puna("show", place)
    assert ran.code == 0, ran.err
    assert "not finished, begun 20" in ran.out
    assert "8 steps are kept; the same command goes on" in ran.out


def test_a_fully_tuned_model_is_a_checkpoint(puna: Call, tmp_path: Path, tiny_folder: Path) -> None:
    whole = make_tuning(tmp_path / "whole", tiny_folder, METHODS["full"])
    out = puna("show", whole).out
    assert facts(out)["format"] == "hf"
    assert "\nmethod: full\n" in out
    assert f"\nbase: {tiny_folder}\n" in out


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"method": "adapter", "reduction": 8}, "adapter: style houlsby, reduction 8, all layers"),
        ({"method": "top_layers", "layers": 2}, "top_layers: the last 2 layers"),
        ({"method": "lora", "targets": ["q_proj"]}, "lora: rank 8, targets q_proj, all layers"),
    ],
)
def test_methods(
    puna: Call, tmp_path: Path, tiny_folder: Path, method: dict[str, Any], said: str
) -> None:
    out = puna("show", make_tuning(tmp_path / "t", tiny_folder, method)).out
    assert facts(out)["method"] == said


def test_a_tuning_on_a_tuning_leads_back_to_the_bottom(
    puna: Call, tmp_path: Path, tiny_folder: Path
) -> None:
    first = make_tuning(tmp_path / "first", tiny_folder, METHODS["lora"])
    second = make_tuning(tmp_path / "second", first, METHODS["adapter"])
    lineage = puna("show", second).out.split("\n\n")[-1]
    places = [lineage.index(word) for word in ("tune by adapter", "tune by lora", "base ")]
    assert places[0] < places[1]
    assert f"base {tiny_folder}" in lineage
    shutil.rmtree(first)
    assert f"base {first}: not here" in puna("show", second).out


def test_a_tuning_on_itself_has_an_end(puna: Call, tmp_path: Path, tiny_folder: Path) -> None:
    tuning = make_tuning(tmp_path / "t", tiny_folder, METHODS["lora"])
    told = json.loads((tuning / "tuning.json").read_text())
    told["base"]["name"] = str(tuning)
    (tuning / "tuning.json").write_text(json.dumps(told))
    ran = puna("show", tuning)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1].endswith("it stands on itself")


def test_a_tuning_of_another_program(puna: Call, tmp_path: Path, tiny_folder: Path) -> None:
    tuning = make_tuning(tmp_path / "t", tiny_folder, METHODS["lora"])
    for name in ("tuning.json", "manifest.json", "asking.json"):
        (tuning / name).unlink()
    ran = puna("show", tuning)
    assert ran.code == 0, ran.err
    assert "tuning t: no manifest, made elsewhere" in ran.out


def test_shards(puna: Call, tmp_path: Path) -> None:
    sources = {"tales": texts(), "notes": texts(120, begin=1000)}
    folder = make_shards(tmp_path, sources, {"train": {"size": 300}})
    ran = puna("show", folder)
    assert ran.code == 0, ran.err
    told = facts(ran.out)
    assert told["shards"] == str(folder)
    assert told["vocabulary"] == "300 tokens" and "uint16" in ran.out
    assert told["sources"].startswith("tales: ") and told["sources"].endswith(" documents held out")
    assert "notes: " in ran.out
    index = folder / "shards.json"
    index.write_text(index.read_text().replace('"version": 1', '"version": 9'))
    ran = puna("show", folder)
    assert ran.code == 2 and "is of format 9; this puna reads format 1" in ran.err


def test_damage_is_named(puna: Call, tuned_run: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    (place / "run.json").write_text("[]")
    ran = puna("show", place)
    assert (ran.code, ran.out) == (2, "")
    assert f"puna: {place}/run.json: is damaged: it holds no object" in ran.err
