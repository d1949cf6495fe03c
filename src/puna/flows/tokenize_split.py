"""Which documents are learnt from, which are held out, and which are left out.

Documents of one root, and documents whose texts differ only in what makes no difference, are one
group; a group is never parted, in whatever sources its members are. Its place in [0, 1) is a hash
of its name and the seed, so it depends on no other group.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

TRAIN, HELD_OUT, DUPLICATE, CONTAMINATED = range(4)


@dataclass(frozen=True)
class Found:
    """What is known of every document of all sources, one after the other; [D] each."""

    sources: Array
    """The number of its source, ascending."""
    contents: Array
    """uint64: a hash of the text as it is."""
    texts: Array
    """uint64: a hash of the text without what makes no difference."""
    roots: Array
    """uint64: a hash of what it was derived from; that of `texts` where nothing is said."""
    contaminated: Array
    """bool: it gives away what a model will be judged on."""


@dataclass(frozen=True)
class HoldOut:
    """How much is held out."""

    share: float
    """Of the groups."""
    most: int | None
    """Documents of a source."""
    seed: int
    """Chooses which."""


def decide(found: Found, hold_out: HoldOut, *, drop_duplicates: bool) -> npt.NDArray[np.uint8]:
    """What becomes of each document: TRAIN, HELD_OUT, DUPLICATE or CONTAMINATED.

    Of equal texts the first one stays. Of every source with two groups at least one is held out
    (unless nothing is to be), and at least one is not. What gives away answers is left out of
    training only.

    Args:
        found: The documents.
        hold_out: How much is held out.
        drop_duplicates: Whether texts that were there before are left out.
    """
    labels, names = _groups(found.texts, found.roots)
    decisions = np.full(len(labels), TRAIN, dtype=np.uint8)
    stays = ~_repeats(found) if drop_duplicates else np.ones(len(labels), dtype=bool)
    held = _held_out(labels[stays], found.sources[stays], places(names, hold_out.seed), hold_out)
    out = held[labels]
    decisions[out] = HELD_OUT
    decisions[found.contaminated & ~out] = CONTAMINATED
    decisions[~stays] = DUPLICATE
    return decisions


def choose_sample(sizes: Array, wanted: Array, keys: Array, max_bytes: int, seed: int) -> Array:
    """Documents to learn a vocabulary from: evenly from all that are wanted, within a bound.

    Args:
        sizes: Bytes of text of each, [D].
        wanted: Which of them may be taken, bool [D].
        keys: Their hashes, uint64 [D].
        max_bytes: Of all that are taken; one is, however long it is.
        seed: Chooses which.

    Returns:
        Which are taken, bool [D].
    """
    chosen = wanted.copy()
    if not wanted.any() or int(sizes[wanted].sum()) <= max_bytes:
        return chosen
    candidates = np.flatnonzero(wanted)
    line = candidates[np.argsort(places(keys[candidates], seed), kind="stable")]
    fits = np.cumsum(sizes[line]) <= max_bytes
    fits[0] = True
    chosen[:] = False
    chosen[line[fits]] = True
    return chosen


def places(names: Array, seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each name and the seed (SplitMix64, Steele et al. 2014)."""
    mixed = names.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 1) % (1 << 64))
    mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _repeats(found: Found) -> Array:
    """Documents whose text was there before. Both hashes must agree: 128 bits."""
    order = np.lexsort((found.texts, found.contents))  # stable: equal ones keep their order
    contents, texts = found.contents[order], found.texts[order]
    same = (contents[1:] == contents[:-1]) & (texts[1:] == texts[:-1])
    repeats = np.zeros(len(order), dtype=bool)
    repeats[order[1:][same]] = True
    return repeats


def _groups(texts: Array, roots: Array) -> tuple[Array, Array]:
    """The number of each document's group, int64 [D], and the groups' names, uint64 [G].

    Groups are what texts and roots connect; a name is the least of its members' roots.
    """
    kinds, labels = np.unique(texts, return_inverse=True)
    if np.array_equal(texts, roots):
        return labels, kinds
    root_kinds, by_root = np.unique(roots, return_inverse=True)
    by_text = labels
    while True:  # the least label wanders over shared roots and texts until it is everywhere
        merged = _least(by_text, _least(by_root, labels, len(root_kinds)), len(kinds))
        if np.array_equal(merged, labels):
            break
        labels = merged
    _, labels = np.unique(labels, return_inverse=True)
    names = np.full(int(labels.max(initial=-1)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(names, labels, roots)
    return labels, names


def _least(keys: Array, labels: Array, count: int) -> Array:
    """For each document the least label among those that share its key."""
    least = np.full(count, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(least, keys, labels)
    return least[keys]


def _held_out(labels: Array, sources: Array, places: Array, hold_out: HoldOut) -> Array:
    """Which groups are held out, bool [G]; labels and sources are of the documents that stay."""
    held = np.zeros(len(places), dtype=bool)
    if not hold_out.share:
        return held
    lines = []
    kept = np.zeros(len(places), dtype=bool)  # never held out: a source must have one to learn
    for mine in _by_source(labels, sources):
        groups, sizes = np.unique(mine, return_counts=True)
        order = np.argsort(places[groups], kind="stable")
        lines.append((groups[order], sizes[order]))
        kept[groups[order][-1]] = True
    held = (places < hold_out.share) & ~kept
    released = np.zeros(len(places), dtype=bool)
    for groups, sizes in lines:
        inside = held[groups]
        before = np.cumsum(sizes[inside]) - sizes[inside]
        if hold_out.most is not None:
            released[groups[inside][before >= hold_out.most]] = True
    held &= ~released
    for groups, _ in lines:
        free = groups[~kept[groups]]
        if not held[groups].any() and len(free):
            held[free[0]] = True
    return held


def _by_source(labels: Array, sources: Array) -> list[Array]:
    """The labels of each source that has documents; `sources` ascends."""
    edges = [0, *(np.flatnonzero(np.diff(sources)) + 1).tolist(), len(sources)]
    return [labels[start:stop] for start, stop in pairwise(edges) if stop > start]
