"""`puna pretrain` as a user meets it: shards, one command, its words, and the model it leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.pretraining_setup import asked, make_shards, texts

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain-command")
    return make_shards(folder, {"tales": texts()}, {"train": {"size": 300}})


@pytest.fixture
def files(shards: Path) -> Callable[..., Path]:
    """Writes a recipe in the folder at hand."""

    def write(**changes: Any) -> Path:
        path = Path("recipe.yaml")
        path.write_text(json.dumps(asked(shards, **changes), indent=1))
        return path

    return write


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_from_a_recipe_to_a_text(puna: Call, files: Callable[..., Path]) -> None:
    ran = puna("pretrain", files(), "--out", "run")
    assert (ran.code, ran.out) == (0, "")
    assert "tales: " in ran.err
    assert "vocabulary: 300 tokens" in ran.err
    assert re.search(r"^[\d,]+ tokens/s, [\d.]+ % of the machine's rate", ran.err, re.MULTILINE)
    assert re.search(r"^bits per byte: [\d.]+$", ran.err, re.MULTILINE)
    assert re.search(r"^memory: .* at the most, predicted .*%\)", ran.err, re.MULTILINE)
    assert ran.err.splitlines()[-1] == 'use it   puna generate --model run "..."'
    made = puna("generate", "--model", "run", "--quiet", "--max-tokens", "4", "Once upon")
    assert made.code == 0, made.err
    assert made.out.startswith("Once upon") or made.out.strip()


def test_show_tells_the_run_and_its_lineage(puna: Call, files: Callable[..., Path]) -> None:
    assert puna("pretrain", files(), "--out", "run", "--quiet").code == 0
    ran = puna("show", "run")
    assert ran.code == 0, ran.err
    assert "parameters, from fresh weights" in ran.out
    assert "bits per byte" in ran.out
    assert "pretrain recipe.yaml --out run" in ran.out
    lineage = ran.out[ran.out.index("lineage") :]
    assert re.search(r"checkpoint [0-9a-f]{16}, made by puna [\d.]+: pretrain", lineage)
    assert re.search(r"from shards [0-9a-f]{16}", lineage)
    assert re.search(r"shards [0-9a-f]{16}, made by puna", lineage)


def test_the_product_is_converted_and_evaluated(puna: Call, files: Callable[..., Path]) -> None:
    assert puna("pretrain", files(), "--out", "run", "--quiet").code == 0
    ran = puna("convert", "run/model", "again", "--to", "hf")
    assert ran.code == 0, ran.err
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts(8, begin=500)))
    judged = ("evaluate", "run", "--data", "t.jsonl", "--metrics", "bits_per_byte")
    ran = puna(*judged, "--base", "none")
    assert ran.code == 0, ran.err
    ran = puna("evaluate", "run")
    assert ran.code == 2
    assert "--data" in ran.err


def test_the_same_command_again(puna: Call, files: Callable[..., Path]) -> None:
    recipe = files()
    first = puna("pretrain", recipe)
    assert first.code == 0
    assert tree(Path("runs")) > {"recipe", "recipe/model", "recipe/report.html"}
    ran = puna("pretrain", recipe)
    assert ran.code == 0
    assert "this run is finished already; --force begins it again" in ran.err
    other = puna("pretrain", recipe, "init_seed=7")
    assert other.code == 2
    assert "holds a run of another recipe" in other.err
    assert puna("pretrain", recipe, "init_seed=7", "--force").code == 0
    told = json.loads(Path("runs/recipe/summary.json").read_text())
    assert told["command"] == "puna pretrain recipe.yaml init_seed=7 --out runs/recipe"
    ran = puna("pretrain", recipe, "--out", "other", "--resume")
    assert (ran.code, "holds no run to go on with" in ran.err) == (2, True)


def test_a_dry_run_writes_nothing(puna: Call, files: Callable[..., Path]) -> None:
    recipe = files()
    before = tree(Path())
    ran = puna("pretrain", recipe, "train.max_steps=6", "--dry-run")
    assert ran.code == 0, ran.err
    assert tree(Path()) == before
    keys = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if "#" in line)
    assert keys["train.max_steps"] == "6  # override 'train.max_steps=6'"
    assert keys["train.optim.beta2"] == "0.95  # default"
    assert re.search(r"^parameters +[\d,]+, [\d,]+ of them the embedding$", ran.out, re.MULTILINE)
    assert re.search(r"^steps +6 of 256 tokens$", ran.out, re.MULTILINE)
    assert re.search(r"^tokens +1,536 in all", ran.out, re.MULTILINE)
    for word in ("speed", "training", "judging", "memory"):
        assert re.search(rf"^{word} +about [\d.,]+ ", ran.out, re.MULTILINE), word


def test_a_dry_run_of_what_no_machine_holds(puna: Call, files: Callable[..., Path]) -> None:
    ran = puna("pretrain", files(model="llama-3.1-405b"), "--dry-run")
    assert ran.code == 0, ran.err
    assert re.search(r"^training +not tried: weights and gradients take", ran.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("mixture.weights={tails: 1}", "tails"),
        ("tokns=5", "did you mean 'tokens'?"),
        ("train.epochs=2", "epochs is not for pretraining"),
        ("model=laptop-11m", "nearest: laptop-10m"),
        ("shards=nowhere", "nowhere"),
    ],
)
def test_errors_have_code_2(
    puna: Call, files: Callable[..., Path], override: str, said: str
) -> None:
    ran = puna("pretrain", files(), override, "--out", "run")
    assert ran.code == 2
    assert said in ran.err
    assert not Path("run").exists()
    assert puna("pretrain", files(), override, "--dry-run").code == 2


def test_quiet_and_a_log_file(puna: Call, files: Callable[..., Path]) -> None:
    ran = puna("pretrain", files(), "--out", "run", "--quiet", "--log-file", "log.txt")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    lines = Path("log.txt").read_text().splitlines()
    assert sum(": loss" in line for line in lines) == 10
