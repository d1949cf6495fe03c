"""What a run, a tuning or shards are, for people: method, data, quality, cost and origin."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from puna.artifact import find_manifest, format_bytes, read_json, read_manifest
from puna.config import to_dict
from puna.errors import InputError
from puna.flows.pretrain_told import pretrain_rows
from puna.flows.products import PRODUCT, RUN_FILE, is_tuning, read_asking
from puna.flows.run_place import PRETRAINING, REPORT, SUMMARY
from puna.flows.tune_report_told import Told, date, mapping, metrics, pair
from puna.report.words import duration, energy, finite, mass, percent
from puna.store.locate import locate
from puna.store.safetensors import read_safetensors
from puna.tokens.shard_file import SPLITS
from puna.tokens.shard_index import INDEX, read_index
from puna.train.checkpoints import CHECKPOINTS
from puna.tune import read_tuned
from puna.tune.files import SavedTuning

Rows = list[tuple[str, str]]
_SPLIT_WORDS = {"train": "to learn from", "held_out": "held out"}


def is_run(path: Path) -> bool:
    """Whether a folder holds a run."""
    return (path / RUN_FILE).is_file()


def run_rows(path: Path) -> Rows:
    """What a run is, and what came of it: name and text of each fact.

    Raises:
        InputError: Its files are damaged.
    """
    told = _object(path / RUN_FILE)
    rows = [("run", str(path)), ("state", _state(path, told))]
    if not (path / SUMMARY).is_file():
        return rows
    summary = _object(path / SUMMARY)
    if told.get("kind") == PRETRAINING:
        rows += pretrain_rows(summary)
    else:
        rows += _tuning_run_rows(summary)
    return [
        *rows,
        ("report", str(path / REPORT)),
        ("repeat it", str(summary.get("command"))),
    ]


def _tuning_run_rows(summary: Told) -> Rows:
    model, data = mapping(summary, "model"), mapping(summary, "data")
    rows = [("title", str(summary.get("title"))), ("base", str(model.get("name")))]
    rows += [("method", _method(mapping(summary, "method")))]
    splits = ", ".join(f"{n:,} {name}" for name, n in mapping(data, "splits").items() if n)
    rows += [("data", f"{splits} ({data.get('shape')})")]
    rows += [("", str(file)) for file in _files(data)]
    rows += [("training", _training(summary))]
    rows += [(_first(n, "quality"), text) for n, text in enumerate(_quality(summary))]
    return [*rows, ("cost", _cost(mapping(mapping(summary, "ledger"), "total")))]


def is_shards(path: Path) -> bool:
    """Whether a folder holds shards of tokens."""
    return (path / INDEX).is_file()


def shards_rows(path: Path) -> Rows:
    """What a folder of shards is: name and text of each fact. No tokens are read.

    Raises:
        InputError: Its index is damaged.
    """
    index, _ = read_index(path)
    rows = [("shards", str(path)), ("vocabulary", f"{index.vocabulary.size:,} tokens")]
    rows += [("stored as", index.dtype), ("licences", ", ".join(index.licences))]
    for number, source in enumerate(index.sources):
        splits = []
        for name in SPLITS:
            files = [file for file in source.files if file.split == name]
            tokens, documents = (
                sum(getattr(file, key) for file in files) for key in ("tokens", "documents")
            )
            splits.append(f"{tokens:,} tokens of {documents:,} documents {_SPLIT_WORDS[name]}")
        rows.append((_first(number, "sources"), f"{source.name}: {', '.join(splits)}"))
    dropped = [f"{count:,} x {reason}" for reason, count in index.dropped.items()]
    return [*rows, *((_first(n, "left out"), text) for n, text in enumerate(dropped))]


def tuning_rows(path: Path) -> Rows:
    """What a tuning is: name and text of each fact. No weights are read.

    Raises:
        InputError: Its files are damaged.
    """
    saved = read_tuned(path)
    sizes = [math.prod(t.shape) for t in read_safetensors(saved.tensors).values()]
    rows = [
        ("tuning", str(path)),
        ("method", _settings(saved)),
        ("parameters", f"{sum(sizes):,} in {len(sizes)} tensors"),
        ("size", format_bytes(saved.tensors.stat().st_size)),
        ("base", _base(saved)),
    ]
    asking = read_asking(path)
    if asking is None:
        return rows
    words = {key: value for key, value in to_dict(asking.wording).items() if value}
    rows += [(_first(n, "asked"), f"{k}: {v!r}") for n, (k, v) in enumerate(words.items())]
    if asking.template is not None:
        rows.append(("template", f"brought along, {len(asking.template):,} characters"))
    return rows


def lineage(path: Path, above: frozenset[Path] = frozenset()) -> Iterator[str]:
    """From a product back to what it was made from: each with its origin and its cost.

    Args:
        path: A run, a tuning or a checkpoint.
        above: What stands on it, where that was told already.
    """
    path = path / PRODUCT if is_run(path) else path
    if path.resolve() in above:
        yield f"{path}: told above already; it stands on itself"
        return
    above |= {path.resolve()}
    place = find_manifest(path)
    told = None if place is None else read_manifest(place)
    base = None
    if told is not None:
        yield from _entry(told["identity"], str(told["digest"]), told["measured"])
        for one in told["measured"].get("ancestors") or []:
            yield from ancestor_lines(one)
        base = told["identity"]["config"].get("base")
    elif is_tuning(path):
        yield f"tuning {path.name}: no manifest, made elsewhere"
    if is_tuning(path):
        saved = read_tuned(path)
        yield from _below(saved.base.name, saved.base.identity, above)
    elif isinstance(base, str):
        yield from _below(base, None, above)


def ancestor_lines(one: Any) -> Iterator[str]:
    """What a copy of a manifest says, as a product keeps it of what it was made from."""
    if isinstance(one, Mapping):
        yield from _entry(one, str(one.get("digest")), one)


def _below(name: str, identity: str | None, above: frozenset[Path]) -> Iterator[str]:
    if not name:
        yield "base: not named"
        return
    try:
        located = locate(name)
    except InputError as error:
        yield f"base {name}: not here ({error.what})"
        return
    of = f", identity {identity[:16]}" if identity else ""
    yield f"base {name}{of}: {located.path}"
    if is_run(located.path) or is_tuning(located.path) or find_manifest(located.path):
        yield from lineage(located.path, above)


def _entry(identity: Told, digest: str, measured: Told) -> Iterator[str]:
    config = mapping(identity, "config")
    by = f" by {config['method']}" if config.get("method") else ""
    made = f", made by puna {identity.get('puna')}: {config.get('made by')}{by}"
    yield f"{identity.get('kind')} {digest[:16]}{made}"
    told = [f"finished {date(measured.get('finished'))}"] if measured.get("finished") else []
    total = mapping(mapping(measured, "cost"), "total")
    cost = _cost(total) if total else ""
    if not cost and measured.get("seconds") is not None:
        cost = f"in {duration(measured['seconds'])}"
    told += [cost] if cost else []
    if told:
        yield f"  {', '.join(told)}"
    for key in ("data", "recipe"):
        if config.get(key):
            yield f"  {key} {str(config[key])[:16]}"
    for parent in identity.get("parents") or []:
        kind, _, rest = str(parent).rpartition(" ")
        yield f"  from {kind or 'artifact'} {rest[:16]}"


def _state(path: Path, told: Told) -> str:
    state = str(told.get("state"))
    if state == "finished":
        return f"finished {date(told.get('since'))}"
    steps = [
        int(place.name.removeprefix("step-"))
        for place in (path / CHECKPOINTS).glob("step-*")
        if place.name.removeprefix("step-").isdigit()
    ]
    kept = f"; {max(steps)} steps are kept" if steps else ""
    return f"not finished, begun {date(told.get('since'))}{kept}; the same command goes on"


def _method(method: Told) -> str:
    learns, total = finite(method.get("trainable")), finite(method.get("total"))
    share = f", {percent(learns / total, 2)} of {total:,.0f}" if learns and total else ""
    layers = int(finite(method.get("layers")) or 0)
    where = f", {_last(layers)}" if method.get("start") else ""
    return f"{method.get('name')}: {learns or 0:,.0f} parameters learn{share}{where}"


def _training(summary: Told) -> str:
    history = summary.get("history") or []
    training = mapping(summary, "training")
    steps = training.get("steps", len(history))
    kept = summary.get("best_step")
    seen = f", {training['tokens']:,} tokens" if training.get("tokens") else ""
    return f"{steps:,} steps{seen}; step {kept} was kept"


def _quality(summary: Told) -> Iterator[str]:
    for name in metrics(summary, "after"):
        before, after, change = pair(summary, name)
        if after is None:
            continue
        value = f"{after.text(after.value)} [{after.interval_text()}]"
        was = f"{before.text(before.value)} -> " if before is not None else ""
        certain = change is not None and change.certain()
        doubt = "" if certain or before is None else "  (not proven)"
        yield f"{after.title} {was}{value}{doubt}"
    if not metrics(summary, "after"):
        yield "not judged: there were no test examples"


def _cost(total: Told) -> str:
    parts = [
        duration(total.get("wall_seconds")),
        energy(total.get("energy_joules")),
        f"{mass(total.get('co2e_grams'))} CO\u2082e",
    ]
    return f"{', '.join(parts)} ({total.get('source')})"


def _settings(saved: SavedTuning) -> str:
    """The method with every setting that is not the default."""
    config = saved.config
    said = [
        _said(field.name, getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name != "method"
        and (field.name in ("rank", "layers", "style") or not _default(field, config))
    ]
    return f"{config.method}: {', '.join(said)}" if said else config.method


def _default(field: dataclasses.Field[Any], config: Any) -> bool:
    value = getattr(config, field.name)
    return bool(value == field.default or value in ({}, None))


def _said(name: str, value: Any) -> str:
    if name == "layers":
        return "all layers" if value is None else _last(value)
    return f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"


def _last(layers: int) -> str:
    return "the last layer" if layers == 1 else f"the last {layers} layers"


def _base(saved: SavedTuning) -> str:
    identity = saved.base.identity
    name = saved.base.name or "not named"
    return f"{name} ({identity[:16]})" if identity else name


def _files(data: Told) -> list[str]:
    files = mapping(data, "files")
    found = [str(file) for name in files for file in (files[name] or [])]
    listed = list(dict.fromkeys(found))
    return listed[:6] + ([f"and {len(listed) - 6} more"] if len(listed) > 6 else [])


def _first(number: int, label: str) -> str:
    return "" if number else label


def _object(path: Path) -> Told:
    told = read_json(path)
    if not isinstance(told, dict):
        raise InputError("is damaged: it holds no object", where=path)
    return told
