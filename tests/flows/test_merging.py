"""Merged is unmerged, in every format, for us and for transformers; and what cannot be merged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import puna
from flows.tuned import IDS, WORDING, logits, make_tuning, opened, unmerged_logits
from flows.tuning_setup import METHODS
from puna.errors import InputError
from puna.flows import verify
from puna.flows.convert import ConvertOptions, convert
from puna.flows.merging import Merged, MergeOptions, merge
from puna.flows.products import read_asking
from puna.store import open_checkpoint
from puna.tokens import BUILTIN_TEMPLATES
from puna.tokens.rendering import PLAIN_TEMPLATE, Renderer

MERGED = {"atol": 2e-4, "rtol": 1e-4}  # float32 rounding, one sum per weight, over two layers
TURNS = [{"role": "user", "content": "where is the sea?"}]


def run(name: Path, target: Path, to: str = "hf", **options: object) -> Merged:
    wanted = MergeOptions(to=to, **options)
    return merge(str(name), target, wanted, progress=lambda what, done, total: None)


def gguf_name(folder: Path, to: str) -> Path:
    return folder / ("merged.gguf" if to == "gguf" else "merged")


@pytest.mark.parametrize("to", ["hf", "gguf", "meta"])
@pytest.mark.parametrize("method", ["lora", "dora", "top_layers"])
def test_merged_is_unmerged(tmp_path: Path, tiny_base: Path, method: str, to: str) -> None:
    tuning = make_tuning(tmp_path / "tuning", tiny_base, METHODS[method])
    wanted = unmerged_logits(tuning, tiny_base)
    assert (wanted - logits(opened(tiny_base).model)).abs().max() > 0.05, "it learnt something"
    done = run(tuning, gguf_name(tmp_path, to), to)
    assert done.gap.mean_kl <= verify.KL_BOUNDS["float32"]
    assert done.product.verdict is not None
    assert done.product.verdict.rounding == "exact"
    found = opened(done.product.path)
    torch.testing.assert_close(logits(found.model), wanted, **MERGED)
    assert found.tunings == ()
    assert found.asking is not None
    assert found.asking.wording == WORDING
    asked, taught = puna.load(str(done.product.path)), puna.load(str(tuning))
    assert asked.encode_question("the sea") == taught.encode_question("the sea")
    sampling = puna.Sampling(max_tokens=6)
    assert asked.ask("the sea", sampling).text == taught.ask("the sea", sampling).text
    assert "lora" not in str(list(open_checkpoint(done.product.path).tensors))


def test_transformers_reads_it(tmp_path: Path, tiny_base: Path) -> None:
    template = BUILTIN_TEMPLATES["vicuna"]
    tuning = make_tuning(tmp_path / "tuning", tiny_base, METHODS["lora"], template)
    done = run(tuning, tmp_path / "out")
    assert done.template
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        theirs = model(IDS).logits
    torch.testing.assert_close(theirs, unmerged_logits(tuning, tiny_base), **MERGED)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    ours = opened(tmp_path / "out").tokenizer
    assert (
        text == ours.render(TURNS) == opened(tiny_base).tokenizer.render(TURNS, template=template)
    )
    assert set(model.generation_config.eos_token_id) == Renderer(ours).stop_ids
    assert "chat_template" not in json.loads((tmp_path / "out/tokenizer_config.json").read_text())


@pytest.mark.parametrize("to", ["hf", "gguf", "meta"])
def test_the_recipes_template_goes_along(tmp_path: Path, tiny_base: Path, to: str) -> None:
    tuning = make_tuning(tmp_path / "tuning", tiny_base, METHODS["lora"], PLAIN_TEMPLATE)
    first = run(tuning, gguf_name(tmp_path, to), to)
    assert first.template
    assert opened(first.product.path).tokenizer.chat_template == PLAIN_TEMPLATE
    # Conversion of the product keeps both, in either direction.
    other = "hf" if to == "gguf" else "gguf"
    second = tmp_path / ("again" if other == "hf" else "again.gguf")
    convert(first.product.path, second, ConvertOptions(to=other), progress=lambda *_: None)
    found = opened(second)
    assert found.tokenizer.chat_template == PLAIN_TEMPLATE
    assert found.asking is not None
    assert (found.asking.wording, found.asking.template) == (WORDING, PLAIN_TEMPLATE)


def test_templates_of_other_names_stay(tmp_path: Path, tiny_base: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in tiny_base.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "tokenizer_config.json").read_text())
    own = [{"name": "default", "template": config["chat_template"]}]
    config["chat_template"] = [*own, {"name": "tool_use", "template": "tools"}]
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    run(make_tuning(tmp_path / "t", base, METHODS["lora"], PLAIN_TEMPLATE), tmp_path / "out")
    written = json.loads((tmp_path / "out/tokenizer_config.json").read_text())["chat_template"]
    assert {one["name"]: one["template"] for one in written} == {
        "default": PLAIN_TEMPLATE,
        "tool_use": "tools",
    }


def test_dtypes(tmp_path: Path, tiny_base: Path) -> None:
    convert(
        tiny_base, tmp_path / "half", ConvertOptions("hf", "bfloat16"), progress=lambda *_: None
    )
    tuning = make_tuning(tmp_path / "tuning", tmp_path / "half", METHODS["lora"])
    kept = run(tuning, tmp_path / "kept")
    kinds = {t.dtype for t in open_checkpoint(kept.product.path).tensors.values()}
    assert kinds == {torch.bfloat16}, "as the base has it"
    assert kept.product.verdict is not None
    assert kept.product.verdict.mean_kl <= verify.KL_BOUNDS["bfloat16"]
    wide = run(tuning, tmp_path / "wide", dtype="float32")
    kinds = {t.dtype for t in open_checkpoint(wide.product.path).tensors.values()}
    assert kinds == {torch.float32}
    unchecked = run(tuning, tmp_path / "x.gguf", "gguf", dtype="q8_0", verify=False)
    assert unchecked.product.verdict is None
    assert unchecked.product.manifest["identity"]["config"]["verified"] is False


def test_a_tuning_on_a_tuning(tmp_path: Path, tiny_base: Path) -> None:
    first = make_tuning(tmp_path / "first", tiny_base, METHODS["lora"])
    second = make_tuning(tmp_path / "second", first, METHODS["top_layers"])
    wanted = logits(opened(second).model)
    done = run(second, tmp_path / "out")
    torch.testing.assert_close(logits(opened(tmp_path / "out").model), wanted, **MERGED)
    told = done.product.manifest["measured"]["ancestors"]
    assert [one["config"]["method"] for one in told] == ["top_layers", "lora"]


def test_the_manifest_names_what_it_was_made_from(tmp_path: Path, tiny_base: Path) -> None:
    tuning = make_tuning(tmp_path / "tuning", tiny_base, METHODS["lora"])
    told = run(tuning, tmp_path / "out").product.manifest
    made = json.loads((tuning / "manifest.json").read_text())
    identity = opened(tiny_base).identity
    assert told["identity"]["parents"] == [made["digest"], f"model {identity}"]
    config = told["identity"]["config"]
    assert (config["made by"], config["method"]) == ("merge", "lora")
    assert config["base"] == str(tiny_base)
    assert told["measured"]["ancestors"][0]["digest"] == made["digest"]
    assert "asking.json" in told["identity"]["files"]
    assert read_asking(tmp_path / "out") == read_asking(tuning)
    (tuning / "manifest.json").unlink()
    again = run(tuning, tmp_path / "again").product.manifest
    assert again["identity"]["parents"][0].startswith("tuning ")
    assert again["identity"]["config"]["model"] == config["model"]


# --- what is refused, and that nothing is left then ---------------------------------------------


def test_adapters_cannot_be_merged(tmp_path: Path, tiny_base: Path) -> None:
    adapter = make_tuning(tmp_path / "adapter", tiny_base, METHODS["adapter"])
    with pytest.raises(InputError, match=r"'adapter'.*no plain checkpoint can hold it\n  fix"):
        run(adapter, tmp_path / "out")
    on_it = make_tuning(tmp_path / "on_it", tiny_base, METHODS["lora"])
    told = json.loads((on_it / "tuning.json").read_text())
    told["base"] = {**told["base"], "name": str(adapter), "identity": None}
    (on_it / "tuning.json").write_text(json.dumps(told))
    config = json.loads((on_it / "adapter_config.json").read_text())
    (on_it / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": str(adapter)})
    )
    with pytest.raises(InputError, match="method 'adapter'"):
        run(on_it, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_whole_is_converted(tmp_path: Path, tiny_base: Path) -> None:
    with pytest.raises(InputError, match=r"is a whole model.*\n  fix: puna convert"):
        run(tiny_base, tmp_path / "out")


def test_learnt_biases_have_no_place(tmp_path: Path, tiny_base: Path) -> None:
    tuning = make_tuning(tmp_path / "t", tiny_base, {**METHODS["lora"], "bias": True})
    with pytest.raises(InputError, match=r"has learnt model\.layers\.1\.\S+\.bias, for which"):
        run(tuning, tmp_path / "out")


def test_the_base_must_be_the_one(tmp_path: Path, tiny_base: Path) -> None:
    tuning = make_tuning(tmp_path / "t", tiny_base, METHODS["top_layers"])
    told = json.loads((tuning / "tuning.json").read_text())
    told["base"]["identity"] = "0" * 64
    (tuning / "tuning.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"was tuned on .* with the identity 000000000000"):
        run(tuning, tmp_path / "out")
    told["base"]["name"] = str(tmp_path / "gone")
    (tuning / "tuning.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="gone"):
        run(tuning, tmp_path / "out")


def test_a_merge_that_is_not_the_same_is_refused(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = make_tuning(tmp_path / "t", tiny_base, METHODS["lora"])
    monkeypatch.setitem(verify.KL_BOUNDS, "float32", -1.0)
    with pytest.raises(InputError, match=r"merging changes the logits by a mean KL of .* allowed"):
        run(tuning, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def spoil_asking(tuning: Path) -> Path:
    (tuning / "asking.json").write_text('{"wordings": 1}')
    return tuning


def spoil_tensors(tuning: Path) -> Path:
    file = tuning / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return tuning


@pytest.mark.parametrize("spoil", [spoil_asking, spoil_tensors])
def test_damage_is_named(tmp_path: Path, tiny_base: Path, spoil: Callable[[Path], Path]) -> None:
    tuning = spoil(make_tuning(tmp_path / "t", tiny_base, METHODS["lora"]))
    with pytest.raises(InputError, match=r"t/(asking\.json|adapter_model\.safetensors)"):
        run(tuning, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_places(tmp_path: Path, tiny_base: Path) -> None:
    tuning = make_tuning(tmp_path / "t", tiny_base, METHODS["lora"])
    run(tuning, tmp_path / "out")
    with pytest.raises(InputError, match="already exists"):
        run(tuning, tmp_path / "out")
    run(tuning, tmp_path / "out", force=True)
    with pytest.raises(InputError, match=r"lies inside the target|same place"):
        run(tuning, tuning, force=True)
    with pytest.raises(InputError, match=r"lies inside the target|which puna did not write"):
        run(tuning, tiny_base, force=True)
    with pytest.raises(InputError, match=r"one file ending in \.gguf"):
        run(tuning, tmp_path / "x", "gguf")
