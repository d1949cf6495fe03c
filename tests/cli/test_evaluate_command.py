"""`puna evaluate` as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.tuned import make_tuning
from flows.tuning_setup import METHODS, pairs, write_rows
from puna.flows import evaluating
from puna.meter import MeterConfig

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def plainly_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    """codecarbon takes seconds to look around."""
    monkeypatch.setattr(evaluating, "MeterConfig", lambda: MeterConfig(use_codecarbon=False))


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A tuning of the tiny model."""
    return make_tuning(tmp_path_factory.mktemp("judged") / "tuning", tiny_folder, METHODS["lora"])


@pytest.fixture
def rows() -> Path:
    """Six pairs, in the folder of the call."""
    return write_rows(Path("rows.jsonl"), pairs(6))


def test_a_table_with_intervals_and_a_test(puna: Call, tuning: Path, rows: Path) -> None:
    arguments = ("--metrics", "chrf,bits_per_byte", "--max-new-tokens", "3", "--device", "cpu")
    ran = puna("evaluate", tuning, "--data", rows, *arguments)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    base = json.loads((tuning / "tuning.json").read_text())["base"]["name"]
    assert lines[:4] == [
        f"model    {tuning}, made from {base}",
        f"base     {base}",
        "data     6 examples in rows.jsonl (parallel)",
        "asked    'Say: {source}'",
    ]
    table = [line.split() for line in lines[5:8]]
    assert table[0][-2:] == ["difference", "p"]
    assert [row[0] for row in table[1:]] == ["chrF", "Bits"]
    assert lines[7].count("[") == 3, "two values and a difference, each with its interval"
    assert any(line.startswith("chrF: nrefs:1|") for line in lines)
    assert sum(line.startswith("wanted") for line in lines) == 3
    assert "were cut at the longest length allowed" in ran.err
    assert not Path("evaluation.json").exists()


def test_a_model_alone(puna: Call, tuning: Path, rows: Path) -> None:
    more = write_rows(Path("more.jsonl"), pairs(4, begin=50))
    given = ("--data", rows, more, "--base", "none", "--limit", "3", "--quiet")
    ran = puna("evaluate", tuning, *given, "--metrics", "exact_match", "perplexity")
    assert (ran.code, ran.err) == (0, "")
    assert "data     3 of 10 examples in rows.jsonl, more.jsonl (parallel)" in ran.out
    assert "difference" not in ran.out
    assert "base  " not in ran.out


def test_columns_and_words(puna: Call, tiny_folder: Path) -> None:
    Path("odd.csv").write_text("en,de\nthe sea,das Meer\nthe land,das Land\n")
    columns = ("--columns.source", "en", "--columns.target", "de")
    given = ("--data", "odd.csv", *columns, "--metrics", "token_accuracy", "--prompt", "{en}!")
    ran = puna("evaluate", tiny_folder, *given, "--template", "plain", "--max-new-tokens", "2")
    assert ran.code == 0, ran.err
    assert "asked    '{en}!'" in ran.out


def test_what_is_written(puna: Call, tuning: Path, rows: Path) -> None:
    given = ("--data", rows, "--metrics", "bits_per_byte", "--out", "found", "--log-file", "log")
    ran = puna("evaluate", tuning, *given, "--max-new-tokens", "2")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[-1] == "report   found/report.html"
    told = json.loads(Path("found/evaluation.json").read_text())
    assert told["data"]["judged"] == 6
    log = Path("log").read_text().splitlines()
    assert len(log) == 4, "answering and scoring, of two models"
    assert "answering: 6 examples in" in log[0]
    ran = puna("evaluate", tuning, *given)
    assert ran.code == 2
    assert "puna: found: already exists" in ran.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "brings no test data of its own"),
        (("--data", "gone.jsonl"), "gone.jsonl"),
        (("--data", "rows.jsonl", "--metrics", "blue"), "metric 'blue' is not known"),
        (("--data", "rows.jsonl", "--template", "no.jinja"), "no.jinja: cannot be read"),
        (("--data", "rows.jsonl", "--out", "no/out"), "the folder no does not exist"),
        (("--data", "rows.jsonl", "--limit", "0"), "limit must be at least 1"),
    ],
)
def test_mistakes(puna: Call, tuning: Path, rows: Path, given: tuple[str, ...], said: str) -> None:
    ran = puna("evaluate", tuning, *given)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert not Path("out").exists()
