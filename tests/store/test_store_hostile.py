"""Files that are no files, tensors that are no values, names that are paths."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from puna.errors import InputError
from puna.store import open_checkpoint, write_meta


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        open_checkpoint(path)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def replaced(file: Path, kind: str) -> None:
    file.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(file)
    elif kind == "a folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
    ],
)
def test_a_hugging_face_folder_with_what_is_no_file(name, kind, write_folder):
    folder = write_folder()
    replaced(folder / name, kind)
    refused(folder, f"{name}: is {kind}; expected a regular file")


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
@pytest.mark.parametrize("name", ["params.json", "puna.json", "consolidated.00.pth"])
def test_a_meta_folder_with_what_is_no_file(name, kind, tmp_path, make_config, make_tensors, lazy):
    config = make_config()
    write_meta(tmp_path, config=config, tensors=lazy(make_tensors(config)), files={})
    replaced(tmp_path / name, kind)
    refused(tmp_path, f"{name}: is {kind}; expected a regular file")


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
@pytest.mark.parametrize("name", ["model.gguf", "x.safetensors", "x"])
def test_a_path_that_is_no_file(name, kind, tmp_path):
    replaced(tmp_path / name, kind)
    refused(tmp_path / name, f"{name}: is {kind}; expected a regular file")
    if name == "model.gguf":
        refused(tmp_path, f"{name}: is {kind}; expected a regular file")


def test_a_link_to_a_file_is_a_file(write_folder):
    """The cache of huggingface_hub is made of links."""
    folder = write_folder()
    (folder / "model.safetensors").rename(folder / "blob")
    (folder / "model.safetensors").symlink_to("blob")
    assert open_checkpoint(folder).format == "hf"


ODD_TENSORS = {
    "sparse": (lambda t: t.to_sparse(), "found a sparse tensor (sparse_coo)"),
    "meta": (lambda t: t.to("meta"), "a tensor on the device 'meta', without values"),
    "nested": (lambda t: torch.nested.nested_tensor([t]), "found a nested tensor"),
    "expanded": (
        lambda t: torch.zeros(1).expand(1 << 40, 1 << 10),
        "4 bytes of values where shape [1099511627776, 1024] takes 4503599627370496",
    ),
}


@pytest.mark.parametrize("odd", ODD_TENSORS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_pickled_tensors_without_all_their_values(odd, write_folder):
    folder = write_folder()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    change, message = ODD_TENSORS[odd]
    name = "model.norm.weight"
    torch.save({**tensors, name: change(tensors[name])}, folder / "pytorch_model.bin")
    refused(folder, f"pytorch_model.bin: tensor {name!r}: expected a dense tensor", message)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "sub/x.safetensors",
        "/secret.safetensors",
        "./model.safetensors",
        "x.safetensors/",
        "..",
        "",
        "config.json",
    ],
)
def test_an_index_cannot_name_a_path(name, write_folder):
    folder = write_folder()
    secret = folder.parent / "secret.safetensors"
    secret.write_bytes((folder / "model.safetensors").read_bytes())
    table = dict.fromkeys(load_file(folder / "model.safetensors"), name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    refused(folder, f"index.json: {name!r} is not the name of a file of weights")


def test_a_name_that_no_file_can_have(write_folder):
    folder = write_folder()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "\0.safetensors"}}))
    refused(folder, "which is missing")
