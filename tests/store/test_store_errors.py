"""Bad input: each message names the file, the tensor or key, what was expected and found."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from puna.artifact import writing_file, writing_folder
from puna.errors import InputError
from puna.store import check_finite, open_checkpoint, write_gguf, write_hf, write_meta
from puna.store.gguf_config import llama3_factors


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        open_checkpoint(path)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def edit(path: Path, **changes) -> None:
    value = json.loads(path.read_text())
    for key, new in changes.items():
        value.pop(key, None) if new is None else value.__setitem__(key, new)
    path.write_text(json.dumps(value))


def resave(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


# --- what is it? ---


def test_places_that_hold_no_checkpoint(tmp_path):
    refused(tmp_path / "nowhere", "nowhere: does not exist")
    refused(tmp_path, "holds neither config.json with weights, nor params.json, nor a .gguf")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "is not a checkpoint that puna knows")
    (tmp_path / "a.gguf").write_bytes(b"")
    refused(tmp_path / "a.gguf", "a.gguf: is empty")
    (tmp_path / "b.gguf").write_bytes(b"")
    refused(tmp_path, "holds 2 GGUF files: a.gguf, b.gguf")
    (tmp_path / "x.safetensors").write_bytes(b"")
    refused(tmp_path / "x.safetensors", "no config.json beside it")


def test_one_gguf_in_a_folder_and_one_lone_safetensors(tmp_path, write_folder, lazy):
    folder = write_folder()
    read = open_checkpoint(folder)
    (tmp_path / "g").mkdir()
    values = read.tensors.values()
    write_gguf(tmp_path / "g" / "m.gguf", config=read.config, tensors=values, metadata={})
    assert open_checkpoint(tmp_path / "g").format == "gguf"
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert open_checkpoint(folder / "other.safetensors").format == "hf"
    assert open_checkpoint(folder).format == "hf"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "unknown architecture 'GPT2LMHeadModel'"),
        ({"model_type": "gpt2", "architectures": None}, "model_type 'gpt2'; supported are Llama"),
        ({"hidden_size": None}, "the field 'hidden_size' is missing"),
        ({"hidden_size": "64"}, "field 'hidden_size': expected a whole number"),
        ({"vocab_size": 0}, "field 'vocab_size': expected a whole number from 1"),
        ({"num_attention_heads": 3}, "is no multiple of num_key_value_heads = 2"),
        ({"rms_norm_eps": -1}, "field 'rms_norm_eps': expected a positive number"),
        ({"hidden_act": "gelu"}, "field 'hidden_act': expected 'silu', found 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantized Hugging Face weights are not read"),
        ({"rope_scaling": "x"}, "field 'rope_scaling': expected an object or null"),
        ({"tie_word_embeddings": "no"}, "expected true or false, found 'no'"),
        ({"num_hidden_layers": 3}, "num_hidden_layers = 3, but the weights hold 2 layers"),
        ({"intermediate_size": 100}, "expected shape [100, 64], which is (intermediate_size, hid"),
        ({"vocab_size": 97}, "'model.embed_tokens.weight': expected shape [97, 64]"),
        ({"attention_bias": True}, "missing tensors 'model.layers.0.self_attn.q_proj.bias'"),
    ],
)
def test_configs_that_are_wrong_or_contradict_the_weights(write_folder, changes, message):
    folder = write_folder()
    edit(folder / "config.json", **changes)
    refused(folder, message, str(folder))


# --- weights ---


def test_missing_extra_misshapen_and_integer_tensors(write_folder):
    folder = write_folder()
    file = folder / "model.safetensors"
    good = file.read_bytes()
    resave(folder, lambda t: t.pop("model.norm.weight"))
    refused(folder, "missing tensor 'model.norm.weight'; expected 21 tensors, found 20")
    file.write_bytes(good)
    resave(folder, lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}))
    refused(folder, "extra tensor", "q_proj.bias", "(attention_bias is False)", str(file))
    file.write_bytes(good)
    resave(folder, lambda t: t.update({"model.norm.weight": torch.ones(63)}))
    refused(folder, "'model.norm.weight': expected shape [64]", "found [63]", str(file))
    file.write_bytes(good)
    resave(folder, lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)}))
    refused(folder, "'model.norm.weight': expected floating point, found I8")


def test_truncated_files(write_folder, tmp_path):
    folder = write_folder()
    file = folder / "model.safetensors"
    good = file.read_bytes()
    read = open_checkpoint(folder)
    gguf = tmp_path / "m.gguf"
    write_gguf(gguf, config=read.config, tensors=read.tensors.values(), metadata={})
    good_gguf = gguf.read_bytes()
    for keep in (4, 100, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:keep])
        refused(folder, "model.safetensors", "expected", "found", "cut short")
    for keep in (4, 30, 500, len(good_gguf) // 2, len(good_gguf) - 40):
        gguf.write_bytes(good_gguf[:keep])
        refused(gguf, "m.gguf", "expected", "cut short")


def test_an_index_that_lies(write_folder, tmp_path):
    read = open_checkpoint(write_folder())
    folder = tmp_path / "sharded"
    folder.mkdir()
    write_hf(
        folder,
        config=read.config,
        tensors=read.tensors.values(),
        files={},
        max_shard_bytes=60_000,
    )
    index = folder / "model.safetensors.index.json"
    table = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={**table, "model.norm.weight": "../../secret.safetensors"})
    refused(folder, "is not the name of a file of weights", "index.json")
    edit(index, weight_map={**table, "model.norm.weight": "model-9.safetensors"})
    refused(folder, "the index names model-9.safetensors, which is missing")
    edit(index, weight_map={**table, "ghost": table["model.norm.weight"]})
    refused(folder, "tensor 'ghost': expected in model-", "found nowhere")
    (folder / table["model.norm.weight"]).unlink()
    edit(index, weight_map=table)
    refused(folder, "which is missing")


class Payload:
    def __reduce__(self):
        return os.system, ("touch /tmp/puna-was-here",)


@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_a_pickle_with_code_in_it_is_not_run(layout, write_folder, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(os, "system", called.append)
    if layout == "hf":
        folder = write_folder()
        (folder / "model.safetensors").unlink()
        file = folder / "pytorch_model.bin"
    else:
        folder = tmp_path
        (folder / "params.json").write_text("{}")
        file = folder / "consolidated.00.pth"
    torch.save({"x": Payload()}, file)
    refused(folder, file.name, "a pickle with more than tensors in it and was not loaded")
    file.write_bytes(pickle.dumps(Payload()))
    refused(folder, file.name, "is not a zip archive")
    torch.save([1, 2], file)
    refused(folder, "expected a dictionary of tensors, found a list")
    torch.save({"x": 3}, file)
    refused(folder, "entry 'x': expected a tensor, found a int")
    file.write_bytes(file.read_bytes()[:-30])
    refused(folder, file.name)
    assert not called


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(bad, tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    tensors = make_tensors(config)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = bad
    message = r"'model.layers.1.mlp.up_proj.weight': 1 of 6144 values.* at \[3, 5\], found"
    for write in (write_hf, write_meta):
        with pytest.raises(InputError, match=message):
            folder = tmp_path / write.__name__
            folder.mkdir()
            write(folder, config=config, tensors=lazy(tensors), files={})
    with pytest.raises(InputError, match=message):
        write_gguf(tmp_path / "m.gguf", config=config, tensors=lazy(tensors), metadata={})


def test_finite_values_whose_sum_is_not():
    check_finite("x", torch.full((4,), 3e38), None)
    check_finite("x", torch.full((1000,), 6e4, dtype=torch.float16), None)
    check_finite("x", torch.ones(4).to(torch.float8_e4m3fn), None)


def test_a_value_too_large_for_float16(tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    tensors = make_tensors(config)
    tensors["lm_head.weight"][0, 0] = 1e6
    with pytest.raises(InputError, match=r"'lm_head\.weight': its largest magnitude, 1e\+06"):
        write_hf(tmp_path, config=config, tensors=lazy(tensors), files={}, dtype=torch.float16)


def test_a_tied_head_that_differs(write_folder, make_config, make_tensors):
    folder = write_folder(tie_word_embeddings=True)
    head = {}
    resave(folder, lambda t: head.update(t) or t.update({"lm_head.weight": torch.ones(96, 64)}))
    embedding = open_checkpoint(folder).tensors["model.embed_tokens.weight"]
    with pytest.raises(InputError, match=r"tie_word_embeddings = true, but 'lm_head\.weight'"):
        embedding.load()
    same = head["model.embed_tokens.weight"].clone()
    resave(folder, lambda t: t.update({"lm_head.weight": same}))
    read = open_checkpoint(folder)
    assert "lm_head.weight" not in read.tensors
    assert torch.equal(read.tensors["model.embed_tokens.weight"].load(), same)


# --- GGUF ---


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"general.architecture": "qwen2"}, "unknown architecture 'qwen2'; supported in GGUF is"),
        ({"llama.expert_count": 8}, "a mixture of experts (llama.expert_count = 8)"),
        ({"split.count": 3}, "is one of 3 parts of a split model"),
        ({"llama.block_count": 5}, "num_hidden_layers = 5, but the weights hold 2 layers"),
        ({"llama.block_count": "2"}, "field 'num_hidden_layers': expected a whole number"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type = 'yarn': expected 'none'"),
        ({"llama.attention.value_length": 8}, "llama.attention.value_length = 8 differs from"),
        ({"llama.attention.head_count_kv": [1, 2]}, "num_key_value_heads differs between layers"),
        ({"llama.attention.head_count_kv": 3}, "is no multiple of num_key_value_heads = 3"),
        ({"llama.attention.head_count_kv": 1}, "k_proj.weight': expected shape [16, 64], which"),
    ],
)
def test_gguf_metadata(metadata, message, tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    tensors = lazy(make_tensors(config))
    path = tmp_path / "model.gguf"
    write_gguf(path, config=config, tensors=tensors, metadata=metadata)
    refused(path, "model.gguf", message)


def test_gguf_versions_types_and_byte_order(tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    path = tmp_path / "model.gguf"
    write_gguf(path, config=config, tensors=lazy(make_tensors(config)), metadata={})
    good = path.read_bytes()
    for version, message in ((1, "is GGUF version 1; read are 2 and 3"), (2, ""), (9, "version 9")):
        path.write_bytes(good[:4] + version.to_bytes(4, "little") + good[8:])
        refused(path, message) if message else open_checkpoint(path)
    path.write_bytes(good[:4] + (3).to_bytes(4, "big") + good[8:])
    refused(path, "is a big-endian GGUF file, which is not read")
    place = good.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 16
    for number, message in ((16, "IQ2_XXS, which is not read; read are F32"), (999, "number 999")):
        path.write_bytes(good[:place] + number.to_bytes(4, "little") + good[place + 4 :])
        refused(path, "tensor 'token_embd.weight': is stored as", message)
    path.write_bytes(b"GGML" + good[4:])
    refused(path, "expected the magic number b'GGUF', found b'GGML'")


def test_rope_factors_of_unknown_origin(tmp_path, make_config, make_tensors, lazy):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    config = make_config(rope_scaling=scaling, rope_theta=500000.0, head_dim=64)
    path = tmp_path / "model.gguf"
    write_gguf(path, config=config, tensors=lazy(make_tensors(config)), metadata={})
    good = path.read_bytes()
    foreign = good.replace(b"puna.rope_scaling", b"else.rope_scaling")  # as others write it
    path.write_bytes(foreign)
    assert open_checkpoint(path).config["rope_scaling"] == scaling
    factors = llama3_factors(config).numpy().tobytes()
    path.write_bytes(foreign.replace(factors, factors[:-4] + b"\0\0\x40\x40"))
    refused(path, "'rope_freqs.weight': the factors are those of no known rope scaling")


# --- what a layout cannot express ---

REFUSED = {
    "attention_bias": ({"attention_bias": True}, "attention_bias = True: its modules have no bi"),
    "mlp_bias": ({"mlp_bias": True}, "mlp_bias = True"),
    "head_dim": ({"head_dim": 32}, "head_dim = 32: its heads have hidden_size / num_attention"),
    "linear": (
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        "rope_scaling.rope_type = linear: it knows llama3 only",
    ),
    "window": (
        {"model_type": "mistral", "sliding_window": 16},
        "cannot express sliding_window = 16",
    ),
}


@pytest.mark.parametrize("field", REFUSED)
def test_meta_refuses_by_the_name_of_the_field(field, tmp_path, make_config):
    changes, message = REFUSED[field]
    with pytest.raises(InputError) as caught:
        write_meta(tmp_path, config=make_config(**changes), tensors=[], files={})
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_writers_refuse_what_does_not_divide(tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    with pytest.raises(InputError, match="num_attention_heads = 4 does not divide into 3 shards"):
        write_meta(tmp_path, config=config, tensors=[], files={}, shards=3)
    odd = make_config(hidden_size=48, head_dim=16)
    tensors = lazy(make_tensors(odd))
    with pytest.raises(InputError, match="rows of 48 values do not divide into Q8_0's blocks of"):
        write_gguf(tmp_path / "m", config=odd, tensors=tensors, metadata={}, dtype="Q8_0")
    with pytest.raises(InputError, match="cannot write GGUF as 'Q4_K'; written are F32, F16"):
        write_gguf(tmp_path / "m", config=config, tensors=[], metadata={}, dtype="Q4_K")
    with pytest.raises(InputError, match=r"cannot write the side file '\.\./x'"):
        write_hf(tmp_path, config=config, tensors=[], files={"../x": b""})


# --- nothing half written ---


def full_disk():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_nothing(tmp_path, make_config, make_tensors, lazy, monkeypatch):
    config = make_config()
    tensors = lazy(make_tensors(config))
    broken = [*tensors[:-1], replace(tensors[-1], load=full_disk)]
    for write in (write_hf, write_meta):
        with (
            pytest.raises(InputError, match="could not be written: No space left on device"),
            writing_folder(tmp_path / "out") as folder,
        ):
            write(folder, config=config, tensors=broken, files={})
    with pytest.raises(InputError, match="No space left"), writing_file(tmp_path / "out") as path:
        write_gguf(path, config=config, tensors=broken, metadata={})
    assert not list(tmp_path.iterdir())


def test_torch_save_on_a_full_disk_is_an_os_error(monkeypatch, make_config, make_tensors, lazy):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    from puna.store.meta_writer import _save

    with pytest.raises(OSError, match="No space left on device"):
        _save({"x": torch.ones(1 << 20)}, full)


def test_killed_while_writing_leaves_nothing_at_the_target(write_folder, tmp_path):
    code = (
        "import os, signal, sys, pathlib, dataclasses\n"
        "from puna.artifact import writing_folder\n"
        "from puna.store import open_checkpoint, write_hf\n"
        "c = open_checkpoint(pathlib.Path(sys.argv[1]))\n"
        "def die(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "t = list(c.tensors.values())\n"
        "t[-1] = dataclasses.replace(t[-1], load=die)\n"
        "with writing_folder(pathlib.Path(sys.argv[2])) as f:\n"
        "    write_hf(f, config=c.config, tensors=t, files={})\n"
    )
    target = tmp_path / "target"
    arguments = [sys.executable, "-c", code, str(write_folder()), str(target)]
    assert subprocess.run(arguments, check=False, timeout=60).returncode == -signal.SIGKILL
    assert not target.exists()
