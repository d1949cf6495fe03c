"""The predicted memory of a run: against live tensors of real steps, and in its proportions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.reference import TINY, tiny_model
from puna.errors import InputError
from puna.model import LlamaConfig, preset
from puna.model.llama import IGNORED
from puna.scale.world import World
from puna.tokens.batches import Batch
from puna.train import Job, Silent, TrainConfig, fit
from puna.train.footprint import COMPILER_BYTES, KERNEL_BYTES, Setting, learning_counts, predict
from puna.train.objectives import Embedded, FrozenTrunk, NextToken
from puna.tune import attach, method_config
from train.live_bytes import LiveBytes

SMALL = LlamaConfig(
    vocab_size=600,
    hidden_size=96,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=16,
    max_position_embeddings=256,
)
WIDE_HEAD = replace(SMALL, vocab_size=6000, tie_word_embeddings=True)
LORA = {"method": "lora", "rank": 4}
TOP = {"method": "top_layers", "layers": 1}


class FixedBatches:
    """The same batch again and again."""

    def __init__(self, setting: Setting, batches: int) -> None:
        own = torch.Generator().manual_seed(0)
        shape = (setting.rows, setting.row_tokens)
        ids = torch.randint(setting.config.vocab_size, shape, generator=own)
        targets = ids.roll(-1, 1)
        trained = setting.tokens if setting.trained_tokens is None else setting.trained_tokens
        targets.view(-1)[trained:] = IGNORED
        self.batches = batches
        self.batch = Batch(ids, targets, None, None, (), setting.tokens, trained)

    def batches_in_epoch(self, epoch: int) -> int:
        return self.batches

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        assert state == {"epoch": 0, "batch": 0}

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        while True:
            yield 0, self.batch


def live(setting: Setting, place: Path) -> int:
    """Bytes of what two real steps make, at the highest."""
    model = tiny_model(setting.config, scale=1.0)
    if setting.method is None:
        learning = dict(model.requires_grad_(True).named_parameters())
        trunk: Any = Embedded(model)
    else:
        tuned = attach(model, setting.method)
        learning = tuned.parameters()
        trunk = FrozenTrunk(model, tuned.start) if tuned.start else Embedded(model)
    steps = 2
    job = Job(
        model=model,
        parameters=learning,
        objective=NextToken(),
        loader=FixedBatches(setting, steps * setting.micro_batches),
        trunk=trunk,
        identity="a recipe",
    )
    config = TrainConfig(
        epochs=None,
        max_steps=steps,
        micro_batches=setting.micro_batches,
        activation_checkpointing=setting.activation_checkpointing,
    )
    with LiveBytes() as counter:
        fit(job, config, place, world=World.single(), report=Silent())
    return counter.peak


def made(setting: Setting) -> int:
    """Predicted as `LiveBytes` counts it: without the weights, and without what no tensor is."""
    found = predict(setting)
    parts = (found.gradients, found.optimizer, found.activations, found.logits, found.buffers)
    total = sum(parts) - KERNEL_BYTES
    if setting.activation_checkpointing:
        total -= COMPILER_BYTES
    if found.moment == "at the embedding's gradient" and setting.config.tie_word_embeddings:
        # While a dispatch mode looks on, autograd adds the two gradients into a third tensor.
        total += setting.config.vocab_size * setting.config.hidden_size * 4
    return total


SETTINGS: dict[str, dict[str, Any]] = {
    "pretraining": {},
    "a wide head": {"config": WIDE_HEAD, "rows": 2},
    "few tokens": {"config": WIDE_HEAD, "rows": 1, "row_tokens": 16},
    "recomputed": {"activation_checkpointing": True},
    "two micro-batches": {"micro_batches": 2},
    "two micro-batches of few tokens": {
        "config": WIDE_HEAD,
        "rows": 1,
        "row_tokens": 16,
        "micro_batches": 2,
    },
    "full": {"method": method_config({"method": "full"})},
    "top layers": {"method": method_config(TOP)},
    "lora": {"method": method_config(LORA)},
    "lora above": {"method": method_config({**LORA, "layers": 2})},
    "lora, recomputed": {"method": method_config(LORA), "activation_checkpointing": True},
    "few targets": {"method": method_config(LORA), "trained_tokens": 40},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_tensors_of_real_steps(name: str, tmp_path: Path) -> None:
    setting = Setting(**{"config": SMALL, "rows": 4, "row_tokens": 128, **SETTINGS[name]})
    measured = live(setting, tmp_path)
    found = made(setting)
    assert found == pytest.approx(measured, rel=0.12), f"{found:,} predicted, {measured:,} live"


def test_full_training_takes_sixteen_bytes_a_parameter() -> None:
    config = preset("llama-7b")
    found = predict(Setting(config, rows=1, row_tokens=1, device="cuda"))
    parameters = 6_738_415_616
    assert found.weights == found.gradients == 4 * parameters
    assert found.optimizer == 8 * parameters
    assert found.total < 16.5 * parameters
    assert found.runtime == found.gaps == 0


def test_masters_beside_bfloat16() -> None:
    found = predict(Setting(preset("llama-7b"), dtype="bfloat16", device="cuda", row_tokens=1))
    assert found.weights == 6 * 6_738_415_616


def test_shards_divide_what_is_split() -> None:
    whole = Setting(preset("llama-7b"), row_tokens=512, dtype="bfloat16", device="cuda")
    split = replace(whole, ranks=8, sharded=True)
    one, eight = predict(whole), predict(split)
    assert one.weights == 6 * 6_738_415_616
    assert eight.weights == pytest.approx(4 * 6_738_415_616 / 8), "cast as blocks are gathered"
    assert eight.optimizer == pytest.approx(one.optimizer / 8, rel=1e-6)
    assert eight.activations == one.activations
    assert eight.buffers > one.buffers, "blocks are gathered"
    assert predict(replace(whole, ranks=8)).weights == one.weights, "not sharded: whole on each"


def test_what_a_method_saves() -> None:
    plain = Setting(preset("smollm2-135m"), row_tokens=1024)
    totals = {
        name: predict(replace(plain, method=None if method is None else method_config(method)))
        for name, method in {
            "pretraining": None,
            "full": {"method": "full"},
            "lora": LORA,
            "top": {"method": "top_layers", "layers": 6},
            "lora above": {**LORA, "layers": 6},
        }.items()
    }
    order = ["pretraining", "lora", "top", "lora above"]
    sizes = [totals[name].total for name in order]
    assert sizes == sorted(sizes, reverse=True)
    assert totals["full"].total == pytest.approx(totals["pretraining"].total, rel=0.01)
    again = predict(replace(plain, activation_checkpointing=True))
    assert again.activations < totals["pretraining"].activations / 5


def test_muon_keeps_one_moment_of_matrices() -> None:
    plain = Setting(SMALL, row_tokens=64)
    adamw = predict(plain).optimizer
    muon = predict(replace(plain, optimizer="muon")).optimizer
    heads = 2 * 6 * 16 + 2 * 3 * 16
    matrices = 4 * (96 * heads + 3 * 96 * 256)
    assert adamw - muon == 4 * matrices
    assert predict(replace(plain, optimizer="lamb")).optimizer == adamw


def test_a_mapped_base_stays_beside_what_replaces_it() -> None:
    plain = Setting(SMALL, row_tokens=64, method=method_config({"method": "full"}))
    mapped = replace(plain, mapped=True)
    base = predict(plain).base
    assert predict(mapped).weights - predict(plain).weights == base


def test_above_what_was_resident() -> None:
    setting = Setting(SMALL, row_tokens=64, method=method_config(LORA))
    found = predict(setting)
    above = found.above(1 << 30)
    assert above.runtime == 1 << 30
    learning = learning_counts(SMALL, setting.method)[0]
    assert above.weights == 4 * learning, "the base was there before"
    assert above.total - above.runtime == found.total - found.runtime - found.base


def test_learning_counts() -> None:
    assert learning_counts(TINY, None) == (sum(p.numel() for p in tiny_model().parameters()), 0)
    learning, start = learning_counts(TINY, method_config({**TOP, "layers": 1}))
    block = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48 + 2 * 32
    assert (learning, start) == (block + 32, 1)


def test_words() -> None:
    found = predict(Setting(SMALL, rows=2, row_tokens=64))
    lines = found.lines()
    assert lines[0].startswith("runtime ")
    assert lines[-1].startswith("together ")
    assert found.moment in lines[-1]
    assert sum(found.to_dict()[name] for name in ("weights", "gradients")) > 0
    assert found.to_dict()["total"] == found.total
    said = found.against(found.total * 2)
    assert said.startswith("memory: ")
    assert said.endswith("were predicted (-50%)")


@given(
    rows=st.integers(1, 6),
    tokens=st.integers(1, 300),
    trained=st.none() | st.integers(1, 2000),
    recomputed=st.booleans(),
)
def test_more_work_never_takes_less(
    rows: int, tokens: int, trained: int | None, recomputed: bool
) -> None:
    setting = Setting(
        TINY,
        rows=rows,
        row_tokens=tokens,
        trained_tokens=trained,
        activation_checkpointing=recomputed,
    )
    base = predict(setting).total
    assert predict(replace(setting, rows=rows + 1)).total >= base
    assert predict(replace(setting, row_tokens=tokens + 1)).total >= base
    assert predict(replace(setting, micro_batches=3)).total >= base


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 0}, "rows must be at least 1, not 0"),
        ({"ranks": 0}, "ranks must be at least 1, not 0"),
        ({"dtype": "float64"}, "dtype 'float64' is not known\n  fix: float32 or bfloat16"),
        ({"optimizer": "sgd"}, "optimizer 'sgd' is not known\n  fix: known: adamw, lamb, muon"),
        (
            {"optimizer": "lamb", "ranks": 2, "sharded": True},
            "lamb takes each matrix as a whole, and the model is spread over the ranks\n"
            "  fix: take adamw, or keep the model whole on each rank",
        ),
    ],
)
def test_settings_that_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        Setting(SMALL, **change)
    assert str(caught.value) == said
    with pytest.raises(InputError, match="layers is 9, but the model has 4"):
        predict(Setting(SMALL, method=method_config({"method": "top_layers", "layers": 9})))
