"""A checkpoint in another format, streamed tensor by tensor, and proved to be the same model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from puna.artifact import (
    MANIFEST,
    TensorDigest,
    check_free,
    format_bytes,
    manifest_path,
    model_identity,
    read_manifest,
    write_json,
    writing_file,
    writing_folder,
)
from puna.errors import InputError
from puna.flows.lineage import describe, parents
from puna.flows.opening import tokenizer_if_any
from puna.flows.products import Asking, asking_files, asking_metadata, checkpoint_asking
from puna.flows.verify import Verdict, verify
from puna.store import Checkpoint, LazyTensor, open_checkpoint
from puna.store.gguf_writer import write_gguf
from puna.store.hf_writer import write_hf
from puna.store.meta_writer import write_meta
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
    """Of the product's matrices; keep is that of the source's, float32 for quantized sources."""
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


@dataclass(frozen=True)
class Origin:
    """What a manifest tells of where a product comes from."""

    made_by: str
    """The verb."""
    config: Mapping[str, Any]
    """What was asked for, beside format and dtype; part of the identity."""
    parents: tuple[str, ...] | None = None
    """Identities of what it was made from; None: of the checkpoint that is written."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Further figures; not part of the identity."""
    asking: Asking | None = None
    """How the model was taught to be asked, which the product keeps."""


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
    source = open_checkpoint(source_path)
    origin = Origin("convert", {"from": source.format}, asking=checkpoint_asking(source))
    return write_product(source, target, options, origin, progress=progress)


def write_product(
    source: Checkpoint,
    target: Path,
    options: ConvertOptions,
    origin: Origin,
    *,
    progress: Callable[[str, int, int], None],
) -> Converted:
    """Write an opened checkpoint, on disk or in memory, and compare the product with it.

    Raises:
        InputError: See `convert`.
    """
    began = time.perf_counter()
    tokenizer = tokenizer_if_any(source)
    plan = _plan(source, options)
    target = _check_target(source, target, options)
    _check_room(source, target, plan)
    with _places(target, options) as (place, beside), _named(target, place):
        digests = _write(source, tokenizer, place, options, plan, origin.asking, progress)
        verdict = None
        if options.verify:
            product = open_checkpoint(place)
            verdict = _verify(source, product, tokenizer, plan.rounding, progress)
        told = describe(
            place,
            config={
                "made by": origin.made_by,
                **origin.config,
                "to": options.to,
                "dtype": plan.dtype,
                "verified": verdict is not None,
                "model": model_identity(digests),
            },
            parents=origin.parents or parents(source, digests, exact=plan.rounding == "exact"),
            verdict=verdict,
            began=began,
            measured=origin.measured,
        )
        write_json(beside, told)
    return Converted(target, told, verdict, time.perf_counter() - began)


@contextlib.contextmanager
def _places(target: Path, options: ConvertOptions) -> Iterator[tuple[Path, Path]]:
    """Yield the place of the product and that of its manifest, both temporary.

    A GGUF file and its manifest are two files, and no system renames two at once. Both are whole
    before either appears; the manifest follows the file by a rename. A process killed between
    the two leaves an older manifest, or none, beside the new file: such a manifest names another
    model, by which its readers can tell.
    """
    if options.to != "gguf":
        with writing_folder(target, force=options.force) as place:
            yield place, place / MANIFEST
        return
    beside = manifest_path(target, folder=False)
    with (
        writing_file(beside, force=options.force) as told,
        writing_file(target, force=options.force) as place,
    ):
        yield place, told


@contextlib.contextmanager
def _named(target: Path, place: Path) -> Iterator[None]:
    """Let errors name the target, not the temporary place beside it."""
    try:
        yield
    except InputError as error:
        if error.where is None or not str(error.where).startswith(str(place)):
            raise
        raise InputError(error.what, where=target, fix=error.fix) from error


@dataclass(frozen=True)
class _Plan:
    """What the product's tensors are written as."""

    dtype: str  # of the matrices, as --dtype names it
    cast: torch.dtype | None  # of every tensor in a folder; None keeps each tensor's own
    rounding: str  # what that may cost, a key of `verify.KL_BOUNDS`


