"""The first pass over the documents: what becomes of each is known before any is tokenized.

Reading costs little beside encoding, and buys much: a broken file, an empty source or a wrong
column stops a run at once; groups are never parted; and the second pass needs no memory of what it
has seen, so that it can go on anywhere.
"""

from __future__ import annotations

import hashlib
import zipfile
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.artifact import read_json, write_json, writing_folder
from puna.errors import InputError
from puna.flows.tokenize_contamination import Contamination, read_contamination
from puna.flows.tokenize_data import read_source
from puna.flows.tokenize_recipe import TokenizeRecipe
from puna.flows.tokenize_split import (
    CONTAMINATED,
    DUPLICATE,
    HELD_OUT,
    TRAIN,
    Array,
    Found,
    HoldOut,
    choose_sample,
    decide,
)
from puna.records import Quarantine
from puna.records.documents import text_key
from puna.tokens.shard_file import KEY_BYTES

EXTENDING_BYTES = 64 << 20  # of text that new pieces are learnt from
MAX_LICENCES = 1 << 16
_TOLD = "plan.json"
_REASONS = {
    DUPLICATE: "duplicate",
    CONTAMINATED: "shares a run of words with texts to be judged on",
}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SourcePlan:
    """What becomes of the documents of a source, in the order in which they are read."""

    decisions: Array  # [D] uint8: TRAIN, HELD_OUT, DUPLICATE, CONTAMINATED
    roots: Array  # [D, 16] uint8
    sampled: Array  # [D] bool: a vocabulary is learnt from it

    def count(self, decision: int) -> int:
        """How many documents have come to this."""
        return int((self.decisions == decision).sum())


@dataclass(frozen=True)
class Plan:
    """What becomes of all documents."""

    sources: Mapping[str, SourcePlan]
    licences: tuple[str, ...]
    """In the order in which documents name them."""
    quarantine: Mapping[str, Any]
    """Rows that could not be used; see `Quarantine.to_dict`."""
    data: str
    """A digest over all texts and what they were derived from, in order."""
    text_bytes: int
    """UTF-8 bytes of all documents that are kept."""
    notes: tuple[str, ...]
    """What a user should know."""

    def dropped(self) -> dict[str, int]:
        """What was left out, by the reason."""
        counts = {
            reason: sum(source.count(decision) for source in self.sources.values())
            for decision, reason in _REASONS.items()
        }
        told = {reason: count for reason, count in counts.items() if count}
        return told | dict(self.quarantine["counts"])

    def lines(self) -> list[str]:
        """For a terminal."""
        found = [
            f"{name}: {source.count(TRAIN):,} documents to learn from, "
            f"{source.count(HELD_OUT):,} held out"
            for name, source in self.sources.items()
        ]
        return [*found, *(f"left out: {count:,} x {why}" for why, count in self.dropped().items())]


def make_plan(
    recipe: TokenizeRecipe, files: Mapping[str, Sequence[Path]], progress: Progress
) -> Plan:
    """Read all documents once.

    About 64 bytes are kept in memory for each.

    Raises:
        InputError: A source has no documents, or none that is left to learn from; a file is
            damaged as a whole.
    """
    notes: list[str] = []
    config = recipe.decontaminate
    contamination = None if config is None else read_contamination(config, notes)
    quarantine, licences = Quarantine(), dict[str, int]()
    seen: dict[str, _Seen] = {}
    for name, source in recipe.sources.items():
        seen[name] = _Seen(contamination, licences)
        tick = _named(progress, f"reading {name}")
        for document in read_source(name, source, files[name], quarantine, tick):
            seen[name].add(document.text, document.root, document.licence)
        if not seen[name].sizes:
            raise InputError("the source holds no document", where=f"sources.{name}")
    return _decided(recipe, seen, tuple(licences), quarantine, tuple(notes))


def save_plan(folder: Path, plan: Plan) -> None:
    """Write a plan into a new folder: whole or absent.

    Raises:
        InputError: The disk refused the write.
    """
    with writing_folder(folder) as place:
        for name, source in plan.sources.items():
            with (place / f"{name}.npz").open("wb") as file:
                np.savez(
                    file, decisions=source.decisions, roots=source.roots, sampled=source.sampled
                )
        told = {
            "sources": list(plan.sources),
            "licences": list(plan.licences),
            "quarantine": dict(plan.quarantine),
            "data": plan.data,
            "text_bytes": plan.text_bytes,
            "notes": list(plan.notes),
        }
        write_json(place / _TOLD, told)


