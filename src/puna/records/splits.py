"""Train, validation and test: what belongs together stays together, whatever the order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from puna.errors import InputError
from puna.records.items import Item
from puna.records.row import Quarantine

_SCALE = 2.0**64
NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """How many examples are held out: a share below 1.0 (`0.1`) or a number (`200`)."""

    validation: float | int = 0.1
    """Held out to judge the training while it runs; share or number of examples."""
    test: float | int = 0.1
    """Held out to judge the result, seen by nothing before; share or number of examples."""
    seed: int = 0
    """Another seed holds out other examples."""

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            value = getattr(self, name)
            if not value >= 0 or (isinstance(value, float) and value >= 1):
                raise InputError(
                    f"{name} is {value}; it must be a share from 0.0 to below 1.0, or a number of "
                    "examples from 0",
                    fix=f"{name}: 0.1 holds out a tenth, {name}: 100 a hundred examples",
                )
        shares = [v for v in (self.validation, self.test) if isinstance(v, float)]
        if sum(shares) >= 1:
            raise InputError("validation and test together leave nothing to train on")


def split(
    items: Iterable[Item], splits: Splits, *, quarantine: Quarantine
) -> dict[str, list[Item]]:
    """Part items into train, validation and test.

    Items of one root, and items that ask the same, are one group, and a group is never parted. A
    group's place is a hash of its name and the seed, so it depends on no row of another group:
    shares are stable under reordering and under additions that join no groups. A number takes
    the groups nearest to its end of the line until it is reached, so there added rows may take the
    place of others. Exact duplicates (same question, same turns) are left out and counted; the
    first one stays.

    Args:
        items: The items.
        splits: How many to hold out.
        quarantine: Takes the duplicates.

    Returns:
        The items by "train", "validation", "test", each in the order given.

    Raises:
        InputError: Too few different questions to fill the splits asked for.
    """
    kept = without_duplicates(items, quarantine)
    groups = _groups(kept)
    places = {name: _place(name, splits.seed) for name in groups}
    line = sorted(groups, key=lambda name: (places[name], name))
    sizes = {name: len(members) for name, members in groups.items()}
    test = _held_out(line, places, sizes, splits.test, from_end=False)
    validation = _held_out(line, places, sizes, splits.validation, from_end=True)
    train = len(line) - len(test | validation)
    if kept and (test & validation or not train):
        raise InputError(
            f"{len(kept):,} examples of {len(line):,} different questions are too few to hold out "
            f"{splits.validation} for validation and {splits.test} for test",
            fix="hold out less (validation: 0, test: 0), or give more examples",
        )
    chosen = dict.fromkeys(test, "test") | dict.fromkeys(validation, "validation")
    parts: dict[str, list[Item]] = {name: [] for name in NAMES}
    group_of = {number: name for name, members in groups.items() for number in members}
    for number, item in enumerate(kept):
        parts[chosen.get(group_of[number], "train")].append(item)
    return parts


def separate(
    parts: Mapping[str, Sequence[Item]], *, quarantine: Quarantine
) -> dict[str, list[Item]]:
    """Splits that come as files of their own, without what would leak from one to another.

    Exact duplicates within a split are left out; so is what shares its question or its root with
    the test split, from validation and train, and with the validation split, from train. The
    reasons are counted.

    Args:
        parts: Items by "train", "validation" and "test"; a missing one is empty.
        quarantine: Takes what is left out.

    Raises:
        InputError: A split has another name.
    """
    unknown = [name for name in parts if name not in NAMES]
    if unknown:
        raise InputError(
            f"there is no split {unknown[0]!r}", fix=f"the splits are {', '.join(NAMES)}"
        )
    seen: dict[tuple[str, str], str] = {}
    result: dict[str, list[Item]] = {}
    for name in reversed(NAMES):
        result[name] = []
        for item in without_duplicates(parts.get(name, ()), quarantine):
            held = next((seen[key] for key in _keys(item) if key in seen), None)
            if held is None:
                result[name].append(item)
            else:
                quarantine.add(item.locator, f"is in the {held} split too")
        for item in result[name]:
            seen.update(dict.fromkeys(_keys(item), name))
    return {name: result[name] for name in NAMES}


def without_duplicates(items: Iterable[Item], quarantine: Quarantine) -> list[Item]:
    """The items without those that repeat an earlier one's question and turns exactly."""
    seen: dict[bytes, str] = {}
    kept = []
    for item in items:
        turns = [f"{turn['role']}\0{turn['content']}" for turn in item.messages]
        digest = _digest("\1".join([item.source, item.text or "", *turns]))
        if digest in seen:
            quarantine.add(item.locator, "duplicate", f"of {seen[digest]}")
        else:
            seen[digest] = item.locator
            kept.append(item)
    return kept


def _keys(item: Item) -> list[tuple[str, str]]:
    keys = [("source", item.source)]
    return keys if item.root_id is None else [("root", item.root_id), *keys]


def _groups(items: Sequence[Item]) -> dict[tuple[str, str], list[int]]:
    """The numbers of the items by group: connected by a root or by a question.

    A group is called after the first of its names in sorted order, so the order of the items does
    not matter (a root before a question).
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def find(key: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for item in items:
        roots = sorted(find(key) for key in _keys(item))
        for other in roots[1:]:
            parent[other] = roots[0]
    groups: dict[tuple[str, str], list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(find(_keys(item)[0]), []).append(number)
    return groups


def _place(name: tuple[str, str], seed: int) -> float:
    """A number in [0, 1) that depends on the group and the seed alone."""
    digest = _digest(f"{seed}\0{name[0]}\0{name[1]}")
    return int.from_bytes(digest[:8], "big") / _SCALE


def _held_out(
    line: Sequence[tuple[str, str]],
    places: Mapping[tuple[str, str], float],
    sizes: Mapping[tuple[str, str], int],
    wanted: float | int,
    *,
    from_end: bool,
) -> set[tuple[str, str]]:
    """The groups within `wanted` of one end of the line: at least one where any is wanted."""
    held: set[tuple[str, str]] = set()
    count = 0
    for name in reversed(line) if from_end else line:
        if isinstance(wanted, float):
            distance = 1 - places[name] if from_end else places[name]
            enough = distance >= wanted and (held or not wanted)
        else:
            enough = count >= wanted
        if enough:
            break
        held.add(name)
        count += sizes[name]
    if not isinstance(wanted, float) and count < wanted and line:
        raise InputError(
            f"{wanted} examples were to be held out, but there are only {count}",
            fix="hold out fewer, or a share such as 0.1",
        )
    return held


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
