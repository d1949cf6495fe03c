"""`puna merge` as a user calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.tuned import make_tuning
from flows.tuning_setup import METHODS

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A tuning of the tiny model."""
    return make_tuning(tmp_path_factory.mktemp("merge") / "tuning", tiny_folder, METHODS["lora"])


def test_it_says_what_it_did(puna: Call, tuning: Path, tiny_folder: Path) -> None:
    ran = puna("merge", tuning, "merged")
    assert (ran.code, ran.out) == (0, "")
    lines = ran.err.splitlines()
    assert lines[0].startswith(f"merged: {tiny_folder} with its lora merged in, ")
    assert lines[1].startswith("merged in float32: mean KL from the unmerged model ")
    assert lines[2].startswith("compared with the merged model: equal bit for bit over ")
    assert lines[-1] == 'use it   puna generate --model merged "..."'
    same = [
        puna("generate", "--model", name, "the sea", "--max-tokens", "5")
        for name in (tuning, "merged")
    ]
    assert same[0].out == same[1].out != ""


def test_gguf_is_one_file_that_knows_how_it_is_asked(puna: Call, tuning: Path) -> None:
    assert puna("merge", tuning, "x.gguf", "--to", "gguf", "--quiet").err == ""
    same = [
        puna("generate", "--model", name, "the sea", "--max-tokens", "5")
        for name in (tuning, "x.gguf")
    ]
    assert same[0].out == same[1].out != ""
    unverified = puna("merge", tuning, "x.gguf", "--to", "gguf", "--force", "--no-verify")
    assert "were not compared" in unverified.err


def test_show_leads_back_to_the_tuning(puna: Call, tuning: Path, tiny_folder: Path) -> None:
    puna("merge", tuning, "x.gguf", "--to", "gguf")
    out = puna("show", "x.gguf").out
    assert f": lora merged into {tiny_folder}, to gguf, float32\n" in out
    assert "\ntuning " in out
    assert ": tune by lora\n  finished " in out


def test_mistakes(puna: Call, tuning: Path, tiny_folder: Path, tmp_path: Path) -> None:
    ran = puna("merge", tiny_folder, "out")
    assert ran.code == 2
    assert "is a whole model: there is nothing to merge" in ran.err
    assert f"puna convert {tiny_folder} OUT --to hf" in ran.err
    adapter = make_tuning(tmp_path / "adapter", tiny_folder, METHODS["adapter"])
    ran = puna("merge", adapter, "out")
    assert ran.code == 2
    assert "tuning by the method 'adapter', which adds layers of its own" in ran.err
    ran = puna("merge", tuning, "out", "--dtype", "q8_0")
    assert "q8_0 belongs to GGUF, not to hf" in ran.err
    ran = puna("convert", tuning, "out", "--to", "hf")
    assert f"{tuning}: is a tuning, which needs its base\n  fix: puna merge" in ran.err
    assert not Path("out").exists()
