"""A checkpoint in another format, streamed tensor by tensor, and proved to be the same model."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from puna.artifact import (
    MANIFEST,
    TensorDigest,
    digest_file,
    find_manifest,
    format_bytes,
    manifest,
    manifest_path,
    model_identity,
    read_json,
    write_json,
    writing_file,
    writing_folder,
)
from puna.errors import InputError
from puna.flows.opening import checkpoint_tokenizer, read_config
from puna.flows.verify import Verdict, verify
from puna.store import Checkpoint, LazyTensor, open_checkpoint
from puna.store.gguf_writer import write_gguf
from puna.store.hf_writer import write_hf
from puna.store.meta_writer import write_meta
from puna.store.values import digest_lazy
from puna.tokens import Tokenizer

Target = Literal["hf", "meta", "gguf"]
DtypeChoice = Literal["keep", "float32", "float16", "bfloat16", "q8_0"]
_TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_GGUF = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert."""

    to: Target
    """Format of the product: hf (Hugging Face folder), meta (Meta's folder) or gguf (one file)."""
    dtype: DtypeChoice = "keep"
    """Of the product's matrices; keep is that of the source, float32 for quantized sources."""
    shards: int = 1
    """Model-parallel shards of a Meta folder."""
    max_shard_bytes: int = 5_000_000_000
    """Size that a safetensors file does not exceed, bytes."""
    verify: bool = True
    """Compare source and product on fixed prompts before saying done."""
    force: bool = False
    """Replace what is at the target."""


@dataclass(frozen=True)
class Converted:
    """What a conversion made."""

    path: Path
    manifest: Mapping[str, Any]
    verdict: Verdict | None  # None with verify=False
    seconds: float


def convert(
    source_path: Path,
    target: Path,
    options: ConvertOptions,
    *,
    progress: Callable[[str, int, int], None],
) -> Converted:
    """Convert a checkpoint.

    Args:
        source_path: Any checkpoint that `puna.store.open_checkpoint` reads.
        target: A folder (hf, meta) or file (gguf) to make.
        options: The format and dtype.
        progress: Called with (what, done, total) after each tensor and each compared part.

    Raises:
        InputError: The source is damaged, the target is taken or cannot express the model, the
            disk is full, or the product is not the same model. Nothing is left at the target.
    """
    began = time.perf_counter()
    source = open_checkpoint(source_path)
    tokenizer = _tokenizer(source)
    dtype, rounding = _plan_dtype(source, options)
    _check_target(source, target, options, dtype)
    writing = writing_file if options.to == "gguf" else writing_folder
    with writing(target, force=options.force) as place, _named(target, place):
        digests = _write(source, tokenizer, place, options, dtype, progress)
        verdict = None
        if options.verify:
            product = open_checkpoint(place)
            verdict = _verify(source, product, tokenizer, rounding, progress)
        parents = _parents(source, digests, rounding)
        told = _manifest(source, place, options, dtype, digests, parents, verdict, began)
        if options.to != "gguf":
            write_json(place / MANIFEST, told)
    if options.to == "gguf":
        with writing_file(manifest_path(target, folder=False), force=True) as place:
            write_json(place, told)
    return Converted(target, told, verdict, time.perf_counter() - began)


@contextlib.contextmanager
def _named(target: Path, place: Path) -> Iterator[None]:
    """Let errors name the target, not the temporary place beside it."""
    try:
        yield
    except InputError as error:
        if error.where is None or not str(error.where).startswith(str(place)):
            raise
        raise InputError(error.what, where=target, fix=error.fix) from error


def _tokenizer(source: Checkpoint) -> Tokenizer | None:
    if not source.tokenizer.files and not source.tokenizer.gguf:
        return None
    return checkpoint_tokenizer(source, read_config(source))


def _plan_dtype(source: Checkpoint, options: ConvertOptions) -> tuple[str, str]:
    """The product's dtype, and what rounding it may cost (a key of `verify.KL_BOUNDS`)."""
    kinds = {tensor.dtype for tensor in source.tensors.values()}
    widest = max(kinds, key=lambda kind: kind.itemsize)
    names = {kind: name for name, kind in _TORCH.items()}
    if widest not in names:
        raise InputError(f"has weights in {widest}", where=source.path, fix="name a --dtype")
    wanted = names[widest] if options.dtype == "keep" else options.dtype
    if wanted == "q8_0" and options.to != "gguf":
        raise InputError(f"q8_0 belongs to GGUF, not to {options.to}", fix="--dtype float16")
    if wanted == "q8_0":
        return wanted, "q8_0"
    widens = all(kind == _TORCH[wanted] or _TORCH[wanted] == torch.float32 for kind in kinds)
    return wanted, "exact" if widens else wanted


