"""LoRA, rsLoRA and DoRA against PEFT itself, in both directions; and files not to be trusted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from generate.tiny import reference, twin
from model.tolerances import assert_close
from puna.errors import InputError
from puna.tune import (
    BaseReference,
    DoraConfig,
    LoraConfig,
    MethodConfig,
    load_tuned,
    read_tuned,
    save_tuned,
)
from tune.battery import LAYERS, logits, loss, perturbed, tokens

BASE = BaseReference("tiny")
OURS: dict[str, MethodConfig] = {
    "lora": LoraConfig(rank=4),
    "last_block": LoraConfig(rank=4, layers=1, targets=("q_proj", "mlp.up_proj")),
    "rslora": LoraConfig(rank=4, alpha=6.5, rslora=True),
    "paths": LoraConfig(rank=2, targets=("model.layers.1.self_attn.k_proj", "down_proj")),
    "ranks": LoraConfig(
        rank=4,
        rank_pattern={"layers.1.self_attn.q_proj": 2, "down_proj": 3},
        alpha_pattern={"down_proj": 5.0},
    ),
    "head": LoraConfig(rank=3, layers=2, targets=("o_proj", "lm_head")),
    "dora": DoraConfig(rank=4),
    "dora_last_blocks": DoraConfig(rank=4, layers=2, targets=("v_proj", "gate_proj")),
    "dora_ranks": DoraConfig(rank=4, rslora=True, rank_pattern={"v_proj": 2}),
}
THEIRS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ["q_proj", "v_proj"]},
    "all_linear": {"target_modules": "all-linear", "use_rslora": True},
    "regex": {"target_modules": r"model\.layers\.\d+\.(self_attn|mlp)\.(q|down)_proj"},
    "some_layers": {"target_modules": ["o_proj"], "layers_to_transform": [0, 2]},
    "one_layer": {"target_modules": ["o_proj"], "layers_to_transform": 1},
    "excluded": {"target_modules": "all-linear", "exclude_modules": ["q_proj"]},
    "patterns": {
        "target_modules": ["q_proj", "up_proj"],
        "rank_pattern": {r"layers\.[01]\.self_attn\.q_proj": 2, "up_proj": 5},
        "alpha_pattern": {"^model.layers.1.mlp.up_proj": 3, "q_proj": 7},
    },
    "bias": {"target_modules": ["q_proj"], "lora_bias": True},
    "dora": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
    "dora_patterns": {
        "target_modules": "all-linear",
        "use_dora": True,
        "use_rslora": True,
        "rank_pattern": {"k_proj": 2},
    },
    "gaussian": {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
    "dropout": {"target_modules": ["q_proj"], "lora_dropout": 0.1},
}


def model_of_theirs(**changes: Any) -> LlamaForCausalLM:
    return reference(num_hidden_layers=LAYERS, **changes)


def by_peft(folder: Path, **options: Any) -> PeftModel:
    """An adapter that PEFT made, moved away from its start, and saved."""
    model = get_peft_model(model_of_theirs(), PeftConfig(**{"r": 4, "lora_alpha": 8, **options}))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model.eval()


def their_logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens()).logits


@pytest.mark.parametrize("name", OURS)
def test_peft_gives_our_logits(name: str, tmp_path: Path) -> None:
    theirs = model_of_theirs()
    tuned = perturbed(OURS[name], twin(theirs))
    save_tuned(tmp_path, tuned, base=BASE)
    loaded = PeftModel.from_pretrained(theirs, tmp_path).eval()
    assert_close(logits(tuned.model), their_logits(loaded), "logits")
    wrapped = {n for n, m in loaded.get_base_model().named_modules() if hasattr(m, "lora_A")}
    assert wrapped == {place.path for place in tuned.places}


@pytest.mark.parametrize("name", OURS)
def test_our_peft_files_without_our_own_note(name: str, tmp_path: Path) -> None:
    tuned = perturbed(OURS[name], twin(model_of_theirs()))
    save_tuned(tmp_path, tuned, base=BASE)
    (tmp_path / "tuning.json").unlink()
    again = load_tuned(twin(model_of_theirs()), tmp_path, check_identity="unknown to peft")
    assert torch.equal(logits(again.model), logits(tuned.model))


@pytest.mark.parametrize("name", THEIRS)
def test_we_give_the_logits_of_peft(name: str, tmp_path: Path) -> None:
    theirs = by_peft(tmp_path, **THEIRS[name])
    tuned = load_tuned(twin(model_of_theirs()), tmp_path, check_identity=None)
    assert_close(logits(tuned.model), their_logits(theirs), "logits")
    merging = their_logits(theirs.merge_and_unload()) if name != "bias" else logits(tuned.model)
    with tuned.merged():
        assert_close(logits(tuned.model), merging, "logits")
    assert read_tuned(tmp_path).base.identity is None


@pytest.mark.parametrize("name", ["lora", "dora", "dora_patterns", "bias"])
def test_gradients_are_those_of_peft(name: str, tmp_path: Path) -> None:
    theirs = by_peft(tmp_path, **THEIRS[name])
    tuned = load_tuned(twin(model_of_theirs()), tmp_path, check_identity=None)
    loss(tuned.model).backward()
    out = theirs(tokens()[:, :-1]).logits.float()
    targets = tokens()[:, 1:]
    torch.nn.functional.cross_entropy(
        out.flatten(0, 1), targets.flatten(), reduction="sum"
    ).backward()
    expected = {n.replace(".default", ""): p.grad for n, p in theirs.named_parameters()}
    for path, parameter in tuned.parameters().items():
        key = f"{path}.weight" if path.endswith("lora_magnitude_vector") else path
        assert_close(parameter.grad, expected[key], "gradient")


def test_a_tied_model_with_biases(tmp_path: Path) -> None:
    shape = {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    for number, config in enumerate([DoraConfig(rank=4), LoraConfig(rank=4, bias=True)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        theirs = model_of_theirs(**shape)
        with torch.no_grad():
            for name, parameter in theirs.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(generator=torch.Generator().manual_seed(5))
        tuned = perturbed(config, twin(theirs))
        save_tuned(folder, tuned, base=BASE)
        loaded = PeftModel.from_pretrained(theirs, folder).eval()
        expected = their_logits(loaded)
        assert_close(logits(tuned.model), expected, "logits")
        tuned.merge()
        assert_close(logits(tuned.model), expected, "logits")


# --- files that are not to be trusted ---------------------------------------------------------


def changed(folder: Path, **changes: Any) -> Path:
    """A folder of PEFT's with other values in its config."""
    by_peft(folder, target_modules=["q_proj"])
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "option 'peft_type' is 'LOHA', which is not supported"),
        ({"modules_to_save": ["lm_head"]}, "option 'modules_to_save'"),
        ({"bias": "all"}, "option 'bias' is 'all'"),
        ({"init_lora_weights": "pissa"}, "option 'init_lora_weights' is 'pissa'"),
        ({"trainable_token_indices": [1]}, "option 'trainable_token_indices'"),
        ({"task_type": "SEQ_CLS"}, "option 'task_type'"),
        ({"of_next_year": 1}, "option 'of_next_year' is '1'"),
        ({"r": 5}, "expected the rank 5, found the shape"),
        ({"r": "4"}, "r: expected int, found str 4"),
        ({"r": True}, "r: expected int, found bool True"),
        ({"lora_alpha": None}, None),
        ({"lora_alpha": []}, "lora_alpha: expected float, found list"),
        ({"lora_alpha": 10**400}, "lora_alpha: 10000000000000000000... is too large"),
        ({"lora_alpha": math.nan}, "alpha must be a finite number other than 0, not nan"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha must be a finite number other than 0"),
        ({"lora_dropout": 2}, "dropout is a share"),
        ({"target_modules": ["v_proj"]}, "target_modules does not name model.layers.0"),
        ({"target_modules": [3]}, "target_modules: expected a list of names"),
        ({"layers_to_transform": [0]}, "target_modules does not name model.layers.1"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "only names are supported"),
        ({"alpha_pattern": [1]}, "alpha_pattern: expected dict, found list"),
        ({"use_dora": True, "lora_bias": True}, "exclude each other"),
        ({"use_dora": True}, "lora_magnitude_vector' is missing"),
    ],
)
def test_options_of_peft_that_are_not_done_are_refused(
    changes: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    folder, model = changed(tmp_path, **changes), twin(model_of_theirs())
    expected = logits(model)
    if message is None:
        load_tuned(model, folder, check_identity=None)
        return
    with pytest.raises(InputError) as caught:
        load_tuned(model, folder, check_identity=None)
    assert message in str(caught.value)
    assert torch.equal(logits(model), expected)


def spoiled(folder: Path, spoil: str) -> None:
    """Write an adapter whose tensors are wrong in one way."""
    save_tuned(
        folder, perturbed(LoraConfig(targets=("q_proj",)), twin(model_of_theirs())), base=BASE
    )
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    first = next(iter(tensors))
    if spoil == "missing":
        del tensors[first]
    elif spoil == "unknown":
        tensors["base_model.model.lm_head.lora_B.weight"] = torch.zeros(2)
    elif spoil == "nan":
        tensors[first][0, 0] = float("nan")
    elif spoil == "shape":
        tensors[first] = tensors[first][:, :-1].contiguous()
    elif spoil == "integers":
        tensors[first] = tensors[first].to(torch.int32)
    save_file(tensors, path)
    if spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("missing", "is missing"),
        ("unknown", "tensor 'base_model.model.lm_head.lora_B.weight' has no place"),
        ("nan", "1 of .* values are not finite"),
        ("shape", r"expected the shape \[8, 32\], found \[8, 31\]"),
        ("integers", "expected floating numbers, found torch.int32"),
        ("truncated", "expected bytes .* of the data"),
    ],
)
def test_damaged_tensors_are_named_and_nothing_is_changed(
    spoil: str, message: str, tmp_path: Path
) -> None:
    spoiled(tmp_path, spoil)
    model = twin(model_of_theirs())
    names, expected = [name for name, _ in model.named_modules()], logits(model)
    with pytest.raises(InputError, match=message) as caught:
        load_tuned(model, tmp_path, check_identity=None)
    assert "adapter_model.safetensors" in str(caught.value)
    assert torch.equal(logits(model), expected)
    assert [name for name, _ in model.named_modules()] == names


