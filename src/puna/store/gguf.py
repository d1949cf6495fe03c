"""Reading GGUF: tensors under Hugging Face's names, decoded to float when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from puna.errors import InputError
from puna.store.checkpoint import Checkpoint, LazyTensor, TokenizerFiles
from puna.store.gguf_config import ROPE_FREQS, config_from_metadata, generation_from_metadata
from puna.store.gguf_header import TensorInfo, parse_gguf
from puna.store.gguf_quants import dequantize
from puna.store.mapped import MappedFile
from puna.store.names import GGUF, rotary_heads, to_halves

PLAIN: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def read_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file of architecture `llama`.

    Quantized tensors load as float32, others in their own dtype. Rows of query and key
    projections come in Hugging Face's order.

    Raises:
        InputError: The file is damaged, of another architecture, or stored in types that are
            not read.
    """
    file = MappedFile(path)
    header = parse_gguf(file.data, file.nbytes, path)
    infos = {info.name: info for info in header.tensors}
    factors = None
    if ROPE_FREQS in infos:
        factors = _values(file, infos[ROPE_FREQS], None).float()
    config = config_from_metadata(header.metadata, infos, factors, path)
    tensors: dict[str, LazyTensor] = {}
    for info in header.tensors:
        if info.name == ROPE_FREQS:
            continue
        # A name that the table does not have stays as it is: check_tensors reports it as extra.
        name = GGUF.to_hf(info.name) or info.name
        tensors[name] = _lazy(file, info, name, rotary_heads(name, config))
    metadata = header.metadata
    return Checkpoint(
        path=path,
        format="gguf",
        config=config,
        tensors=tensors,
        tokenizer=TokenizerFiles(
            gguf={key: v for key, v in metadata.items() if key.startswith("tokenizer.")}
        ),
        generation_config=generation_from_metadata(metadata, config, path),
    )


def _lazy(file: MappedFile, info: TensorInfo, name: str, heads: int | None) -> LazyTensor:
    return LazyTensor(
        name=name,
        shape=info.shape,
        dtype=PLAIN.get(info.stored, torch.float32),
        stored=info.stored,
        load=partial(_values, file, info, heads),
        file=file.path,
        release=partial(file.release, info.start, info.nbytes),
    )


def _values(file: MappedFile, info: TensorInfo, heads: int | None) -> torch.Tensor:
    dtype = PLAIN.get(info.stored)
    if dtype is not None:
        tensor = file.tensor(info.start, info.shape, dtype)
    else:
        raw = file.tensor(info.start, (info.nbytes,), torch.uint8)
        tensor = dequantize(raw, info.stored).view(info.shape)
    if heads is None:
        return tensor
    if info.shape[0] % (2 * heads):
        raise InputError(
            f"tensor {info.name!r}: {info.shape[0]} rows do not divide into {heads} heads",
            where=file.path,
        )
    return to_halves(tensor, heads)
