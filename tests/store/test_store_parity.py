"""Against independent implementations: transformers, safetensors, the gguf package, Meta's code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from puna.store import open_checkpoint, write_gguf, write_hf
from puna.store.names import to_pairs

transformers = pytest.importorskip("transformers", reason="needs puna[hf]")

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES = {
    "gqa": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True, "head_dim": 32},
    "llama3": {"rope_parameters": LLAMA3 | {"rope_theta": 500000.0}},
}


def reference(**changes) -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    config = transformers.LlamaConfig(**{**sizes, **changes})
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(torch.arange(40).view(1, -1) % 96).logits


@pytest.mark.parametrize("shape", SHAPES)
def test_a_folder_of_transformers_and_back(shape, tmp_path):
    model = reference(**SHAPES[shape])
    model.save_pretrained(tmp_path / "theirs")
    read = open_checkpoint(tmp_path / "theirs")
    state = model.state_dict()
    for name, tensor in read.tensors.items():
        assert torch.equal(tensor.load(), state[name])
    (tmp_path / "ours").mkdir()
    write_hf(
        tmp_path / "ours",
        config=read.config,
        tensors=read.tensors.values(),
        files={},
        generation_config=read.generation_config,
        max_shard_bytes=100_000,
    )
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert again.config.rope_parameters == model.config.rope_parameters
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("shape", ["gqa", "tied"])
def test_transformers_reads_our_gguf(shape, tmp_path):
    """Their loader undoes the permutation of llama.cpp, so equal logits prove ours."""
    model = reference(**SHAPES[shape])
    model.save_pretrained(tmp_path / "theirs")
    read = open_checkpoint(tmp_path / "theirs")
    tokens = [f"t{n}" for n in range(96)]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 96,
        "tokenizer.ggml.merges": ["t 1"],
    }
    path = tmp_path / "model.gguf"
    write_gguf(path, config=read.config, tensors=read.tensors.values(), metadata=metadata)
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    again = reference(**SHAPES[shape])
    for parameter in again.parameters():
        parameter.data.zero_()
    theirs = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=again)
    loaded = again.load_state_dict(theirs["tensors"], strict=False)
    assert not loaded.unexpected_keys
    assert set(loaded.missing_keys) <= ({"lm_head.weight"} if shape == "tied" else set())
    assert torch.equal(logits(again), logits(model))
    for key in ("hidden_size", "num_key_value_heads", "rms_norm_eps", "vocab_size"):
        assert theirs["config"][key] == pytest.approx(getattr(model.config, key))


def test_torch_bin_folder(tmp_path):
    model = reference()
    model.save_pretrained(tmp_path)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)  # an old buffer
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    read = open_checkpoint(tmp_path)
    assert set(read.tensors) == set(model.state_dict())
    for name, tensor in read.tensors.items():
        assert torch.equal(tensor.load(), state[name])
        tensor.release()


def test_a_mistral_folder(tmp_path):
    config = transformers.MistralConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=None,
    )
    model = transformers.MistralForCausalLM(config)
    model.save_pretrained(tmp_path)
    read = open_checkpoint(tmp_path)
    assert read.config["model_type"] == "mistral"
    assert read.config["num_key_value_heads"] == 2
    assert set(read.tensors) == set(model.state_dict())


def test_metas_rotation_of_our_pairs_is_hugging_faces_of_halves():
    """Meta rotates complex neighbours (llama/model.py, `apply_rotary_emb`)."""
    torch.manual_seed(0)
    heads, dim, tokens = 2, 16, 5
    weight, x = torch.randn(heads * dim, 24), torch.randn(tokens, 24)
    angles = torch.arange(tokens).float()[:, None] / 10000 ** (torch.arange(0, dim, 2) / dim)

    meta = (x @ to_pairs(weight, heads).T).view(tokens, heads, dim)
    turned = torch.view_as_complex(meta.unflatten(-1, (-1, 2)))
    turned = turned * torch.polar(torch.ones_like(angles), angles)[:, None]
    meta_scores = torch.einsum("thd,shd->hts", *[torch.view_as_real(turned).flatten(2)] * 2)

    hf = (x @ weight.T).view(tokens, heads, dim)
    cos, sin = (torch.cat([f(angles)] * 2, -1)[:, None] for f in (torch.cos, torch.sin))
    left, right = hf.chunk(2, -1)
    hf = hf * cos + torch.cat([-right, left], -1) * sin
    scores = torch.einsum("thd,shd->hts", hf, hf)
    torch.testing.assert_close(meta_scores, scores, rtol=1e-4, atol=1e-4)


def test_values_are_views_that_never_reach_the_file(write_folder):
    folder = write_folder()
    file = folder / "model.safetensors"
    before = file.read_bytes()
    tensor = open_checkpoint(folder).tensors["model.norm.weight"]
    values = tensor.load()
    assert tensor.load().data_ptr() == values.data_ptr()  # one mapping, no copy
    values += 1
    assert file.read_bytes() == before
    tensor.release()
    assert torch.isfinite(tensor.load()).all()


def test_opening_many_times_leaks_no_descriptor(write_folder):
    folder = write_folder()
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("this system has no /proc")
    before = len(list(open_files.iterdir()))
    for _ in range(50):
        open_checkpoint(folder).tensors["model.norm.weight"].load()
    assert len(list(open_files.iterdir())) <= before + 2


def test_every_dtype_of_safetensors(tmp_path):
    from puna.store.safetensors import DTYPES, read_safetensors

    tensors = {
        name: (torch.arange(24).view(2, 3, 4) % 2).to(dtype) for name, dtype in DTYPES.items()
    }
    tensors["scalar"] = torch.tensor(3.0)
    tensors["empty"] = torch.empty(0, 4)
    save_file(tensors, tmp_path / "all.safetensors")
    read = read_safetensors(tmp_path / "all.safetensors")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        found = read[name].load()
        assert found.dtype == tensor.dtype and found.shape == tensor.shape
        bits = [t.reshape(-1).view(torch.uint8) for t in (found, tensor)]
        assert torch.equal(*bits)


def test_misaligned_values_are_read_all_the_same(tmp_path):
    from puna.store.safetensors import read_safetensors

    header = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + 1)
    values = torch.tensor([1.5, -2.0])
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + values.numpy().tobytes())
    assert torch.equal(read_safetensors(path)["x"].load(), values)


def test_opening_reads_headers_only(write_folder):
    """A file whose values are a hole opens in no memory: 64 GB of weights that are not there."""
    folder = write_folder(num_hidden_layers=1)
    config = json.loads((folder / "config.json").read_text())
    config |= {"vocab_size": 2**27, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {n: list(t.shape) for n, t in open_checkpoint_raw(folder).items()}
    shapes.pop("lm_head.weight")
    shapes["model.embed_tokens.weight"] = [2**27, 64]
    position, rows = 0, {}
    for name, shape in shapes.items():
        stop = position + 4 * torch.Size(shape).numel()
        rows[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(rows).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)
    code = (
        "import resource, sys, pathlib, puna.store as s\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "c = s.open_checkpoint(pathlib.Path(sys.argv[1]))\n"
        "assert c.tensors['model.embed_tokens.weight'].nbytes == 2**35\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 50_000  # kB


def open_checkpoint_raw(folder: Path):
    from puna.store.safetensors import read_safetensors

    return read_safetensors(folder / "model.safetensors")
