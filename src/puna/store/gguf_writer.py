"""Writing GGUF version 3 as a stream: metadata, tensor descriptions, then one tensor at a time."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch

from puna.artifact import TensorDigest
from puna.errors import InputError
from puna.store.checkpoint import LazyTensor
from puna.store.config import complete_config
from puna.store.gguf import PLAIN
from puna.store.gguf_config import (
    ROPE_FREQS,
    generation_to_metadata,
    llama3_factors,
    metadata_from_config,
)
from puna.store.gguf_header import ARRAY, DEFAULT_ALIGNMENT, SCALARS, STRING, TENSOR_TYPES
from puna.store.gguf_quants import BLOCKS, dequantize, quantize_q8_0
from puna.store.names import GGUF, rotary_heads, to_pairs
from puna.store.values import digest_tensor, load_checked, raw_bytes

WRITABLE: Final = ("F32", "F16", "BF16", "Q8_0")

_FILE_TYPES: Mapping[str, int] = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
_TYPE_NUMBERS: Mapping[str, int] = {name: n for n, (name, _, _) in TENSOR_TYPES.items()}
_SCALAR_NUMBERS: Mapping[str, int] = {letter: n for n, letter in SCALARS.items()}


@dataclass(frozen=True)
class _Plan:
    """A tensor and where it goes."""

    source: LazyTensor
    name: str  # GGUF's
    stored: str
    heads: int | None  # rows to be permuted for so many heads
    nbytes: int


def write_gguf(
    path: Path,
    *,
    config: Mapping[str, Any],
    tensors: Iterable[LazyTensor],
    metadata: Mapping[str, Any],
    dtype: str = "F32",
    generation_config: Mapping[str, Any] | None = None,
) -> list[TensorDigest]:
    """Write a GGUF file that llama.cpp loads; one tensor is in memory at a time.

    Norms and biases are always F32, as llama.cpp asks.

    Args:
        path: The file to write, as `puna.artifact.writing_file` gives.
        config: The keys of config.json.
        tensors: Under Hugging Face's names; a tied head is left out by the caller.
        metadata: Further metadata, as plain values: `tokenizer.*`, `general.name` ... Whole
            numbers are written as 32-bit where they fit, lists with the type of their elements.
        dtype: F32, F16, BF16 or Q8_0.
        generation_config: The keys of generation_config.json, noted under a key of puna's own;
            none or empty notes nothing.

    Returns:
        Digests of the values as a reader gets them: Hugging Face's row order, quantized tensors
        as float32.

    Raises:
        InputError: GGUF cannot express the config, rows do not divide into blocks, or a value is
            not finite or does not fit `dtype`.
    """
    if dtype not in WRITABLE:
        raise InputError(f"cannot write GGUF as {dtype!r}; written are {', '.join(WRITABLE)}")
    config = complete_config(dict(config), path)
    rows = metadata_from_config(config, path) | _general(dtype) | dict(metadata)
    rows |= generation_to_metadata(generation_config, path)
    listed = list(tensors)
    scaling = config.get("rope_scaling")
    if scaling and scaling["rope_type"] == "llama3":
        listed.append(_rope_tensor(llama3_factors(config)))
    plans = [_plan(tensor, dtype, config) for tensor in listed]
    with path.open("wb") as file:
        file.write(_header(rows, plans, path))
        return [d for plan in plans for d in _write_tensor(file, plan)]


def _general(dtype: str) -> dict[str, Any]:
    general: dict[str, Any] = {"general.type": "model", "general.file_type": _FILE_TYPES[dtype]}
    return general | ({"general.quantization_version": 2} if dtype == "Q8_0" else {})


def _rope_tensor(factors: torch.Tensor) -> LazyTensor:
    return LazyTensor(
        ROPE_FREQS, tuple(factors.shape), torch.float32, "F32", partial(_same, factors)
    )


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _plan(tensor: LazyTensor, dtype: str, config: Mapping[str, Any]) -> _Plan:
    stored = dtype if len(tensor.shape) > 1 else "F32"
    values, nbytes = BLOCKS[stored]
    if tensor.shape[-1] % values:
        raise InputError(
            f"tensor {tensor.name!r}: rows of {tensor.shape[-1]} values do not divide into "
            f"{stored}'s blocks of {values}",
            where=tensor.file,
            fix="write F16 or F32",
        )
    name = tensor.name if tensor.name == ROPE_FREQS else GGUF.from_hf(tensor.name)
    size = math.prod(tensor.shape) // values * nbytes
    return _Plan(tensor, name, stored, rotary_heads(tensor.name, config), size)


def _write_tensor(file: BinaryIO, plan: _Plan) -> list[TensorDigest]:
    name = plan.source.name
    values = load_checked(plan.source, PLAIN.get(plan.stored, torch.float32))
    if plan.stored == "Q8_0":
        # Blocks lie within rows, so quantizing and permuting rows commute: one quantizing serves
        # both the file and the digest of what a reader gets.
        blocks = quantize_q8_0(values)
        del values
        values = dequantize(blocks, "Q8_0").view(plan.source.shape)
        written = blocks.view(plan.source.shape[0], -1)
    else:
        written = values
    if plan.heads is not None:
        written = to_pairs(written, plan.heads)
    file.write(raw_bytes(written))
    file.write(bytes(-plan.nbytes % DEFAULT_ALIGNMENT))
    digests = [] if name == ROPE_FREQS else [digest_tensor(name, values)]
    plan.source.release()
    return digests


def _header(rows: Mapping[str, Any], plans: list[_Plan], where: Path) -> bytes:
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(plans), len(rows))]
    for key, value in rows.items():
        kind, packed = _pack(value, f"{where}: {key}")
        parts += [_string(key), struct.pack("<I", kind), packed]
    offset = 0
    for plan in plans:
        shape = plan.source.shape[::-1]
        kind = _TYPE_NUMBERS[plan.stored]
        layout = f"<I{len(shape)}QIQ"
        parts += [_string(plan.name), struct.pack(layout, len(shape), *shape, kind, offset)]
        offset += -(-plan.nbytes // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    header = b"".join(parts)
    return header + bytes(-len(header) % DEFAULT_ALIGNMENT)


def _string(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(8, "little") + data


def _pack(value: Any, where: str) -> tuple[int, bytes]:
    """A metadata value: its type's number and its bytes."""
    if isinstance(value, str):
        return STRING, _string(value)
    if isinstance(value, (list, tuple)):
        return ARRAY, _pack_array(value, where)
    letter = _letter([value], where, scalar=True)
    return _SCALAR_NUMBERS[letter], struct.pack("<" + letter, value)


def _pack_array(values: list[Any] | tuple[Any, ...], where: str) -> bytes:
    if all(isinstance(value, str) for value in values):  # an empty one reads as text
        head = struct.pack("<IQ", STRING, len(values))
        return head + b"".join(map(_string, values))
    letter = _letter(values, where)
    head = struct.pack("<IQ", _SCALAR_NUMBERS[letter], len(values))
    return head + struct.pack(f"<{len(values)}{letter}", *values)


def _letter(values: list[Any] | tuple[Any, ...], where: str, *, scalar: bool = False) -> str:
    """The type that holds all values: counts are unsigned, token types and scores signed."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "?"
    if kinds == {int}:
        low, high = min(values), max(values)
        if scalar and low >= 0:
            return "I" if high < 2**32 else "Q"
        return "i" if low >= -(2**31) and high < 2**31 else "q"
    if kinds <= {int, float}:
        return "f"
    raise InputError(f"cannot write a {type(values[0]).__name__} as metadata", where=where)
