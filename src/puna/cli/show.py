"""`puna show`: what a checkpoint is, and the lineage that its manifest tells."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from puna.artifact import find_manifest, format_bytes, read_json
from puna.cli.output import table_console
from puna.flows.opening import checkpoint_tokenizer, read_config
from puna.model import count
from puna.store import open_checkpoint
from puna.store.locate import locate


def show(model: str = "llama-base") -> None:
    """Describe a checkpoint without loading it.

    Args:
        model: A path, an alias, a packaged model, or owner/name on the hub.
    """
    path = locate(model).path
    checkpoint = open_checkpoint(path)
    config = read_config(checkpoint)
    counts = count(config)
    tokenizer = checkpoint_tokenizer(checkpoint, config)
    stored = Counter(tensor.stored for tensor in checkpoint.tensors.values())
    rows: list[tuple[str, str]] = [
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
        ("chat template", "yes" if tokenizer.chat_template else "none"),
        ("FLOPs per token", f"{counts.flops_per_token():,} forward"),
        ("cache per token", f"{format_bytes(counts.kv_bytes_per_token(4))} in float32"),
    ]
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = table_console()
    console.print(table)
    _lineage(console, path)


def _lineage(console: Console, path: Path) -> None:
    place = find_manifest(path)
    if place is None:
        console.print("no manifest: made elsewhere", style="dim")
        return
    told: Any = read_json(place)
    if not isinstance(told, dict) or not {"identity", "measured", "digest"} <= told.keys():
        console.print(f"{place.name} is not a manifest of puna: made elsewhere", style="dim")
        return
    identity, measured = told["identity"], told["measured"]
    console.print(f"\n{identity['kind']} {told['digest'][:16]}, made by puna {identity['puna']}")
    for key, value in identity["config"].items():
        console.print(f"  {key}: {value}", soft_wrap=True)
    for parent in identity["parents"]:
        console.print(f"  from: {parent}", soft_wrap=True)
    for key, value in measured.items():
        console.print(f"  measured {key}: {value}", soft_wrap=True)
