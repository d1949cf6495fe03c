"""What a run publishes, opened: on its base and no other, asked as it was taught."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import puna
from flows.tuning_setup import METHODS, judgement, product, run
from puna.config import to_dict
from puna.errors import InputError
from puna.flows.convert import ConvertOptions, convert
from puna.flows.products import Asking, find_product, is_tuning, read_asking
from puna.generate import Sampling
from puna.records import Wording
from puna.tokens.rendering import PLAIN_TEMPLATE

Recipe = Callable[..., dict[str, Any]]
SHORT = Sampling(max_tokens=4)


@pytest.fixture
def own_base(tmp_path: Path, tiny_base: Path) -> Path:
    """A copy of the base, to be changed."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def change(base: Path, name: str) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors[name] = tensors[name] * 1.01
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("method", ["lora", "top_layers", "adapter"])
def test_another_base_is_refused(
    tmp_path: Path, recipe: Recipe, own_base: Path, method: str
) -> None:
    out = tmp_path / "run"
    run(out, recipe(model=str(own_base), method=METHODS[method]))
    puna.load(str(out))
    change(own_base, "model.layers.0.mlp.up_proj.weight")
    with pytest.raises(InputError, match=r"was tuned on .*/base' with the identity") as told:
        puna.load(str(out))
    assert str(told.value.where).endswith("run/model")
    with pytest.raises(InputError, match="holds a run of another recipe, other data or another b"):
        run(out, recipe(model=str(own_base), method=METHODS[method]))


def test_a_base_that_moved_away(tmp_path: Path, recipe: Recipe, own_base: Path) -> None:
    out = tmp_path / "run"
    run(out, recipe(model=str(own_base)))
    own_base.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"run/model: needs its base '/.*/base'"):
        puna.load(str(out))


def test_a_base_named_from_here_holds_from_elsewhere(
    tmp_path: Path, recipe: Recipe, own_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_base.parent)
    run(Path("run"), recipe(model="base"))
    monkeypatch.chdir("/")
    assert puna.load(str(tmp_path / "run")).ask("sea 1", SHORT).text


def test_a_run_that_moved_is_still_whole(tmp_path: Path, recipe: Recipe) -> None:
    run(tmp_path / "run", recipe())
    answer = puna.load(str(tmp_path / "run")).ask("sea 1", SHORT).text
    (tmp_path / "run").rename(tmp_path / "moved")
    assert puna.load(str(tmp_path / "moved")).ask("sea 1", SHORT).text == answer
    shutil.copytree(tmp_path / "moved" / "model", tmp_path / "alone")
    assert puna.load(str(tmp_path / "alone")).ask("sea 1", SHORT).text == answer


def test_the_wording_and_the_template_come_along(tmp_path: Path, recipe: Recipe) -> None:
    wording = {"prompt": "In French: {source}", "system": "You translate."}
    run(tmp_path / "run", recipe(template="plain", wording=wording))
    llama = puna.load(str(tmp_path / "run"))
    text = llama.tokenizer.decode(llama.encode_question("the sea"), skip_special=False)
    assert text == "You translate.\n\nIn French: the sea"
    messages = [{"role": "user", "content": "the sea"}]
    ids = llama.encode_chat(messages)
    assert llama.tokenizer.decode(ids, skip_special=False) == "the sea", "a chat has its own words"
    asking = read_asking(tmp_path / "run" / "model")
    assert asking is not None
    assert asking.wording == Wording(prompt="In French: {source}", system="You translate.")


def test_what_is_tuned_further_keeps_its_template(tmp_path: Path, recipe: Recipe) -> None:
    run(tmp_path / "first", recipe(template="plain"))
    run(tmp_path / "second", recipe(model=str(tmp_path / "first")))
    first, second = (read_asking(tmp_path / name / "model") for name in ("first", "second"))
    assert first is not None and second is not None
    assert second.template == first.template == PLAIN_TEMPLATE


