"""Every block type against the gguf package, bit for bit, through files that it writes."""

from __future__ import annotations

import gzip
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from puna.store import open_checkpoint
from puna.store.gguf import read_gguf
from puna.store.gguf_header import TENSOR_TYPES, parse_gguf
from puna.store.gguf_quants import BLOCKS, dequantize, quantize_q8_0

QUANTIZED = [name for name in BLOCKS if name not in ("F32", "F16", "BF16")]


def random_blocks(name: str, blocks: int, seed: int = 0) -> np.ndarray:
    """Random bytes as blocks, with scales that are finite."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (blocks, BLOCKS[name][1]), dtype=np.uint8)
    place = {"Q2_K": (80, 84), "Q3_K": (108, 110), "Q4_K": (0, 4), "Q5_K": (0, 4)}
    place |= {"Q6_K": (208, 210), "Q4_1": (0, 4), "Q5_1": (0, 4)}
    start, stop = place.get(name, (0, 2))
    raw[:, start + 1 : stop : 2] &= 0x3F  # the high byte of a float16: keep it small
    return raw


@pytest.mark.parametrize("name", [name for name in QUANTIZED if name != "Q8_K"])
def test_equal_to_the_gguf_package(name):
    raw = random_blocks(name, 3000)  # more than a chunk
    expected = gguf.quants.dequantize(raw, Type[name]).reshape(-1)
    found = dequantize(torch.from_numpy(raw).view(-1), name).numpy()
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_large_tensors_take_the_other_path(monkeypatch):
    monkeypatch.setattr("puna.store.gguf_quants._LARGE", 1)
    raw = torch.from_numpy(random_blocks("Q4_1", 3000)).view(-1)
    expected = dequantize(raw, "Q4_1")
    monkeypatch.undo()
    assert torch.equal(dequantize(raw, "Q4_1"), expected)


def test_q8_k_is_a_float_scale_and_256_bytes():
    """The gguf package has no decoder for it; ggml's block_q8_K is float d, int8 qs, int16 sums."""
    rng = np.random.default_rng(0)
    d = rng.standard_normal(4).astype(np.float32)
    q = rng.integers(-128, 128, (4, 256), dtype=np.int8)
    raw = np.concatenate(
        [d[:, None].view(np.uint8), q.view(np.uint8), np.zeros((4, 32), np.uint8)], axis=1
    )
    found = dequantize(torch.from_numpy(raw).view(-1), "Q8_K").view(4, 256)
    assert np.array_equal(found.numpy(), d[:, None] * q)


def test_block_sizes_are_those_of_the_package():
    for number, (name, values, nbytes) in TENSOR_TYPES.items():
        assert Type[name].value == number
        assert gguf.GGML_QUANT_SIZES[Type[name]] == (values, nbytes)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_quantizing_to_q8_0_equals_the_package(scale):
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)) * scale
    x[0] = 0
    x[1] = torch.arange(64) - 32.5  # halves: rounded away from zero
    expected = gguf.quants.quantize(x.numpy(), Type.Q8_0)
    assert np.array_equal(quantize_q8_0(x).numpy(), expected.reshape(-1))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", *QUANTIZED])
def test_files_of_the_gguf_package(name, tmp_path: Path):
    """A one-layer LLaMA written by GGUFWriter, all matrices in one type."""
    width = 256
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(32)
    writer.add_bos_token_id(1)
    rng = np.random.default_rng(0)
    matrices = {"token_embd": 32, "output": 32}
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        matrices[f"blk.0.{part}"] = width
    expected = {}
    for number, (part, rows) in enumerate(matrices.items()):
        values = rng.standard_normal((rows, width)).astype(np.float32)
        if name in ("F32", "F16"):
            raw = values.astype({"F32": np.float32, "F16": np.float16}[name])
            writer.add_tensor(f"{part}.weight", raw)
            expected[part] = raw.astype(np.float32)
        else:
            raw = (
                random_blocks(name, rows * width // BLOCKS[name][0], number).reshape(rows, -1)
                if name.endswith("_K")
                else gguf.quants.quantize(values, Type[name])
            )
            writer.add_tensor(f"{part}.weight", raw, raw_dtype=Type[name])
            if name == "Q8_K":
                expected[part] = dequantize(torch.from_numpy(raw).view(-1), name).numpy()
            else:
                expected[part] = gguf.quants.dequantize(raw, Type[name])
    for part in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{part}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    read = open_checkpoint(path)
    assert read.config["rms_norm_eps"] == 1e-5 and read.config["bos_token_id"] == 1
    for part, name_here in (
        ("token_embd", "model.embed_tokens"),
        ("output", "lm_head"),
        ("blk.0.attn_v", "model.layers.0.self_attn.v_proj"),
        ("blk.0.ffn_down", "model.layers.0.mlp.down_proj"),
    ):
        tensor = read.tensors[f"{name_here}.weight"]
        assert tensor.stored == name
        found = tensor.load().float().numpy().reshape(-1)
        assert np.array_equal(found, expected[part].reshape(-1), equal_nan=True)
    q = read.tensors["model.layers.0.self_attn.q_proj.weight"].load().float()
    pairs = torch.from_numpy(expected["blk.0.attn_q"].reshape(width, width).copy())
    halves = pairs.view(4, 32, 2, width).transpose(1, 2).reshape(width, width)
    assert torch.equal(q.nan_to_num(), halves.nan_to_num())


def test_llama_base(llama_base_gguf: Path):
    read = read_gguf(llama_base_gguf)
    package = gguf.GGUFReader(llama_base_gguf)
    for row in package.tensors:
        if row.name in ("token_embd.weight", "blk.29.ffn_down.weight", "blk.3.attn_v.weight"):
            expected = gguf.quants.dequantize(row.data, row.tensor_type)
            names = {
                "token_embd.weight": "model.embed_tokens.weight",
                "blk.29.ffn_down.weight": "model.layers.29.mlp.down_proj.weight",
                "blk.3.attn_v.weight": "model.layers.3.self_attn.v_proj.weight",
            }
            assert np.array_equal(read.tensors[names[row.name]].load().numpy(), expected)
    for key in ("tokens", "merges", "token_type"):
        field = package.fields[f"tokenizer.ggml.{key}"]
        ours = read.tokenizer.gguf[f"tokenizer.ggml.{key}"]
        assert len(ours) == len(field.data)
        assert ours[-9:] == [field.contents(index) for index in range(-9, 0)]
    assert sum(torch.Size(t.shape).numel() for t in read.tensors.values()) == 134_515_008


@pytest.mark.parametrize(("name", "tokens"), [("bpe", 128256), ("spm", 32000)])
def test_vocabularies_of_llama_cpp(name, tokens, shared_data: Path):
    file = shared_data / "llama-tokenizers" / f"ggml-vocab-llama-{name}.gguf.gz"
    data = gzip.decompress(file.read_bytes())
    metadata = parse_gguf(data, len(data), file).metadata
    assert len(metadata["tokenizer.ggml.tokens"]) == tokens
    assert len(metadata["tokenizer.ggml.token_type"]) == tokens
