"""Which format is it? One door for every checkpoint on disk."""

from __future__ import annotations

from pathlib import Path

from puna.errors import InputError
from puna.store.checkpoint import Checkpoint
from puna.store.checks import check_tensors
from puna.store.files import check_regular
from puna.store.gguf import read_gguf
from puna.store.hf import has_weights, read_hf
from puna.store.meta import read_meta

_KNOWN = "a Hugging Face folder, a Meta folder, a .gguf or a .safetensors file"


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint of any known format; names and shapes are checked, values not read.

    Args:
        path: A Hugging Face folder (config.json and weights), a Meta folder (params.json and
            consolidated.NN.pth), a .gguf file, a folder with exactly one of them, or a
            .safetensors file with a config.json beside it.

    Raises:
        InputError: There is no such checkpoint, it is damaged, its architecture is unknown, or
            its weights contradict its config.
    """
    if not path.exists():
        raise InputError("does not exist", where=path, fix=f"name {_KNOWN}")
    checkpoint = _open_folder(path) if path.is_dir() else _open_file(path)
    check_tensors(checkpoint)
    return checkpoint


def _open_file(path: Path) -> Checkpoint:
    check_regular(path)
    if path.suffix == ".gguf" or _magic(path) == b"GGUF":
        return read_gguf(path)
    if path.suffix == ".safetensors":
        if not (path.parent / "config.json").is_file():
            raise InputError(
                "there is no config.json beside it, which says what the weights mean",
                where=path,
                fix="fetch the config.json of the model into the same folder",
            )
        return read_hf(path.parent, weights=path)
    raise InputError(
        f"is not a checkpoint that puna knows; expected {_KNOWN}",
        where=path,
        fix="for a .bin or .pth file, name its folder",
    )


def _open_folder(path: Path) -> Checkpoint:
    has_config = (path / "config.json").exists()
    if has_config and has_weights(path):
        return read_hf(path)
    if (path / "params.json").exists():
        return read_meta(path)
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return read_gguf(ggufs[0])
    if ggufs:
        names = ", ".join(file.name for file in ggufs)
        raise InputError(
            f"holds {len(ggufs)} GGUF files: {names}", where=path, fix="name one of them"
        )
    if has_config:
        return read_hf(path)  # says which weights it looked for
    raise InputError(
        "holds neither config.json with weights, nor params.json, nor a .gguf file",
        where=path,
        fix=f"name {_KNOWN}",
    )


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