def test_a_wording_with_two_blanks_is_told_when_asked(tmp_path: Path, recipe: Recipe) -> None:
    run(tmp_path / "run", recipe(wording={"prompt": "{source} or {target}", "answer": "{target}"}))
    llama = puna.load(str(tmp_path / "run"))
    with pytest.raises(InputError, match="source"):
        llama.ask("the sea", SHORT)
    assert llama.chat([{"role": "user", "content": "the sea"}], SHORT).text


def test_an_unfinished_run_says_so(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"state": "running"}')
    with pytest.raises(InputError, match="is a run that is not finished: it has no model yet"):
        puna.load(str(tmp_path / "run"))
    assert find_product(tiny_base) == tiny_base
    assert not is_tuning(tiny_base)


@pytest.mark.parametrize("text", ["{", "[]", '{"wording": {"promt": "x"}}', '{"converses": 3}'])
def test_damaged_asking_is_named(tmp_path: Path, recipe: Recipe, text: str) -> None:
    run(tmp_path / "run", recipe())
    (tmp_path / "run" / "model" / "asking.json").write_text(text)
    with pytest.raises(InputError, match=r"asking.json"):
        puna.load(str(tmp_path / "run"))


def test_asking_is_plain_data(tmp_path: Path) -> None:
    asking = Asking("{{ messages }}", Wording(prompt="Say {source}"), converses=False)
    (tmp_path / "asking.json").write_text(json.dumps(to_dict(asking)))
    assert read_asking(tmp_path) == asking
    assert read_asking(tmp_path / "nowhere") is None


def test_tensors_that_do_not_fit_are_named(tmp_path: Path, recipe: Recipe) -> None:
    run(tmp_path / "run", recipe())
    path = tmp_path / "run" / "model" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name][:, :-1].contiguous()}, path)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        puna.load(str(tmp_path / "run"))


def test_full_tuning_of_a_tied_model(tmp_path: Path, recipe: Recipe, own_base: Path) -> None:
    """One tensor is embedding and head: both learn, and are one in the product."""
    config = json.loads((own_base / "config.json").read_text())
    (own_base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    tensors = load_file(own_base / "model.safetensors")
    tensors.pop("lm_head.weight")
    save_file(tensors, own_base / "model.safetensors", metadata={"format": "pt"})
    run(tmp_path / "run", recipe(model=str(own_base), method=METHODS["full"]))
    written = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert "lm_head.weight" not in written
    assert not torch.equal(
        written["model.embed_tokens.weight"], tensors["model.embed_tokens.weight"]
    )
    model = puna.load(str(tmp_path / "run")).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_base_in_gguf(tmp_path: Path, recipe: Recipe, tiny_base: Path, method: str) -> None:
    base = tmp_path / "base.gguf"
    convert(tiny_base, base, ConvertOptions("gguf"), progress=lambda *_: None)
    out = tmp_path / "run"
    run(out, recipe(model=str(base), method=METHODS[method]))
    llama, told = puna.load(str(out)), judgement(out, "after.json")
    for question, answer in zip(told["questions"], told["outputs"], strict=True):
        assert llama.ask(question, SHORT).text.strip() == answer


@pytest.mark.parametrize("dtype", ["bfloat16"])
@pytest.mark.parametrize("method", ["lora", "top_layers", "full"])
def test_a_base_in_bfloat16(tmp_path: Path, recipe: Recipe, method: str, dtype: str) -> None:
    asked = recipe(method=METHODS[method], dtype=dtype)
    done = run(tmp_path / "one", asked)
    run(tmp_path / "other", asked)
    assert product(tmp_path / "one") == product(tmp_path / "other")
    figures = [done.summary[name]["metrics"]["perplexity"]["value"] for name in ("before", "after")]
    assert figures[1] < figures[0]
    assert puna.load(str(tmp_path / "one"), dtype="bfloat16").ask("sea 1", SHORT).text
