"""`puna show`: what a checkpoint, a tuning, a run or shards are, and the lineage of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from puna.artifact import find_manifest, format_bytes, read_manifest
from puna.cli.output import table_console
from puna.config import from_dict
from puna.errors import InputError
from puna.flows.describing import (
    ancestor_lines,
    is_run,
    is_shards,
    lineage,
    run_rows,
    shards_rows,
    tuning_rows,
)
from puna.flows.opening import read_config, tokenizer_if_any
from puna.flows.products import PRODUCT, is_tuning
from puna.flows.verify import Verdict
from puna.model import count
from puna.records.corpus_folder import is_corpus, read_summary
from puna.store import open_checkpoint
from puna.store.locate import PACKAGED, locate


def show(model: str = "llama-base", *, doc: str | None = None) -> None:
    """Describe a checkpoint, a tuning, a run, shards or a corpus, and where they come from.

    Args:
        model: A path, an alias, a packaged model, or owner/name on the hub.
        doc: Of a corpus: the story of one document, by its id or the beginning of it.
    """
    if _shown_corpus(Path(model), doc):
        return
    located = locate(model)
    path = located.path
    console = table_console()
    if is_shards(path):
        _print_rows(console, shards_rows(path))
        _lineage(console, path)
        return
    if not is_run(path) and not is_tuning(path):
        about = PACKAGED[model].about if located.source == "package" else None
        _print_rows(console, [*([("model", about)] if about else []), *_checkpoint_rows(path)])
        _lineage(console, path)
        return
    if is_run(path):
        _print_rows(console, run_rows(path))
        path = path / PRODUCT
        if path.is_dir():
            console.print()
    if is_tuning(path):
        _print_rows(console, tuning_rows(path))
    elif path.is_dir():
        _print_rows(console, _checkpoint_rows(path))
    else:
        return
    console.print()
    console.print(Text("lineage"))
    for line in lineage(path):
        console.print(Text(f"  {line}"), soft_wrap=True)


def _checkpoint_rows(path: Path) -> list[tuple[str, str]]:
    checkpoint = open_checkpoint(path)
    config = read_config(checkpoint)
    counts = count(config)
    tokenizer = tokenizer_if_any(checkpoint)
    stored = Counter(tensor.stored for tensor in checkpoint.tensors.values())
    return [
        ("path", str(path)),
        ("format", checkpoint.format),
        ("parameters", f"{counts.parameters:,}"),
        ("stored as", ", ".join(f"{kind} x {n}" for kind, n in stored.most_common())),
        ("layers", f"{config.num_hidden_layers} x {config.hidden_size}"),
        (
            "heads",
            f"{config.num_attention_heads} queries, {config.num_key_value_heads} keys, "
            f"{config.head_dim} wide",
        ),
        ("context", f"{config.max_position_embeddings:,} tokens"),
        ("rotary", f"base {config.rope_theta:g}, scaling {config.rope_scaling.kind}"),
        ("head", "tied to the embedding" if config.tie_word_embeddings else "its own"),
        ("vocabulary", f"{config.vocab_size:,}"),
        ("tokenizer", "none" if tokenizer is None else f"{tokenizer.vocab_size:,} tokens"),
        ("chat template", "yes" if tokenizer and tokenizer.chat_template else "none"),
        ("FLOPs per token", f"{counts.flops_per_token():,} forward"),
        ("cache per token", f"{format_bytes(counts.kv_bytes_per_token(4))} in float32"),
    ]


def _print_rows(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # a name in brackets is no markup
    console.print(table)


def _shown_corpus(path: Path, document: str | None) -> bool:
    """Show a corpus, if the path is one."""
    if not path.is_dir() or not is_corpus(path):
        if document is not None:
            raise InputError("holds no corpus, so there is no document in it", where=path)
        return False
    import puna.corpus  # noqa: F401  first, since it says which extra is missing
    from puna.flows import curate_opening

    if document is not None:
        lines = curate_opening.document_story(path, document)
    else:
        lines = curate_opening.corpus_lines(read_summary(path))
    for line in lines:
        print(line)
    if document is None:
        _lineage(table_console(), path)
    return True


def _lineage(console: Console, path: Path) -> None:
    place = find_manifest(path)
    told = None if place is None else read_manifest(place)
    if place is None:
        console.print("no manifest: made elsewhere", style="dim")
    elif told is None:
        console.print(Text(f"{place.name} is not a manifest of puna: made elsewhere", style="dim"))
    else:
        console.print()
        for sentence in _sentences(told):
            console.print(Text(sentence), soft_wrap=True)


def _sentences(told: dict[str, Any]) -> Iterator[str]:
    """What a manifest tells, for people."""
    identity, measured = told["identity"], told["measured"]
    config = dict(identity["config"])
    yield f"{identity['kind']} {_short(told['digest'])}"
    made_by = f"made by puna {identity['puna']}"
    verb = config.get("made by")
    if verb == "convert" and {"from", "to", "dtype"} <= config.keys():
        source, product, dtype = (config.pop(key) for key in ("from", "to", "dtype"))
        yield f"{made_by}: convert from {source} to {product}, {dtype}"
    elif verb == "merge" and {"method", "base", "to", "dtype"} <= config.keys():
        keys = ("method", "base", "to", "dtype")
        method, base, product, dtype = (config.pop(key) for key in keys)
        yield f"{made_by}: {method} merged into {base}, to {product}, {dtype}"
    else:
        verb = None
        yield made_by
    if verb is not None:
        del config["made by"]
        compared = config.pop("verified", None) and measured.get("comparison")
        yield _compared(compared) if compared else "not compared with its source"
    for key, value in config.items():
        yield f"{key}: {_short(value)}"
    for parent in identity["parents"]:
        yield f"parent: {_short(parent)}"
    seconds, host = measured.get("seconds"), measured.get("host")
    took = f" in {seconds} s" if seconds is not None else ""
    yield f"finished {measured.get('finished')}{took}{f' on {host}' if host else ''}"
    for ancestor in measured.get("ancestors") or []:
        yield ""
        yield from ancestor_lines(ancestor)


def _compared(comparison: Any) -> str:
    try:
        return from_dict(Verdict, comparison, where="comparison").sentence()
    except InputError:  # of another version of puna
        return f"compared with its source: {comparison}"


def _short(value: object) -> str:
    """Text in which every SHA-256 is cut to its first sixteen digits."""
    return re.sub(r"\b([0-9a-f]{16})[0-9a-f]{48}\b", r"\1...", str(value))
