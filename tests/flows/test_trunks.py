"""Each batch comes by its hidden states: read, computed, or embedded, all the same values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import puna
from puna.flows.trunks import CachedTrunk, make_trunks
from puna.model import LlamaModel
from puna.tokens.batches import BatchConfig
from puna.tokens.examples import TokenExample
from puna.tokens.loader import Loader
from puna.train.objectives import Embedded, FrozenTrunk
from puna.tune import AdapterConfig, FullConfig, LoraConfig, TopLayersConfig, attach
from puna.tune.trunk_cache import TrunkCacheConfig


@pytest.fixture
def model(tiny_base: Path) -> LlamaModel:
    return puna.load(str(tiny_base), device="cpu", dtype="float32").model


def examples(name: str, count: int, seed: int) -> list[TokenExample]:
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        ids = random.integers(3, 200, random.integers(2, 20)).astype(np.int32)
        trained = np.arange(len(ids)) > 0
        found.append(TokenExample(f"{name}{number}", "", ids, trained, 0, 0, f"{name}{number}"))
    return found


SETS = {"train": examples("t", 23, 1), "validation": examples("v", 9, 2), "other": []}


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("method", [LoraConfig(layers=1), TopLayersConfig(layers=1)])
def test_read_and_computed_are_the_same(
    tmp_path: Path, model: LlamaModel, packing: bool, method: Any
) -> None:
    tuned = attach(model, method)
    config = TrunkCacheConfig(folder=tmp_path, dtype="float32")
    cached = make_trunks(model, tuned, SETS, config)
    assert cached.cache is not None
    cached.cache.fill(lambda done, total: None)
    live = make_trunks(model, tuned, SETS, TrunkCacheConfig(enabled=False))
    assert live.cache is None
    batches = BatchConfig(batch_tokens=None, batch_examples=4, packing=packing, row_tokens=64)
    for name in ("train", "validation"):
        for _, batch in Loader(SETS[name], batches, seed=1, pad_id=0, epochs=1):
            read, computed = cached.of[name].hidden(batch), live.of[name].hidden(batch)
            real = (
                torch.ones_like(batch.ids, dtype=torch.bool) if batch.valid is None else batch.valid
            )
            torch.testing.assert_close(read[real], computed[real], atol=1e-5, rtol=1e-5)
            assert not read.requires_grad
            assert not computed.requires_grad
    assert cached.cache.stats().hits == 23 + 9


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (FullConfig(), Embedded),
        (LoraConfig(), Embedded),
        (AdapterConfig(), Embedded),
        (LoraConfig(layers=1), CachedTrunk),
        (AdapterConfig(layers=1), CachedTrunk),
    ],
)
def test_which_trunk_it_is(tmp_path: Path, model: LlamaModel, method: Any, kind: type) -> None:
    tuned = attach(model, method)
    trunks = make_trunks(model, tuned, SETS, TrunkCacheConfig(folder=tmp_path))
    assert {type(trunk) for trunk in trunks.of.values()} == {kind}
    assert {trunk.start for trunk in trunks.of.values()} == {tuned.start}
    assert (trunks.cache is not None) == (kind is CachedTrunk)
    live = make_trunks(model, tuned, SETS, TrunkCacheConfig(enabled=False))
    wanted = FrozenTrunk if kind is CachedTrunk else Embedded
    assert {type(trunk) for trunk in live.of.values()} == {wanted}
    assert not list(tmp_path.glob("**/*.bin")), "nothing is computed before it is asked for"
