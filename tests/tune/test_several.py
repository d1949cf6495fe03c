"""Several tunings of one model, targets, and what surgery refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import ContiguousCache
from puna.tune import (
    BaseReference,
    DoraConfig,
    FullConfig,
    LoraConfig,
    MethodConfig,
    TopLayersConfig,
    active,
    attach,
    attached,
    load_tuned,
    method_config,
    save_tuned,
    use,
)
from tune.battery import METHODS, base, logits, loss, perturb, perturbed, same, snapshot, tokens

TOGETHER = [name for name in METHODS if name != "full"]


def test_several_tunings_are_switched_by_name() -> None:
    model = base()
    before, plain = snapshot(model), logits(model)
    alone = {name: logits(perturbed(METHODS[name], base()).model) for name in TOGETHER}
    for name in TOGETHER:
        perturbed(METHODS[name], model, name=name)
        assert active(model) == name
    assert attached(model) == tuple(TOGETHER)
    for name in reversed(TOGETHER):
        use(model, name)
        assert torch.equal(logits(model), alone[name])
    use(model, None)
    assert torch.equal(logits(model), plain)
    assert same(model, before)


@settings(max_examples=25)
@given(
    st.lists(
        st.sampled_from(["use lora", "use top_layers", "use None", "detach", "attach", "merged"]),
        max_size=12,
    )
)
def test_any_sequence_of_switches_leaves_the_base_alone(steps: list[str]) -> None:
    model = base()
    before = snapshot(model)
    tunings = {name: attach(model, METHODS[name], name=name) for name in ("lora", "top_layers")}
    extra = None
    for step in steps:
        if step.startswith("use"):
            use(model, None if step == "use None" else step.split()[1])
        elif step == "attach" and extra is None:
            extra = perturbed(METHODS["dora"], model, name="extra")
        elif step == "detach" and extra is not None:
            extra.detach()
            extra = None
        elif step == "merged":
            current = active(model)
            with tunings["lora"].merged():
                pass
            assert active(model) == current
    use(model, None)
    assert same(model, before)


def test_a_context_gives_back_what_was_in_use() -> None:
    model = base()
    first = perturbed(METHODS["lora"], model, name="first")
    perturbed(METHODS["dora"], model, name="second")
    expected = logits(model)
    with first.disabled():
        assert active(model) is None
    assert active(model) == "second"
    with pytest.raises(RuntimeError, match="inside"), first.merged():
        raise RuntimeError("inside")
    assert torch.equal(logits(model), expected)


def test_merging_one_of_several_is_refused() -> None:
    model = base()
    first = perturbed(METHODS["lora"], model, name="first")
    second = perturbed(METHODS["dora"], model, name="second")
    with pytest.raises(InputError, match="while others stand on the same base: second"):
        first.merge()
    second.detach()
    use(model, "first")
    expected = logits(model)
    first.merge()
    assert_close(logits(model), expected, "logits")
    assert attached(model) == ()


def test_names_and_company() -> None:
    model = base()
    attach(model, LoraConfig(), name="one")
    with pytest.raises(InputError, match="'one' is attached already"):
        attach(model, LoraConfig(), name="one")
    with pytest.raises(InputError, match="'full' and 'one' cannot share a model"):
        attach(model, FullConfig(), name="full")
    with pytest.raises(InputError, match="no tuning 'two' is attached\n  fix: attached: one"):
        use(model, "two")
    full = base()
    attach(full, FullConfig())
    with pytest.raises(InputError, match="cannot share a model"):
        attach(full, LoraConfig(), name="other")
    with pytest.raises(InputError, match="cannot be taken off"):
        use(full, None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(targets=("q_prj",)), "'q_prj' matches nothing .*\n.*did you mean 'q_proj'"),
        (LoraConfig(targets=("q_proj", "nothing")), "'nothing' matches nothing"),
        (LoraConfig(targets=("embed_tokens",)), "target model.embed_tokens is a Embedding"),
        (LoraConfig(targets=("self_attn",)), "layers.0.self_attn is a Attention, not a linear"),
        (DoraConfig(targets=("lm_head",)), "lm_head is the embedding of this model"),
        (LoraConfig(layers=9), "layers is 9, but the model has 3"),
        (TopLayersConfig(layers=4), "layers is 4, but the model has 3"),
        (LoraConfig(rank_pattern={"w_proj": 3}), "rank_pattern: 'w_proj' fits no target"),
        (
            LoraConfig(layers=1, targets=("model.layers.0.mlp.up_proj",)),
            "no target lies in the last 1 blocks",
        ),
    ],
)
def test_what_surgery_refuses(config: MethodConfig, message: str) -> None:
    model = base(tie_word_embeddings=True)
    before = snapshot(model)
    with pytest.raises(InputError, match=message):
        attach(model, config)
    assert same(model, before)
    assert attached(model) == ()


def test_a_refused_tuning_leaves_the_one_in_use() -> None:
    model = base()
    perturbed(LoraConfig(), model, name="one")
    expected = logits(model)
    with pytest.raises(InputError):
        attach(model, LoraConfig(targets=("nothing",)), name="two")
    assert active(model) == "one"
    assert torch.equal(logits(model), expected)


def test_targets_below_the_last_layers_are_noted() -> None:
    config = LoraConfig(layers=1, targets=("up_proj", "model.layers.0.mlp.down_proj"))
    tuned = attach(base(), config)
    assert tuned.notes == [
        "target 'model.layers.0.mlp.down_proj' matches nothing in the last 1 blocks"
    ]
    assert [place.path for place in tuned.places] == ["model.layers.2.mlp.up_proj"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "method: None is not known\n  fix: known: full, top_layers, lora"),
        ({"method": "lroa"}, "method: 'lroa' is not known"),
        ({"method": "lora", "rnak": 4}, "unknown key 'rnak'\n  fix: did you mean 'rank'"),
        ({"method": "lora", "rank": 0}, "rank must be at least 1, not 0"),
        ({"method": "lora", "targets": []}, "targets is empty"),
        ({"method": "lora", "alpha": 0.0}, "alpha must be a finite number other than 0, not 0.0"),
        ({"method": "dora", "alpha_pattern": {"q_proj": math.inf}}, "alpha must be .* not inf"),
        ({"method": "adapter", "scale": math.nan}, "scale must be .* not nan"),
        ({"method": "dora", "dropout": 1.0}, "dropout is a share"),
        ({"method": "dora", "bias": True}, "unknown key 'bias'"),
        ({"method": "adapter", "reduction": 0}, "reduction must be at least 1"),
        ({"method": "adapter", "style": "serial"}, "expected one of 'houlsby', 'pfeiffer'"),
        ({"method": "top_layers", "layers": 0}, "layers must be at least 1, not 0"),
    ],
)
def test_method_configs_say_what_is_wrong(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        method_config(data)


@pytest.mark.parametrize("name", TOGETHER)
def test_decoding_by_the_cache_equals_the_whole(name: str) -> None:
    model = base()
    tuned = perturbed(METHODS[name], model)
    expected = logits(model)
    cache = ContiguousCache(model.config, batch=2, max_tokens=9)
    with torch.inference_mode():
        parts = [model(tokens()[:, i : i + 1], cache=cache) for i in range(9)]
    assert_close(torch.cat(parts, 1), expected, "logits")
    perturb(tuned, seed=4)  # DoRA keeps the lengths of its rows while nothing changes
    assert (logits(model) - expected).abs().max() > 1e-4


def test_two_files_on_one_model(tmp_path: Path) -> None:
    for name in ("lora", "top_layers"):
        (tmp_path / name).mkdir()
        save_tuned(tmp_path / name, perturbed(METHODS[name], base()), base=BaseReference("tiny"))
    model = base()
    for name in ("lora", "top_layers"):
        load_tuned(model, tmp_path / name, name=name, check_identity=None)
    for name in ("lora", "top_layers"):
        use(model, name)
        assert torch.equal(logits(model), logits(perturbed(METHODS[name], base()).model))


@pytest.mark.parametrize("fused", [False, True])
def test_dora_never_computes_with_lengths_of_an_earlier_step(fused: bool) -> None:
    """Torch's fused AdamW changes parameters behind the back of their version counter."""
    tuned = attach(base(), DoraConfig(rank=4))
    optimizer = torch.optim.AdamW(tuned.parameters().values(), lr=0.05, fused=fused)
    for _ in range(3):
        fresh = attach(base(), DoraConfig(rank=4))
        fresh.load(tuned.tensors())
        assert torch.equal(logits(tuned.model), logits(fresh.model))
        optimizer.zero_grad()
        assert torch.equal(loss(tuned.model), loss(fresh.model))
        loss(tuned.model).backward()
        optimizer.step()
    magnitudes = [p for n, p in tuned.parameters().items() if n.endswith("magnitude_vector")]
    expected = logits(tuned.model)
    with torch.no_grad():
        for parameter in magnitudes:
            parameter.mul_(1.1)
    assert (logits(tuned.model) - expected).abs().max() > 1e-3


def test_dora_of_a_row_of_zeros_stays_finite() -> None:
    model = base()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3] = 0
    expected = logits(model)
    tuned = attach(model, DoraConfig(rank=4))
    assert torch.equal(logits(model), expected)
    loss(model).backward()
    assert all(torch.isfinite(p.grad).all() for p in tuned.parameters().values())
