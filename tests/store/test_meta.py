"""Meta's layout: params.json, shards, and the sizes that its formula has to reproduce."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from puna.errors import InputError
from puna.store import open_checkpoint, write_meta
from puna.store.meta_config import _feed_forward_params, feed_forward_size

# dim, width: LLaMA 7B, 13B, 33B, 65B, Llama-2 70B, Llama-3 8B, Llama-3.2 1B and 3B, SmolLM2s
PUBLISHED = [
    (4096, 11008),
    (5120, 13824),
    (6656, 17920),
    (8192, 22016),
    (8192, 28672),
    (4096, 14336),
    (2048, 8192),
    (3072, 8192),
    (576, 1536),
    (960, 2560),
    (64, 172),
]


@pytest.mark.parametrize(("dim", "width"), [*PUBLISHED, (64, 96), (64, 1), (100, 7777), (10, 13)])
def test_the_formula_gives_every_width(dim, width):
    params = _feed_forward_params(dim, width)
    found = feed_forward_size(dim, params["multiple_of"], params.get("ffn_dim_multiplier"))
    assert found == width
    if (dim, width) in PUBLISHED[:-1]:
        assert params["multiple_of"] in (256, 1024, 4096)


def test_params_json_is_what_metas_readers_take(tmp_path, make_config, make_tensors, lazy):
    """LLaMA 1 and 2 pass params.json to a dataclass, so a key it does not know is an error."""
    config = make_config(num_key_value_heads=4)
    write_meta(tmp_path, config=config, tensors=lazy(make_tensors(config)), files={"a.txt": b"hi"})
    params = json.loads((tmp_path / "params.json").read_text())
    llama1 = {"dim", "n_layers", "n_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier"}
    assert set(params) <= llama1 | {"norm_eps"}
    assert (tmp_path / "a.txt").read_bytes() == b"hi"
    state = torch.load(tmp_path / "consolidated.00.pth", weights_only=True)
    assert "layers.1.attention.wq.weight" in state and "output.weight" in state


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_the_embedding_is_cut_as_the_release_cuts_it(
    theta, tmp_path, make_config, make_tensors, lazy
):
    config = make_config(rope_theta=theta)
    tensors = make_tensors(config)
    write_meta(tmp_path, config=config, tensors=lazy(tensors), files={}, shards=2)
    shard = torch.load(tmp_path / "consolidated.01.pth", weights_only=True)
    embedding = tensors["model.embed_tokens.weight"]
    expected = embedding[:, 32:] if theta == 10000.0 else embedding[48:]
    assert torch.equal(shard["tok_embeddings.weight"], expected)
    assert torch.equal(shard["output.weight"], tensors["lm_head.weight"][48:])
    down = tensors["model.layers.0.mlp.down_proj.weight"]
    assert torch.equal(shard["layers.0.feed_forward.w2.weight"], down[:, 48:])
    assert torch.equal(shard["norm.weight"], tensors["model.norm.weight"])


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_without_our_side_file(tied, shards, tmp_path, make_config, make_tensors, lazy):
    """As Meta publishes it: the vocabulary open, rope.freqs saved, tying to be found out."""
    config = make_config(tie_word_embeddings=tied)
    tensors = make_tensors(config)
    write_meta(tmp_path, config=config, tensors=lazy(tensors), files={}, shards=shards)
    (tmp_path / "puna.json").unlink()
    params = json.loads((tmp_path / "params.json").read_text())
    (tmp_path / "params.json").write_text(json.dumps({**params, "vocab_size": -1}))
    for file in tmp_path.glob("*.pth"):
        state = torch.load(file, weights_only=True)
        torch.save({**state, "rope.freqs": torch.ones(8)}, file)
    read = open_checkpoint(tmp_path)
    assert read.config["tie_word_embeddings"] is tied
    assert read.config["vocab_size"] == 96
    assert read.config["max_position_embeddings"] == 2048  # LLaMA 1's, by its norm_eps
    assert set(read.tensors) == set(tensors)
    assert all(torch.equal(read.tensors[n].load(), t) for n, t in tensors.items())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dim": None}, "the field 'dim' is missing"),
        ({"moe": {}}, "unknown architecture: the field 'moe' is not one of a LLaMA"),
        ({"vocab_size": 95}, "vocab_size = 95 contradicts the weights: tensor 'tok_embeddings"),
        ({"multiple_of": 1000}, "give a width that = 1000 contradicts the weights"),
        ({"n_layers": 3}, "params.json and the weights say num_hidden_layers = 3, puna.json says"),
        ({"n_heads": 8}, "say num_attention_heads = 8, puna.json says 4"),
        ({"use_scaled_rope": True}, "use_scaled_rope in params.json contradicts rope_scaling"),
    ],
)
def test_contradictions(params, message, tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    write_meta(tmp_path, config=config, tensors=lazy(make_tensors(config)), files={})
    good = json.loads((tmp_path / "params.json").read_text())
    changed = {k: v for k, v in (good | params).items() if v is not None}
    (tmp_path / "params.json").write_text(json.dumps(changed))
    with pytest.raises(InputError) as caught:
        open_checkpoint(tmp_path)
    assert message in str(caught.value)


def test_shards_that_do_not_fit_together(tmp_path: Path, make_config, make_tensors, lazy):
    config = make_config()
    tensors = make_tensors(config)
    write_meta(tmp_path, config=config, tensors=lazy(tensors), files={}, shards=2)
    second = tmp_path / "consolidated.01.pth"
    state = torch.load(second, weights_only=True)
    torch.save({**state, "norm.weight": torch.ones(63)}, second)
    with pytest.raises(InputError, match=r"tensor 'norm.weight': expected \[64\].* found \[63\]"):
        open_checkpoint(tmp_path)
    state.pop("norm.weight")
    torch.save(state, second)
    with pytest.raises(InputError, match=r"'norm\.weight' is in one shard and not in another"):
        open_checkpoint(tmp_path)
    (tmp_path / "consolidated.00.pth").unlink()
    with pytest.raises(
        InputError, match=r"consolidated\.00\.pth is missing; found consolidated\.01"
    ):
        open_checkpoint(tmp_path)
    second.unlink()
    with pytest.raises(InputError, match=r"consolidated\.00\.pth is missing; found no shard"):
        open_checkpoint(tmp_path)
