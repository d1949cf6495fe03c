"""The trunk's identity: everything that changes its output, and nothing that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor, nn

from puna.errors import InputError
from puna.model import LlamaModel
from puna.model.config import RopeScaling
from puna.tune.trunk_identity import check_frozen, sequence_key, trunk_identity
from tune.trunk_setup import START, tiny_model

Change = Callable[[LlamaModel], None]


class Scaled(nn.Module):
    """A wrapper whose effect is in no tensor."""

    def __init__(self, base: nn.Module, scale: float):
        super().__init__()
        self.base, self.scale = base, scale

    def extra_repr(self) -> str:
        return f"scale={self.scale}"

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.scale


def nudge(path: str) -> Change:
    def change(model: LlamaModel) -> None:
        model.get_parameter(path).view(-1)[-1] += 1e-3

    return change


def wrap(scale: float) -> Change:
    def change(model: LlamaModel) -> None:
        mlp = model.model.layers[1].mlp
        mlp.down_proj = Scaled(mlp.down_proj, scale)

    return change


def reconfigure(**changes: object) -> Change:
    def change(model: LlamaModel) -> None:
        model.config = dataclasses.replace(model.config, **changes)

    return change


DIFFERENT: dict[str, Change] = {
    "embedding": nudge("model.embed_tokens.weight"),
    "first block": nudge("model.layers.0.self_attn.q_proj.weight"),
    "norm of the last block": nudge("model.layers.1.input_layernorm.weight"),
    "dtype": lambda model: model.bfloat16(),
    "rope": reconfigure(rope_theta=5000.0),
    "rope scaling": reconfigure(rope_scaling=RopeScaling("linear", 2.0)),
    "eps": reconfigure(rms_norm_eps=1e-6),
    "window": reconfigure(window_tokens=8),
    "wrapper": wrap(2.0),
    "wrapper's scale": wrap(3.0),
}
SAME: dict[str, Change] = {
    "block above": nudge("model.layers.2.mlp.up_proj.weight"),
    "final norm": nudge("model.norm.weight"),
    "head": nudge("lm_head.weight"),
    "context": reconfigure(max_position_embeddings=4096),
    "initialisation": reconfigure(initializer_range=1.0),
}


def identity(change: Change | None = None) -> str:
    model = tiny_model()
    if change is not None:
        change(model)
    return trunk_identity(model, START)


def test_what_changes_the_output_changes_the_identity() -> None:
    found = {name: identity(change) for name, change in DIFFERENT.items()}
    found["nothing"] = identity()
    found["start"] = trunk_identity(tiny_model(), START - 1)
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("name", SAME)
def test_what_lies_above_the_trunk_does_not(name: str) -> None:
    assert identity(SAME[name]) == identity()


def test_a_trunk_that_learns_is_refused_by_the_parameters_name() -> None:
    model = tiny_model()
    model.model.layers[2].requires_grad_(True)
    check_frozen(model, 2)
    with pytest.raises(InputError, match=r"'layers\.2\.input_layernorm\.weight' learns"):
        check_frozen(model, 3)
    with pytest.raises(InputError, match="a trunk of 4 blocks, of a model that has 3"):
        check_frozen(model, 4)


def test_keys_tell_sequences_apart_and_know_no_memory_layout() -> None:
    ids = np.arange(10, dtype=np.int32)
    assert sequence_key(ids[::2]) == sequence_key(ids[::2].copy())
    assert sequence_key(ids.astype(">i4")) == sequence_key(ids)
    assert len({sequence_key(ids[:n]) for n in range(1, 10)}) == 9
    assert len(sequence_key(ids)) == 16