def _plan(source: Checkpoint, options: ConvertOptions) -> _Plan:
    if options.dtype == "q8_0" and options.to != "gguf":
        raise InputError(f"q8_0 belongs to GGUF, not to {options.to}", fix="--dtype float16")
    if options.dtype == "q8_0":
        return _Plan("q8_0", None, "q8_0")
    tensors = source.tensors.values()
    odd = next((t for t in tensors if t.dtype not in (*_TORCH.values(), torch.float64)), None)
    if odd is not None:
        raise InputError(f"tensor {odd.name!r} is in {odd.dtype}", where=source.path)
    # Formats differ in the dtype of norms (GGUF has them in float32): only matrices tell.
    kinds = [t.dtype for t in tensors if len(t.shape) > 1] or [t.dtype for t in tensors]
    names = {kind: name for name, kind in _TORCH.items()}
    kept = functools.reduce(torch.promote_types, kinds)
    if options.dtype == "keep" and kept not in names:
        raise InputError(f"has weights in {kept}", where=source.path, fix="--dtype float32")
    name = names[kept] if options.dtype == "keep" else options.dtype
    cast = _TORCH[name]
    if options.to == "gguf":  # vectors become float32
        wanted = [(t, cast if len(t.shape) > 1 else torch.float32) for t in tensors]
    else:
        wanted = [(t, cast) for t in tensors]
    if all(_survives(tensor, kind) for tensor, kind in wanted):
        return _Plan(name, cast, "exact")
    if options.dtype == "keep" and options.to != "gguf" and len(set(kinds)) == 1:
        return _Plan(name, None, "exact")
    return _Plan(name, cast, name)


def _survives(tensor: LazyTensor, dtype: torch.dtype) -> bool:
    """Whether a cast keeps every value; narrowing a matrix counts as rounding, unread."""
    if torch.promote_types(tensor.dtype, dtype) == dtype:
        return True
    if len(tensor.shape) > 1:
        return False
    values = tensor.load()
    return torch.equal(values.to(dtype).to(values.dtype), values)


def _check_target(source: Checkpoint, target: Path, options: ConvertOptions) -> Path:
    """Refuse a target that cannot be; returns the place behind it, if it is a link."""
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
    try:
        place = target.resolve() if target.is_symlink() else target
    except (OSError, RuntimeError) as error:  # a link to itself
        raise InputError("is a link that leads nowhere", where=target) from error
    if place.resolve() == source.path.resolve():
        raise InputError("source and target are the same place", where=target)
    read = {source.path, *(t.file for t in source.tensors.values() if t.file is not None)}
    if any(file.resolve().is_relative_to(place.resolve()) for file in read):
        raise InputError(
            f"the source {source.path} lies inside the target, which would replace it",
            where=target,
            fix="choose another path",
        )
    check_free(place, force=options.force, folder=options.to != "gguf")
    if options.to == "gguf":
        beside = manifest_path(place, folder=False)
        check_free(beside, force=options.force)
        if beside.exists() and read_manifest(beside) is None:
            raise InputError(
                "is no manifest of puna; --force does not replace it",
                where=beside,
                fix="choose another path, or remove it yourself",
            )
    return place


def _check_room(source: Checkpoint, target: Path, plan: _Plan) -> None:
    width = {"float32": 4.0, "q8_0": 34 / 32}.get(plan.dtype, 2.0)
    scalars = sum(tensor.nbytes // tensor.dtype.itemsize for tensor in source.tensors.values())
    free = shutil.disk_usage(target.absolute().parent).free
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
    plan: _Plan,
    asking: Asking | None,
    progress: Callable[[str, int, int], None],
) -> list[TensorDigest]:
    total = len(source.tensors) * options.shards
    tensors = list(_watched(source.tensors, lambda done: progress("writing", done, total)))
    if options.to == "gguf":
        metadata = {} if tokenizer is None else tokenizer.to_gguf()
        metadata |= {"general.name": _title(source.path), **asking_metadata(asking)}
        return write_gguf(
            place,
            config=source.config,
            tensors=tensors,
            metadata=metadata,
            generation_config=source.generation_config,
            dtype=_GGUF[plan.dtype],
        )
    files = {**_side_files(source, tokenizer), **asking_files(asking)}
    if options.to == "meta":
        return write_meta(
            place,
            config=source.config,
            tensors=tensors,
            files=files,
            generation_config=source.generation_config,
            dtype=plan.cast,
            shards=options.shards,
        )
    return write_hf(
        place,
        config=source.config,
        tensors=tensors,
        files=files,
        generation_config=source.generation_config,
        dtype=plan.cast,
        max_shard_bytes=options.max_shard_bytes,
    )


def _title(path: Path) -> str:
    """What to call a model: the name of its file or folder, of its repository in a hub's cache."""
    place = path.resolve() if path.name in ("", "..") else path.absolute()
    if place.suffix == ".gguf":
        return place.stem
    folder = place if place.is_dir() else place.parent
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name


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

    both = (tokenizer, tokenizer_if_any(product))
    return verify(source, product, tokenizers=both, rounding=rounding, tick=tick)