def _check_target(source: Checkpoint, target: Path, options: ConvertOptions, dtype: str) -> None:
    if options.shards != 1 and options.to != "meta":
        raise InputError("--shards belongs to --to meta")
    if options.to == "gguf" and target.suffix != ".gguf":
        raise InputError("a GGUF product is one file ending in .gguf", where=target)
    if options.to != "gguf" and target.suffix in (".gguf", ".safetensors", ".pth"):
        raise InputError(f"a product in the format {options.to} is a folder", where=target)
    if options.to == "gguf" and target.is_file() and _magic(target) != b"GGUF":
        raise InputError(
            "is no GGUF file; --force does not replace it", where=target, fix="choose another path"
        )
    if target.resolve() == source.path.resolve():
        raise InputError("source and target are the same place", where=target)
    width = {"float32": 4.0, "q8_0": 34 / 32}.get(dtype, 2.0)
    scalars = sum(tensor.nbytes // tensor.dtype.itemsize for tensor in source.tensors.values())
    existing = next(parent for parent in target.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if scalars * width > free:
        raise InputError(
            f"the product needs about {format_bytes(scalars * width)}, "
            f"the disk has {format_bytes(free)} left",
            where=target,
            fix="free some space, choose another disk, or a smaller --dtype",
        )


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _write(
    source: Checkpoint,
    tokenizer: Tokenizer | None,
    place: Path,
    options: ConvertOptions,
    dtype: str,
    progress: Callable[[str, int, int], None],
) -> list[TensorDigest]:
    total = len(source.tensors) * options.shards
    tensors = list(_watched(source.tensors, lambda done: progress("writing", done, total)))
    if options.to == "gguf":
        metadata = {} if tokenizer is None else tokenizer.to_gguf()
        metadata["general.name"] = source.path.stem
        return write_gguf(
            place, config=source.config, tensors=tensors, metadata=metadata, dtype=_GGUF[dtype]
        )
    files = _side_files(source, tokenizer)
    if options.to == "meta":
        return write_meta(
            place,
            config=source.config,
            tensors=tensors,
            files=files,
            dtype=_TORCH[dtype],
            shards=options.shards,
        )
    return write_hf(
        place,
        config=source.config,
        tensors=tensors,
        files=files,
        generation_config=source.generation_config,
        dtype=_TORCH[dtype],
        max_shard_bytes=options.max_shard_bytes,
    )


def _side_files(source: Checkpoint, tokenizer: Tokenizer | None) -> dict[str, bytes]:
    """The source's own files where it has them, completed by what transformers reads."""
    made = {} if tokenizer is None else tokenizer.to_files()
    return {**made, **source.tokenizer.files}


def _watched(
    tensors: Mapping[str, LazyTensor], report: Callable[[int], None]
) -> Iterator[LazyTensor]:
    count = 0

    def watch(tensor: LazyTensor) -> LazyTensor:
        def load() -> torch.Tensor:
            nonlocal count
            values = tensor.load()
            count += 1
            report(count)
            return values

        return dataclasses.replace(tensor, load=load)

    for tensor in tensors.values():
        yield watch(tensor)


def _verify(
    source: Checkpoint,
    product: Checkpoint,
    tokenizer: Tokenizer | None,
    rounding: str,
    progress: Callable[[str, int, int], None],
) -> Verdict:
    parts = 2 * (int(source.config["num_hidden_layers"]) + 2)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress("comparing", done, parts)

    both = (tokenizer, _tokenizer(product))
    return verify(source, product, tokenizers=both, rounding=rounding, tick=tick)


def _parents(source: Checkpoint, digests: list[TensorDigest], rounding: str) -> list[str]:
    place = find_manifest(source.path)
    if place is not None:
        with contextlib.suppress(KeyError, TypeError):
            return [str(read_json(place)["digest"])]
    exact = rounding == "exact" and all(
        str(t.dtype).endswith(d.dtype)
        for t, d in zip(source.tensors.values(), digests, strict=False)
    )
    same = digests if exact else [digest_lazy(t) for t in source.tensors.values()]
    return [f"model {model_identity(same)}"]


def _manifest(
    source: Checkpoint,
    place: Path,
    options: ConvertOptions,
    dtype: str,
    digests: list[TensorDigest],
    parents: list[str],
    verdict: Verdict | None,
    began: float,
) -> dict[str, Any]:
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    names = {file: "weights" if place.is_file() else str(file.relative_to(place)) for file in files}
    return manifest(
        "checkpoint",
        config={
            "made by": "convert",
            "from": source.format,
            "to": options.to,
            "dtype": dtype,
            "verified": verdict is not None,
            "model": model_identity(digests),
        },
        parents=parents,
        files={names[file]: digest_file(file) for file in files},
        measured={
            "seconds": round(time.perf_counter() - began, 3),
            "host": f"{platform.system()} {platform.machine()}",
            "comparison": None if verdict is None else verdict.to_dict(),
        },
    )