def test_an_absurd_rank_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    tuned = perturbed(LoraConfig(targets=("q_proj",)), twin(model_of_theirs()))
    save_tuned(tmp_path, tuned, base=BASE)
    note = json.loads((tmp_path / "tuning.json").read_text())
    note["method"]["rank"] = 10**9
    (tmp_path / "tuning.json").write_text(json.dumps(note))
    with pytest.raises(InputError, match="expected the rank 1000000000, found the shape"):
        load_tuned(twin(model_of_theirs()), tmp_path, check_identity=None)


def test_the_wrong_base_and_folders_without_a_tuning(tmp_path: Path) -> None:
    tuned = perturbed(LoraConfig(), twin(model_of_theirs()))
    save_tuned(tmp_path, tuned, base=replace(BASE, identity="a" * 64))
    with pytest.raises(
        InputError, match="was tuned on 'tiny' with the identity aaaaaaaaaaaa; this"
    ):
        load_tuned(twin(model_of_theirs()), tmp_path, check_identity="b" * 64)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 99}))
    with pytest.raises(InputError, match=r"contradicts tuning\.json beside it about 'lora_alpha'"):
        read_tuned(tmp_path)
    (tmp_path / "tuning.json").write_text('{"kind": "tuning", "version": 2}')
    with pytest.raises(InputError, match="has the version 2; this program reads 1"):
        read_tuned(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="is no tuning"):
        read_tuned(empty)
    (empty / "adapter_config.json").write_text("{}")
    (empty / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="is a pickle, which can run code"):
        read_tuned(empty)
