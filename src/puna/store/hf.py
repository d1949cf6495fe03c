"""Reading a Hugging Face folder: config.json, safetensors (or a .bin that is only tensors)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from puna.errors import InputError
from puna.store.checkpoint import Checkpoint, LazyTensor, TokenizerFiles
from puna.store.config import complete_config, default_generation
from puna.store.files import check_regular, read_object
from puna.store.pickled import read_pickled
from puna.store.safetensors import read_safetensors
from puna.store.ties import tie_head

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)

_SAFE, _BIN = "model.safetensors", "pytorch_model.bin"
# Buffers that old versions of transformers saved; the config says all that they hold.
_DERIVED = re.compile(r"(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$")


def read_hf(folder: Path, *, weights: Path | None = None) -> Checkpoint:
    """Open a Hugging Face folder.

    Args:
        folder: Holds config.json and, unless `weights` is given, the weights.
        weights: One safetensors file to read instead of those that the folder names.

    Raises:
        InputError: A file is missing or damaged, or the architecture is not of the family.
    """
    config = complete_config(read_object(folder / "config.json"), folder / "config.json")
    tensors = read_safetensors(weights) if weights else _read_weights(folder)
    kept = {name: t for name, t in tensors.items() if not _DERIVED.search(name)}
    if config["tie_word_embeddings"]:
        kept = tie_head(kept)
    generation = folder / "generation_config.json"
    return Checkpoint(
        path=weights or folder,
        format="hf",
        config=config,
        tensors=kept,
        tokenizer=read_tokenizer_files(folder),
        generation_config=(
            read_object(generation)
            if generation.exists()
            else default_generation(config, folder / "config.json")
        ),
    )


def read_tokenizer_files(*folders: Path) -> TokenizerFiles:
    """The tokenizer files that exist; where two folders have one, the first folder's."""
    files: dict[str, bytes] = {}
    for folder in reversed(folders):
        for name in TOKENIZER_FILES:
            path = folder / name
            if path.exists():
                check_regular(path)
                files[name] = path.read_bytes()
    return TokenizerFiles(files=files)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights under Hugging Face's names."""
    return any(folder.glob("*.safetensors")) or any(folder.glob(f"{Path(_BIN).stem}*.bin"))


def _read_weights(folder: Path) -> dict[str, LazyTensor]:
    """Read what is there, in this order: an index, one file, numbered files, one file by name."""
    for single in (_SAFE, _BIN):
        index = folder / f"{single}.index.json"
        if index.exists():
            return _read_indexed(index)
        if (folder / single).exists():
            return _read_file(folder / single)
    found = sorted(folder.glob("model-*-of-*.safetensors")) or sorted(folder.glob("*.safetensors"))
    if len(found) > 1 and not found[0].name.startswith("model-"):
        raise InputError(
            f"holds several files of weights and no index: {', '.join(p.name for p in found)}",
            where=folder,
            fix="name one of them instead of the folder",
        )
    if not found:
        raise InputError(
            f"holds no weights; expected {_SAFE}, {_SAFE}.index.json or {_BIN}",
            where=folder,
            fix="fetch the missing files",
        )
    tensors: dict[str, LazyTensor] = {}
    for path in found:
        _add(tensors, _read_file(path))
    return tensors


def _read_file(path: Path) -> dict[str, LazyTensor]:
    return read_pickled(path) if path.suffix == ".bin" else read_safetensors(path)


def _read_indexed(index: Path) -> dict[str, LazyTensor]:
    table = read_object(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise InputError("expected a 'weight_map' from tensor to file", where=index)
    tensors: dict[str, LazyTensor] = {}
    for name in dict.fromkeys(table.values()):
        path = index.parent / name
        if Path(name).name != name or path.suffix not in (".safetensors", ".bin"):
            raise InputError(f"{name!r} is not the name of a file of weights", where=index)
        if not path.exists():
            raise InputError(f"the index names {name}, which is missing", where=index.parent)
        _add(tensors, _read_file(path))
    for name, file in table.items():
        if name not in tensors or tensors[name].file != index.parent / file:
            raise InputError(
                f"tensor {name!r}: expected in {file}, found "
                + (f"in {tensors[name].file}" if name in tensors else "nowhere"),
                where=index,
            )
    return tensors


def _add(tensors: dict[str, LazyTensor], more: Mapping[str, LazyTensor]) -> None:
    for name, tensor in more.items():
        if name in tensors:
            raise InputError(
                f"tensor {name!r} is in two files, {tensors[name].file} and here",
                where=tensor.file,
            )
        tensors[name] = tensor