def load_plan(folder: Path) -> Plan:
    """Read what `save_plan` wrote.

    Raises:
        InputError: It is damaged.
    """
    told = read_json(folder / _TOLD)
    try:
        sources = {name: _load_source(folder / f"{name}.npz") for name in told["sources"]}
        return Plan(
            sources,
            tuple(told["licences"]),
            told["quarantine"],
            told["data"],
            told["text_bytes"],
            tuple(told["notes"]),
        )
    except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError("is damaged", where=folder, fix="begin again with --force") from error


class _Seen:
    """What is kept of the documents of a source."""

    def __init__(self, contamination: Contamination | None, licences: dict[str, int]) -> None:
        self._contamination, self._licences = contamination, licences
        self.contents, self.texts, self.sizes = array("Q"), array("Q"), array("q")
        self.roots, self.contaminated = bytearray(), bytearray()

    def add(self, text: str, root: bytes | None, licence: str) -> None:
        data = text.encode()
        key = text_key(text)
        self.contents.append(_number(hashlib.blake2b(data, digest_size=8).digest()))
        self.texts.append(_number(key))
        self.sizes.append(len(data))
        self.roots += key if root is None else root
        told = self._contamination is not None and self._contamination.found_in(text)
        self.contaminated.append(told)
        if self._licences.setdefault(licence, len(self._licences)) >= MAX_LICENCES:
            raise InputError(
                f"the documents name more than {MAX_LICENCES:,} licences",
                fix="the column of the licence should hold its name, not its text",
            )

    def keys(self) -> Array:
        return np.frombuffer(self.roots, dtype=np.uint8).reshape(-1, KEY_BYTES)


def _decided(
    recipe: TokenizeRecipe,
    seen: Mapping[str, _Seen],
    licences: tuple[str, ...],
    quarantine: Quarantine,
    notes: tuple[str, ...],
) -> Plan:
    counts = [len(one.sizes) for one in seen.values()]
    roots = np.concatenate([one.keys() for one in seen.values()])
    found = Found(
        sources=np.repeat(np.arange(len(counts)), counts),
        contents=_joined([one.contents for one in seen.values()]),
        texts=_joined([one.texts for one in seen.values()]),
        roots=np.ascontiguousarray(roots[:, :8]).view("<u8")[:, 0].astype(np.uint64),
        contaminated=np.concatenate(
            [np.frombuffer(one.contaminated, bool) for one in seen.values()]
        ),
    )
    hold_out = HoldOut(recipe.held_out, recipe.max_held_out, recipe.seed)
    decisions = decide(found, hold_out, drop_duplicates=recipe.drop_duplicates)
    sizes = _joined([one.sizes for one in seen.values()])
    most = _sample_bytes(recipe)
    train = decisions == TRAIN
    sampled = choose_sample(sizes, train & (most > 0), found.contents, most, recipe.seed + 1)
    stops = np.cumsum(counts).tolist()
    sources = {}
    for name, stop, count in zip(seen, stops, counts, strict=True):
        part = slice(stop - count, stop)
        sources[name] = SourcePlan(decisions[part], roots[part], sampled[part])
        _check_left(name, sources[name], quarantine)
    return Plan(
        sources,
        licences,
        quarantine.to_dict(),
        _digest(found, roots),
        int(sizes[train | (decisions == HELD_OUT)].sum()),
        notes,
    )


def _check_left(name: str, source: SourcePlan, quarantine: Quarantine) -> None:
    if source.count(TRAIN):
        return
    why = Counter({reason: source.count(number) for number, reason in _REASONS.items()})
    told = ", ".join(f"{count:,} x {reason}" for reason, count in (+why).items())
    raise InputError(
        f"of {len(source.decisions):,} documents none is left to learn from: {told}",
        where=f"sources.{name}",
        fix="leave the source out, or set drop_duplicates: false or other files to decontaminate",
    )


def _sample_bytes(recipe: TokenizeRecipe) -> int:
    if recipe.vocabulary.train is not None:
        return recipe.vocabulary.train.max_bytes
    return EXTENDING_BYTES if recipe.vocabulary.extend is not None else 0


def _digest(found: Found, roots: Array) -> str:
    digest = hashlib.sha256()
    for part in (found.sources.astype("<i8"), found.contents, found.texts, roots):
        digest.update(np.ascontiguousarray(part).reshape(-1).data)
    return digest.hexdigest()


def _joined(parts: Sequence[array[int]]) -> Array:
    return np.concatenate([np.asarray(part) for part in parts])


def _number(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")


def _load_source(path: Path) -> SourcePlan:
    with np.load(path) as told:
        return SourcePlan(told["decisions"], told["roots"], told["sampled"])


def _named(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)
