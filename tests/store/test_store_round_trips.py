"""Through every format and back: the same bits, the same config, the same identity."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file

from puna.artifact import model_identity
from puna.store import open_checkpoint, write_gguf, write_hf, write_meta
from puna.store.names import GGUF, META, to_halves, to_pairs
from puna.store.values import digest_lazy

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SHAPES = {
    "gqa": {},
    "no-gqa": {"num_key_value_heads": 4},
    "tied": {"tie_word_embeddings": True},
    "llama3": {"rope_scaling": LLAMA3, "rope_theta": 500000.0, "max_position_embeddings": 131072},
}
GGUF_SHAPES = SHAPES | {
    "biases": {"attention_bias": True, "mlp_bias": True},
    "head_dim": {"head_dim": 32},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama3-odd": {
        "rope_scaling": LLAMA3 | {"factor": 3.0, "original_max_position_embeddings": 64}
    },
    "epsilon": {"rms_norm_eps": 1e-6, "rope_theta": 10000.5},
}


def assert_same(path: Path, config: dict, tensors: dict[str, torch.Tensor], digests: list) -> None:
    read = open_checkpoint(path)
    assert dict(read.config) == config
    assert set(read.tensors) == set(tensors)
    for name, tensor in tensors.items():
        loaded = read.tensors[name].load()
        assert loaded.dtype == read.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded, tensor), name
    identity = model_identity(digest_lazy(tensor) for tensor in read.tensors.values())
    assert identity == model_identity(digests)


@pytest.mark.parametrize("shape", GGUF_SHAPES)
def test_hf_keeps_every_bit(shape, tmp_path, make_config, make_tensors, lazy):
    config = make_config(**GGUF_SHAPES[shape])
    tensors = make_tensors(config)
    digests = write_hf(tmp_path, config=config, tensors=lazy(tensors), files={})
    assert_same(tmp_path, {**config, "torch_dtype": "float32"}, tensors, digests)


@pytest.mark.parametrize("shape", GGUF_SHAPES)
def test_gguf_keeps_every_bit(shape, tmp_path, make_config, make_tensors, lazy):
    config = make_config(**GGUF_SHAPES[shape])
    tensors = make_tensors(config)
    path = tmp_path / "model.gguf"
    digests = write_gguf(path, config=config, tensors=lazy(tensors), metadata={})
    assert_same(path, config, tensors, digests)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_meta_keeps_every_bit(shape, shards, tmp_path, make_config, make_tensors, lazy):
    config = make_config(**SHAPES[shape])
    tensors = make_tensors(config)
    digests = write_meta(tmp_path, config=config, tensors=lazy(tensors), files={}, shards=shards)
    assert len(list(tmp_path.glob("consolidated.*.pth"))) == shards
    assert_same(tmp_path, config, tensors, digests)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_every_bit(dtype, tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    tensors = make_tensors(config, dtype=dtype)
    for name, write in (("hf", write_hf), ("meta", write_meta)):
        folder = tmp_path / name
        folder.mkdir()
        digests = write(folder, config=config, tensors=lazy(tensors), files={})
        expected = {**config, "torch_dtype": str(dtype)[6:]} if name == "hf" else config
        assert_same(folder, expected, tensors, digests)
    path = tmp_path / "model.gguf"
    stored = {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    digests = write_gguf(path, config=config, tensors=lazy(tensors), metadata={}, dtype=stored)
    norms_float = {n: t.float() if t.dim() == 1 else t for n, t in tensors.items()}
    assert_same(path, config, norms_float, digests)


def test_casting_while_writing(tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    tensors = make_tensors(config)
    digests = write_hf(
        tmp_path, config=config, tensors=lazy(tensors), files={}, dtype=torch.bfloat16
    )
    cast = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    assert_same(tmp_path, {**config, "torch_dtype": "bfloat16"}, cast, digests)


def test_q8_0_digests_are_those_of_what_is_read_back(tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    tensors = make_tensors(config)
    path = tmp_path / "model.gguf"
    digests = write_gguf(path, config=config, tensors=lazy(tensors), metadata={}, dtype="Q8_0")
    read = open_checkpoint(path).tensors
    assert model_identity(digests) == model_identity(map(digest_lazy, read.values()))
    for name, tensor in tensors.items():
        bound = 0 if tensor.dim() == 1 else tensor.abs().max().item() / 127
        assert (read[name].load() - tensor).abs().max().item() <= bound


def test_gguf_is_what_the_gguf_package_reads(tmp_path, make_config, make_tensors, lazy):
    config = make_config(**SHAPES["llama3"])
    tensors = make_tensors(config)
    path = tmp_path / "model.gguf"
    metadata = {
        "general.name": "tiny",
        "tokenizer.ggml.tokens": ["a", "å", "羊驼"],
        "tokenizer.ggml.token_type": [1, 1, 3],
        "tokenizer.ggml.scores": [-1.0, 0.5, 2.0],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 1,
        "puna.negative": -5,
        "puna.large": 2**40,
    }
    write_gguf(path, config=config, tensors=lazy(tensors), metadata=metadata)
    reader = gguf.GGUFReader(path)
    for key, value in metadata.items():
        assert reader.fields[key].contents() == value
    types = {key: field.types[-1].name for key, field in reader.fields.items()}
    assert types["tokenizer.ggml.token_type"] == "INT32"
    assert types["llama.block_count"] == types["tokenizer.ggml.bos_token_id"] == "UINT32"
    assert types["llama.rope.freq_base"] == types["tokenizer.ggml.scores"] == "FLOAT32"
    by_name = {t.name: t for t in reader.tensors}
    assert len(by_name) == len(tensors) + 1 and "rope_freqs.weight" in by_name
    for name, tensor in tensors.items():
        row = by_name[GGUF.from_hf(name)]
        found = torch.from_numpy(row.data.copy())
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        assert torch.equal(found, tensor if heads is None else to_pairs(tensor, heads)), name
    assert open_checkpoint(path).tokenizer.gguf["tokenizer.ggml.tokens"] == ["a", "å", "羊驼"]


def test_shards_and_their_index(tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    tensors = make_tensors(config)
    write_hf(tmp_path, config=config, tensors=lazy(tensors), files={}, max_shard_bytes=60_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    merged = {name: t for file in files for name, t in load_file(file).items()}
    assert all(torch.equal(merged[name], tensor) for name, tensor in tensors.items())
    assert all(file.stat().st_size < 62_000 for file in files)
    read = open_checkpoint(tmp_path)
    assert all(torch.equal(read.tensors[n].load(), t) for n, t in tensors.items())


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_row_permutations_are_inverse_and_right(heads):
    rows = torch.arange(32)
    assert torch.equal(to_halves(to_pairs(rows, heads), heads), rows)
    half = 32 // heads // 2
    pairs = to_pairs(rows, heads).view(heads, half, 2)
    for head in range(heads):
        first = head * 2 * half
        for i in range(half):  # neighbours of the product are i and i + D/2 of the source
            assert pairs[head, i].tolist() == [first + i, first + i + half]


@pytest.mark.parametrize("table", [GGUF, META])
def test_name_tables_read_both_ways(table, make_config, make_tensors):
    for name in make_tensors(make_config(attention_bias=True, mlp_bias=True)):
        assert table.to_hf(table.from_hf(name)) == name
    for unknown in ("", "blk.x.attn_q.weight", "blk.0.attn_q.scale", "layers.0.moe.weight"):
        assert table.to_hf(unknown) is None
