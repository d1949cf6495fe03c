"""The compiled step against its slow twin, the model itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generate.tiny import reference, twin
from puna.errors import InputError
from puna.generate import Sampling, decode, kernels_missing, stepping, warm_up
from puna.generate.engine import prefill
from puna.generate.stepping import KernelStep, ModelStep, choose_step
from puna.model import ContiguousCache, LlamaModel

pytest.importorskip("numba", reason="the extra `fast` is not installed")

BOUND = 2e-5  # of the largest logit: both sum in float32, in another order, over two blocks


def assert_same_step(model: LlamaModel, lengths: list[int], seed: int) -> None:
    """Prompts of these lengths, then three steps by both; logits and caches must agree."""
    draw = torch.Generator().manual_seed(seed)
    vocab = model.config.vocab_size
    prompts = [torch.randint(vocab, (n,), generator=draw).tolist() for n in lengths]
    room = max(lengths) + 3
    caches = [ContiguousCache(model.config, batch=len(lengths), max_tokens=room) for _ in "ab"]
    steps = (KernelStep(model), ModelStep(model))
    with torch.inference_mode():
        for cache in caches:
            prefill(model, prompts, cache)
        for _ in range(3):
            tokens = torch.randint(vocab, (len(lengths),), generator=draw)
            ours, slow = (step(tokens, cache) for step, cache in zip(steps, caches, strict=True))
            assert ours.shape == slow.shape == (len(lengths), vocab)
            assert (ours - slow).abs().max() <= BOUND * slow.abs().max()
    assert caches[0].lengths == caches[1].lengths == [n + 3 for n in lengths]
    for layer in range(model.config.num_hidden_layers):
        for row, n in enumerate(lengths):
            for ours, slow in (
                (caches[0].keys, caches[1].keys),
                (caches[0].values, caches[1].values),
            ):
                a, b = ours[layer][row, :, : n + 3], slow[layer][row, :, : n + 3]
                assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=9), seed=st.integers(0, 99))
def test_any_batch_of_any_lengths(lengths: list[int], seed: int) -> None:
    assert_same_step(twin(reference(seed=seed % 3)), lengths, seed)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"head_dim": 16},
        {"tie_word_embeddings": True},
        {"rms_norm_eps": 1e-2},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    ],
    ids=str,
)
def test_shapes(changes: dict[str, object]) -> None:
    assert_same_step(twin(reference(**changes)), [7, 3, 7, 12, 1], seed=5)


def test_a_window_hides_old_slots() -> None:
    model = twin(reference())
    object.__setattr__(model.config, "window_tokens", 5)
    assert_same_step(model, [12, 2, 5], seed=1)


def test_a_large_batch_goes_through_the_model() -> None:
    assert_same_step(twin(reference()), [4] * (stepping.MAX_KERNEL_BATCH + 1), seed=2)


def test_greedy_text_is_the_same_with_and_without() -> None:
    model = twin(reference(seed=1))
    prompts = [[5, 6, 7], [8, 9], [1, 2, 3, 4]]
    sampling = Sampling(max_tokens=24)

    def ids(kernels: bool) -> list[tuple[int, int]]:
        steps = decode(model, prompts, sampling, kernels=kernels)
        return sorted((step.row, step.id) for batch in steps for step in batch)

    assert ids(True) == ids(False)


def test_a_full_cache_is_refused_before_anything_is_written() -> None:
    model = twin(reference())
    cache = ContiguousCache(model.config, batch=1, max_tokens=4)
    with torch.inference_mode():
        prefill(model, [[1, 2, 3, 4]], cache)
        with pytest.raises(InputError, match="the cache holds 4 tokens; 5 are needed"):
            KernelStep(model)(torch.tensor([1]), cache)
    assert cache.lengths == [4]


def test_kernels_serve_plain_float32_models_only() -> None:
    model = twin(reference())
    assert kernels_missing(model) is None
    assert isinstance(choose_step(model), KernelStep)
    assert isinstance(choose_step(model, kernels=False), ModelStep)
    assert "bfloat16" in str(kernels_missing(twin(reference()).to(torch.bfloat16)))
    assert "has a bias" in str(kernels_missing(twin(reference(attention_bias=True))))
    wrapped = twin(reference())
    block = wrapped.model.layers[1]
    block.mlp.up_proj = torch.nn.Sequential(block.mlp.up_proj)
    assert "model.layers.1.mlp.up_proj is a Sequential" in str(kernels_missing(wrapped))
    hooked = twin(reference())
    hooked.model.norm.register_forward_hook(lambda *_: None)
    assert "model.norm has hooks" in str(kernels_missing(hooked))
    assert isinstance(choose_step(wrapped), ModelStep)


def test_without_numba_the_model_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping.importlib.util, "find_spec", lambda name: None)
    model = twin(reference())
    assert "pip install 'puna[fast]'" in str(kernels_missing(model))
    assert isinstance(choose_step(model), ModelStep)


def test_warming_up_takes_a_time_and_leaves_the_model_alone() -> None:
    model = twin(reference())
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert warm_up(model) > 0
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_warming_up_does_nothing_where_kernels_do_not_serve() -> None:
    assert warm_up(twin(reference()).to(torch.bfloat16)) == 0.0


def test_kernels_compile_where_nothing_can_be_kept() -> None:
    """A package that cannot be written to, and no home: compiled code lives in a private folder."""
    code = (
        "import numba.core.caching as caching, sys\n"
        "for locator in caching.CacheImpl._locator_classes:\n"
        "    if 'UserProvided' not in locator.__name__:\n"
        "        locator.from_function = classmethod(lambda *_: None)\n"
        "from puna.generate.stepping import _load_kernels\n"
        "import numba\n"
        "_load_kernels()\n"
        "print(numba.config.CACHE_DIR)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    place = Path(ran.stdout.strip())
    assert place.name.startswith("puna-kernels-")
    assert not place.exists(), "it is removed at the end"


def test_torch_keeps_its_threads() -> None:
    """Numba starts its own at the first call, which only a fresh process has before it."""
    code = (
        "import torch; from generate.tiny import reference, twin; from puna.generate import *\n"
        "torch.set_num_threads(1)\n"
        "assert warm_up(twin(reference())) > 0\n"
        "print(torch.get_num_threads())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert ran.stdout == "1\n", ran.stderr
