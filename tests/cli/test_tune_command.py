"""`puna tune` as a user meets it: one command, its words, and the model it leaves."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.tuning_setup import METHODS, asked, assert_same_run, pairs, write_rows
from puna.cli.watching import TuneWatcher
from puna.flows import tune_trial

Call = Callable[..., Any]


@pytest.fixture
def files(tmp_path: Path, tiny_folder: Path) -> Callable[..., Path]:
    """Writes a recipe in the folder at hand, and the data that it names."""
    write_rows(Path("pairs.jsonl"), pairs())

    def write(**changes: Any) -> Path:
        path = Path("recipe.yaml")
        path.write_text(json.dumps(asked(tiny_folder, Path("pairs.jsonl"), **changes), indent=1))
        return path

    return write


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("method", METHODS)
def test_from_a_recipe_to_an_answer(puna: Call, files: Callable[..., Path], method: str) -> None:
    recipe = files(method=METHODS[method])
    ran = puna("tune", recipe, "--out", "run")
    assert (ran.code, ran.out) == (0, "")
    assert "29 train, 6 validation, 5 test" in ran.err
    assert "[[" in ran.err, "what is trained is shown"
    assert re.search(r"^perplexity: \S+ \[.*\] -> \S+ \[.*\]$", ran.err, re.MULTILINE)
    assert ran.err.splitlines()[-1] == 'use it   puna generate --model run "..."'
    question = ("generate", "--model", "run", "--quiet", "--max-tokens", "4")
    answer = puna(*question, "sea 1")
    assert answer.code == 0
    assert puna(*question, stdin=b"sea 1\n").out == answer.out
    assert puna(*question, "--chat", "Say: sea 1").out == answer.out, "in the recipe's words"
    assert puna(*question, "--plain", "sea 1").out != answer.out
    told = json.loads(puna(*question, "--jsonl", "sea 1").out)
    assert told["prompt_tokens"] > len("sea 1")


def test_the_same_command_again_does_nothing(puna: Call, files: Callable[..., Path]) -> None:
    recipe = files()
    first = puna("tune", recipe)
    assert first.code == 0
    assert tree(Path("runs")) > {"recipe", "recipe/model", "recipe/report.html"}
    ran = puna("tune", recipe)
    assert ran.code == 0
    assert "this run is finished already; --force begins it again" in ran.err
    assert ran.err.splitlines()[-4:] == first.err.splitlines()[-4:]
    other = puna("tune", recipe, "train.epochs=1")
    assert other.code == 2
    assert other.err.splitlines()[-2:] == [
        "puna: runs/recipe: holds a run of another recipe, other data or another base",
        "  fix: choose another --out, or add --force to begin again in this one",
    ]
    assert puna("tune", recipe, "train.epochs=1", "--force").code == 0
    told = json.loads(Path("runs/recipe/summary.json").read_text())
    assert told["asked"]["train"]["epochs"] == 1
    assert told["command"] == "puna tune recipe.yaml train.epochs=1 --out runs/recipe"


def test_resume_and_force(puna: Call, files: Callable[..., Path]) -> None:
    recipe = files()
    ran = puna("tune", recipe, "--out", "run", "--resume")
    assert (ran.code, ran.err) == (
        2,
        "puna: run: holds no run to go on with\n  fix: leave out --resume to begin one\n",
    )
    Path("run").mkdir()
    Path("run/thesis.tex").touch()
    for words in ([], ["--force"]):
        ran = puna("tune", recipe, "--out", "run", *words)
        assert (ran.code, ran.err.splitlines()[0]) == (
            2,
            "puna: run: holds thesis.tex, which is not of a run",
        )
    assert tree(Path("run")) == {"thesis.tex"}


@pytest.mark.parametrize("method", ["lora", "full", "adapter"])
def test_a_dry_run_writes_nothing(
    puna: Call, files: Callable[..., Path], method: str, cache_home: Path
) -> None:
    recipe = files(method=METHODS[method])
    before = tree(Path())
    trunks = tree(cache_home)
    ran = puna("tune", recipe, "train.epochs=5", "--dry-run")
    assert ran.code == 0
    assert tree(Path()) == before
    assert {path for path in tree(cache_home) - trunks if "identities" not in path} <= {"puna"}
    lines = ran.out.splitlines()
    keys = dict(line.split(maxsplit=1) for line in lines if "#" in line)
    assert keys["train.epochs"] == "5  # override 'train.epochs=5'"
    assert re.fullmatch(r"0.01  # recipe.yaml:\d+", keys["train.optim.learning_rate"])
    assert keys["train.optim.beta1"].endswith("# default")
    assert re.search(r"^parameters +[\d,]+, of which [\d,]+ learn", ran.out, re.MULTILINE)
    assert re.search(r"^steps +4 an epoch, 20 in all$", ran.out, re.MULTILINE)
    for word in ("training", "judging", "memory"):
        assert re.search(rf"^{word} +about [\d.,]+ ", ran.out, re.MULTILINE)
    assert ("trunk cache" in ran.out) == (method != "full")


def test_a_dry_run_of_steps(puna: Call, files: Callable[..., Path]) -> None:
    ran = puna("tune", files(), "train.max_steps=5", "--dry-run", "data.splits.test=0")
    assert ran.code == 0, ran.err
    assert re.search(r"^steps +5 an epoch, 5 in all$", ran.out, re.MULTILINE)
    assert "judging" not in ran.out
    ran = puna("tune", files(), "train.max_steps=9", "train.epochs=null", "--dry-run")
    assert re.search(r"^steps +4 an epoch, 9 in all$", ran.out, re.MULTILINE)
    ran = puna("tune", files(), "train.micro_batches=3", "trunk_cache.dtype=int8", "--dry-run")
    said = "an epoch's last step takes what is left of it"
    assert re.search(r"^steps +2 an epoch, 4 in all$", ran.out, re.MULTILINE), said
    assert re.search(r"^trunk cache .* in int8$", ran.out, re.MULTILINE)


def test_a_dry_run_counts_answers_that_are_only_shown(
    puna: Call, files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []

    def judging(*given: Any, **more: Any) -> Any:
        shown.append(given[3].samples)
        return judge(*given, **more)

    judge = tune_trial.judge
    monkeypatch.setattr(tune_trial, "judge", judging)
    evaluation = {"metrics": ["perplexity"], "max_new_tokens": 4, "resamples": 100, "samples": 3}
    assert puna("tune", files(evaluation=evaluation), "--dry-run").code == 0
    assert shown == [0, 3]


def test_quiet_and_a_log_file(puna: Call, files: Callable[..., Path]) -> None:
    recipe = files(trunk_cache={"folder": "trunk"})
    ran = puna("tune", recipe, "--out", "run", "--quiet", "--log-file", "log.txt")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    lines = Path("log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d ", line) for line in lines)
    told = "\n".join(lines)
    for number in range(1, 9):
        assert f" step {number} of 8: loss " in told
    assert " after step 8: validation_loss " in told
    assert " trunk cache: " in told
    assert " judging the base: answering: 5 done" in told


@pytest.mark.parametrize("place", ["/dev/full", "nowhere/log.txt"])
def test_a_log_that_cannot_be_written(puna: Call, files: Callable[..., Path], place: str) -> None:
    ran = puna("tune", files(), "--out", "run", "--quiet", "--log-file", place)
    assert ran.code == 2
    if place == "/dev/full":
        assert ran.err.startswith("puna: /dev/full: the log cannot be written: No space left")
    else:
        assert ran.err.startswith("puna: nowhere/log.txt: the folder nowhere does not exist")


RECIPE_FAULTS = {
    '{"data": {"train": "a"}, "metod": {}}': r"recipe.yaml:1: .*metod.*\n  fix: .*method",
    '{"data": {"train": "a"}, "method": {"method": "lorra"}}': r"recipe.yaml:1: .*lorra",
    '{"data": {"train": "a"}, "method": {"method": "full", "rank": 3}}': r"recipe.yaml:1: .*rank",
    '{"data": {"train": 3}}': r"recipe.yaml:1: .*data.train",
    "{}": r"recipe.yaml:1: missing key 'data'",
    '{"data": {"train": "a"}, "train": {"epochs": 0}}': r"epochs must be at least 1, found 0",
    '{"data": {"train": "a"}, "watch": {"metrics": ["blue"]}}': r"metric 'blue' is not known",
    '{"data": {"train": "a"}, "train": {"best_metric": "validation_chrf"}}': r"not found while tra",
    '{"data": {"train": "a"}, "watch": {"metrics": ["chrf"]}, "train": '
    '{"best_metric": "validation_chrf"}}': r"worst of validation_chrf\n  fix: .*: highest",
    '{"data": {"train": "a"}, "train": {"best_metric": "validation_los"}}': r"names "
    r"validation_los, which is not found while training\n  fix: it can be validation_loss, or",
    '{"data": {"train": "a"}, "train": {"best_is": "highest"}}': r"worst of validation_loss\n"
    r"  fix: .*: lowest",
    "{": r"recipe.yaml",
}


@pytest.mark.parametrize("text", RECIPE_FAULTS)
def test_faults_of_a_recipe(puna: Call, text: str) -> None:
    Path("recipe.yaml").write_text(text)
    ran = puna("tune", "recipe.yaml")
    assert ran.code == 2
    assert re.search(RECIPE_FAULTS[text], ran.err), ran.err
    assert tree(Path()) == {"recipe.yaml"}


def test_faults_of_the_data(puna: Call, files: Callable[..., Path]) -> None:
    recipe = files()
    Path("pairs.jsonl").write_text('{"source": "a", "tarjet": "b"}\n')
    ran = puna("tune", recipe)
    assert ran.code == 2
    assert "pairs.jsonl:1: these columns are of no known shape: 'source', 'tarjet'" in ran.err
    Path("pairs.jsonl").unlink()
    ran = puna("tune", recipe)
    assert ran.code == 2
    assert "pairs.jsonl" in ran.err


def test_control_c_and_on(
    puna: Call, files: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, step = files(), TuneWatcher.step

    def interrupted(self: TuneWatcher, metrics: Any) -> None:
        step(self, metrics)
        if metrics.step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TuneWatcher, "step", interrupted)
        ran = puna("tune", recipe, "--out", "run")
    assert ran.code == 130
    assert "interrupted after step 3, whose checkpoint is written; the same command" in ran.err
    assert ran.err.endswith("puna: interrupted\n")
    ran = puna("generate", "--model", "run", "Once")
    assert (ran.code, ran.err.splitlines()[0]) == (
        2,
        "puna: run: is a run that is not finished: it has no model yet",
    )
    ran = puna("tune", recipe, "--out", "run")
    assert ran.code == 0
    assert "going on from the checkpoint after step 3" in ran.err
    assert puna("tune", recipe, "--out", "whole").code == 0
    assert_same_run(Path("run"), Path("whole"))
