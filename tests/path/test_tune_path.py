"""From a base and raw pairs to a product in use, through kills, Ctrl-C and peft."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import puna
from flows.tuning_setup import (
    METHODS,
    Heard,
    asked,
    assert_same_run,
    pairs,
    run,
    save_base,
    write_rows,
)
from path import tune_victim
from puna.generate import Sampling

TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("path") / "base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("path") / "pairs.jsonl", pairs())


@pytest.mark.slow
def test_a_run_that_is_killed_all_along_the_way(
    tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = {name: {"XDG_CACHE_HOME": str(tmp_path / name)} for name in ("one", "other")}
    done = subprocess.run(
        [sys.executable, TESTS / "path" / "tune_victim.py", tmp_path / "killed", base, data],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **caches["one"], "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    ends = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    dead = [[place, str(int(signal.SIGKILL))] for place in tune_victim.PLACES]
    assert ends == [*dead, ["nowhere", "0"]], done.stderr
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    run(tmp_path / "whole", tune_victim.recipe(base, data))
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    names = {path.name for path in (tmp_path / "killed").iterdir()}
    assert names == {path.name for path in (tmp_path / "whole").iterdir()}, "nothing is left over"


@pytest.mark.parametrize(
    "place", ["judging the base: scoring", "trunk cache", "step 3", "judging the result: scoring"]
)
def test_control_c(tmp_path: Path, base: Path, data: Path, place: str) -> None:
    cache = {"folder": str(tmp_path / "trunk")}
    recipe, heard = asked(base, data, trunk_cache=cache), Heard()
    heard.at = {place: lambda: signal.raise_signal(signal.SIGINT)}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", recipe, heard)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["state"] == "running"
    again = Heard()
    run(tmp_path / "cut", recipe, again)
    if place == "step 3":
        assert again.steps == [4, 5, 6, 7, 8]
    run(tmp_path / "whole", recipe)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_peft_reads_the_product(tmp_path: Path, base: Path, data: Path, method: str) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    out = tmp_path / "run"
    run(out, asked(base, data, method=METHODS[method]))
    llama = puna.load(str(out), dtype="float32", kernels=False)
    told = json.loads((out / "model" / "adapter_config.json").read_text())
    whole = AutoModelForCausalLM.from_pretrained(told["base_model_name_or_path"])
    theirs = peft.PeftModel.from_pretrained(whole, str(out / "model")).eval()
    ids = torch.tensor([llama.encode_question("llama 3")])
    with torch.no_grad():
        ours, expected = llama.model(ids), theirs(ids).logits
        plain = puna.load(str(base)).model(ids)
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=2e-4)
    assert (ours - plain).abs().max() > 0.1, "it changes something"


def test_a_whole_product_is_a_hugging_face_folder(tmp_path: Path, base: Path, data: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run(tmp_path / "run", asked(base, data, method=METHODS["full"]))
    product = tmp_path / "run" / "model"
    llama = puna.load(str(product))
    ids = llama.encode_question("llama 3")
    theirs = AutoModelForCausalLM.from_pretrained(product).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits
    torch.testing.assert_close(llama.model(torch.tensor([ids])), expected, atol=2e-4, rtol=2e-4)
    messages = [{"role": "user", "content": "Say: llama 3"}]
    tokenizer = AutoTokenizer.from_pretrained(product)
    chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert (chat if isinstance(chat, list) else chat["input_ids"]) == ids


def test_parity_of_asking_and_training(tmp_path: Path, base: Path, data: Path) -> None:
    """What a product is asked is what the examples of its training began with."""
    run(tmp_path / "run", asked(base, data))
    llama = puna.load(str(tmp_path / "run"))
    short = Sampling(max_tokens=4)
    chat = llama.chat([{"role": "user", "content": "Say: sea 1"}], short)
    assert llama.ask("sea 1", short).text == chat.text
    asked_ids = llama.encode_question("sea 1")
    expected = "<|im_start|>user\nSay: sea 1<|im_end|>\n<|im_start|>assistant\n"
    assert llama.tokenizer.decode(asked_ids, skip_special=False) == expected
