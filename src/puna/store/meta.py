"""Reading Meta's layout: params.json and consolidated.NN.pth, merged over the shards.

Meta cuts every matrix over its model-parallel ranks: `consolidated.NN.pth` holds rank NN's part.
The embedding is cut by columns in LLaMA 1 and 2 and by rows since Llama 3; its shape says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from puna.errors import InputError
from puna.store.checkpoint import Checkpoint, LazyTensor
from puna.store.config import default_generation
from puna.store.files import read_object
from puna.store.hf import read_tokenizer_files
from puna.store.meta_config import SIDE_FILE, config_from_params
from puna.store.names import META, rotary_heads, to_halves
from puna.store.pickled import PickledFile
from puna.store.ties import tie_head

EMBEDDING: Final = "tok_embeddings.weight"
HEAD: Final = "output.weight"
AXES: Mapping[str, int] = {
    "wq": 0,
    "wk": 0,
    "wv": 0,
    "w1": 0,
    "w3": 0,
    "output": 0,
    "wo": 1,
    "w2": 1,
}
"""The dimension that a module's weight is cut along; norms are in every shard, whole."""

_DERIVED = ("rope.freqs",)  # a buffer that LLaMA 1 and 2 saved; params.json says all it holds


def read_meta(folder: Path) -> Checkpoint:
    """Open a Meta folder; query and key rows come in Hugging Face's order.

    A folder that puna wrote says in a side file whether its head is tied. In others a head that
    equals the embedding bit for bit is taken as tied: the values that tell are read then.

    Raises:
        InputError: A shard is missing or damaged, shards disagree, or params.json contradicts
            the weights or has a field that is not of a LLaMA.
    """
    files = [PickledFile(path) for path in _shards(folder)]
    shapes = _merged_shapes(files)
    side = folder / SIDE_FILE
    config = config_from_params(
        read_object(folder / "params.json"),
        {name: shape for name, (shape, _) in shapes.items()},
        read_object(side) if side.exists() else None,
        partial(_is_tied, files, shapes),
        folder,
    )
    tensors: dict[str, LazyTensor] = {}
    for name, (shape, axis) in shapes.items():
        renamed = META.to_hf(name) or name
        heads = rotary_heads(renamed, config)
        dtype = files[0].tensors()[name].dtype
        tensors[renamed] = LazyTensor(
            name=renamed,
            shape=shape,
            dtype=dtype,
            stored=str(dtype).removeprefix("torch."),
            load=partial(_merge, files, name, axis, heads),
            file=files[0].path,
            release=partial(_release, files),
        )
    _release(files)
    return Checkpoint(
        path=folder,
        format="meta",
        config=config,
        tensors=tie_head(tensors) if config["tie_word_embeddings"] else tensors,
        tokenizer=read_tokenizer_files(folder, folder.parent),
        generation_config=_generation_config(folder, config),
    )


_Shapes = Mapping[str, tuple[tuple[int, ...], int | None]]
"""By Meta's name: the merged shape, and the dimension that was cut."""


def _shards(folder: Path) -> list[Path]:
    found = sorted(folder.glob("consolidated.*.pth"))
    expected = [folder / f"consolidated.{n:02d}.pth" for n in range(max(len(found), 1))]
    if found != expected:
        missing = next(path.name for path in expected if path not in found)
        raise InputError(
            f"{missing} is missing; found {', '.join(path.name for path in found) or 'no shard'}",
            where=folder,
            fix="fetch all shards of the model",
        )
    return found


def _merged_shapes(files: list[PickledFile]) -> dict[str, tuple[tuple[int, ...], int | None]]:
    first = {name: t for name, t in files[0].tensors().items() if name not in _DERIVED}
    for file in files[1:]:
        _check_alike(first, file)
    width = max(
        (t.shape[0] for name, t in first.items() if name.endswith("norm.weight")), default=0
    )
    shapes: dict[str, tuple[tuple[int, ...], int | None]] = {}
    for name, tensor in first.items():
        shape, axis = list(tensor.shape), AXES.get(name.split(".")[-2] if "." in name else name)
        if name == EMBEDDING:
            axis = 0 if shape[-1] == width else 1
        if axis is not None and axis < len(shape) and len(files) > 1:
            shape[axis] *= len(files)
        else:
            axis = None
        shapes[name] = (tuple(shape), axis)
    return shapes


def _check_alike(first: Mapping[str, torch.Tensor], file: PickledFile) -> None:
    tensors = {name: t for name, t in file.tensors().items() if name not in _DERIVED}
    if odd := sorted(set(first) ^ set(tensors)):
        raise InputError(
            f"tensor {odd[0]!r} is in one shard and not in another",
            where=file.path,
            fix="the shards are not of one model; fetch them again",
        )
    for name, tensor in tensors.items():
        if tensor.shape != first[name].shape or tensor.dtype != first[name].dtype:
            raise InputError(
                f"tensor {name!r}: expected {list(first[name].shape)} of {first[name].dtype} as "
                f"in the first shard, found {list(tensor.shape)} of {tensor.dtype}",
                where=file.path,
                fix="the shards are not of one model; fetch them again",
            )


def _merge(
    files: list[PickledFile], name: str, axis: int | None, heads: int | None
) -> torch.Tensor:
    if axis is None:
        tensor = files[0].load(name)
    else:
        tensor = torch.cat([file.load(name) for file in files], dim=axis)
    if heads is None:
        return tensor
    if tensor.shape[0] % (2 * heads):
        raise InputError(
            f"tensor {name!r}: {tensor.shape[0]} rows do not divide into {heads} heads",
            where=files[0].path,
        )
    return to_halves(tensor, heads)


def _release(files: list[PickledFile]) -> None:
    for file in files:
        file.release()


def _is_tied(files: list[PickledFile], shapes: _Shapes) -> bool:
    """Whether head and embedding agree; reads more than a row only if their first rows do."""
    if EMBEDDING not in shapes or HEAD not in shapes or shapes[EMBEDDING][0] != shapes[HEAD][0]:
        return False
    embedding, head = files[0].load(EMBEDDING)[0], files[0].load(HEAD)[0]
    width = min(len(embedding), len(head))  # either may be cut by columns
    if not torch.equal(embedding[:width], head[:width]):
        return False
    merged = [_merge(files, name, shapes[name][1], None) for name in (EMBEDDING, HEAD)]
    return torch.equal(merged[0], merged[1])


def _generation_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / "generation_config.json"
    return read_object(path) if path.exists() else default_generation(config, folder / SIDE_FILE)
