"""From the files that a recipe names to examples as tokens, and to cases to be judged by."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from puna.artifact import digest_json
from puna.errors import InputError
from puna.evaluate import Case
from puna.flows.tune_recipe import DataConfig, Files
from puna.records import (
    Item,
    Quarantine,
    Row,
    Shape,
    Wording,
    choose_shape,
    find_files,
    read_parallel,
    read_rows,
    sample_rows,
    separate,
    shape_rows,
    split,
)
from puna.tokens.examples import ExampleConfig, TokenExample, encode_items
from puna.tokens.mask_report import MaskReport
from puna.tokens.rendering import Renderer

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class RawData:
    """Items by split, and how they were found."""

    items: dict[str, list[Item]]
    files: dict[str, list[Path]]
    shape: Shape
    why: str  # the shape, in words
    quarantine: Quarantine

    @property
    def identity(self) -> str:
        """A digest over what every item of every split says, in order."""
        parts = {
            name: [[item.text, [dict(turn) for turn in item.messages]] for item in items]
            for name, items in self.items.items()
        }
        return digest_json(parts)

    def told(self) -> dict[str, Any]:
        """Plain data for a summary."""
        return {
            "files": {name: [str(path) for path in paths] for name, paths in self.files.items()},
            "shape": self.shape,
            "why": self.why,
            "splits": {name: len(items) for name, items in self.items.items()},
            "quarantine": self.quarantine.to_dict(),
            "identity": self.identity,
        }

    def lines(self) -> list[str]:
        """For a terminal: the splits, the shape, and what was left out, with a place to look at."""
        sizes = ", ".join(f"{len(items):,} {name}" for name, items in self.items.items())
        left_out = [f"left out  {line}" for line in _reasons(self.quarantine)]
        return [f"split     {sizes}", f"shape     {self.why}", *left_out]


@dataclass(frozen=True)
class TokenData:
    """The same as tokens."""

    examples: dict[str, list[TokenExample]]  # train and validation
    masks: dict[str, MaskReport]  # of every split
    cases: dict[str, list[Case]]  # validation and test


def read_items(config: DataConfig, wording: Wording) -> RawData:
    """Read, recognise and split.

    Raises:
        InputError: A file is missing or unreadable, rows have no known shape, or too few are left.
    """
    quarantine = Quarantine()
    files = {name: _files(config, name) for name in SPLITS}
    shape: Shape | None = None if config.shape == "auto" else config.shape
    why = ""
    parts: dict[str, list[Item]] = {}
    for name in SPLITS:
        if not files[name]:
            continue
        sample, rows = sample_rows(_rows(config, name, files[name], quarantine))
        if not sample:
            raise _nothing(config, name, quarantine)
        told = choose_shape(sample, config.columns, shape)
        shape, why = told[0], why or told[1]
        parts[name] = list(shape_rows(rows, shape, config.columns, wording, quarantine))
        if not parts[name]:
            raise _nothing(config, name, quarantine)
    assert shape is not None, "the training files are always there"
    held_out = {name: 0 if name in parts else getattr(config.splits, name) for name in SPLITS[1:]}
    splits = dataclasses.replace(config.splits, **held_out)
    own = split(parts["train"], splits, quarantine=quarantine)
    items = separate({**own, **parts, "train": own["train"]}, quarantine=quarantine)
    limits = (config.max_examples, config.max_test, config.max_test)
    chosen = {name: _first(items[name], limit) for name, limit in zip(SPLITS, limits, strict=True)}
    for name in parts:  # of a validation file that is the test file, say, nothing is left
        if not chosen[name]:
            raise _nothing(config, name, quarantine)
    return RawData(chosen, files, shape, why, quarantine)


def encode(
    data: RawData, renderer: Renderer, config: ExampleConfig, *, everything: bool
) -> TokenData:
    """Turn items into tokens.

    Raises:
        InputError: There is no chat template, or training on these would make no sense.
    """
    examples, masks = {}, {}
    for name in SPLITS:
        examples[name], masks[name] = encode_items(
            data.items[name], renderer, config, everything=everything
        )
        if data.items[name] and (name != "test" or not examples[name]):
            _check(masks[name], config, name)
    del examples["test"]  # neither learnt from nor watched
    cases = {name: make_cases(data.items[name], renderer, config) for name in SPLITS[1:]}
    return TokenData(examples, masks, cases)


def _check(mask: MaskReport, config: ExampleConfig, name: str) -> None:
    try:
        mask.check(config)
    except InputError as error:
        raise InputError(error.what, where=f"the {name} examples", fix=error.fix) from error


def make_cases(items: Sequence[Item], renderer: Renderer, config: ExampleConfig) -> list[Case]:
    """What a model is judged on: of a conversation, its last answer; of a text, each window.

    Items of which training would drop anything are left out here, too.
    """
    cases = []
    for item in items:
        examples, mask = encode_items([item], renderer, config)
        if not examples or mask.dropped:
            continue
        if item.text is None:
            cases.append(_answering(item, examples[-1], renderer))
        else:
            cases += [_reading(example, renderer) for example in examples]
    return cases


def _answering(item: Item, example: TokenExample, renderer: Renderer) -> Case:
    last = max(n for n, turn in enumerate(item.messages) if turn["role"] == "assistant")
    ids = example.ids.tolist()
    prompt = renderer.prompt(item.messages[:last])
    if ids[: len(prompt)] != prompt:  # its question was cut to fit
        prompt = ids[: _last_trained(example)]
    # Of several answers only the last is judged: it is the one that is generated.
    trained = [bool(on) and place >= len(prompt) for place, on in enumerate(example.trained)]
    return Case(
        id=item.id,
        prompt_ids=prompt,
        ids=ids,
        trained=trained,
        question=_question(item, last),
        reference=item.messages[last]["content"],
    )


def _last_trained(example: TokenExample) -> int:
    """Where the last stretch of trained tokens begins."""
    place = int(example.trained.nonzero()[0][-1])
    while place and example.trained[place - 1]:
        place -= 1
    return place


def _question(item: Item, last: int) -> str:
    """What the user said last, in the words of the data where they are known."""
    plain = item.fields.get("source") if item.shape == "parallel" else None
    asked = [turn["content"] for turn in item.messages[:last] if turn["role"] == "user"]
    return plain or (asked[-1] if asked else "")


def _reading(example: TokenExample, renderer: Renderer) -> Case:
    ids, trained = example.ids.tolist(), [bool(on) for on in example.trained]
    read = [id_ for id_, on in zip(ids, trained, strict=True) if on]
    return Case(example.id, [], ids, trained, "", renderer.tokenizer.decode(read))


def _files(config: DataConfig, name: str) -> list[Path]:
    files: Files | None = getattr(config, name)
    return [] if files is None else find_files(files)


def _rows(
    config: DataConfig, name: str, files: Sequence[Path], quarantine: Quarantine
) -> Iterator[Row]:
    targets: str | None = getattr(config, f"{name}_targets")
    if targets is None:
        return read_rows(files, quarantine=quarantine, format=config.format, header=config.header)
    return paired_rows(files, targets, quarantine, names=(name, f"{name}_targets"))


def paired_rows(
    files: Sequence[Path], targets: str, quarantine: Quarantine, *, names: tuple[str, str]
) -> Iterator[Row]:
    """The rows of line-aligned files, each with the file of its translations.

    Args:
        files: The sources.
        targets: Where the files of translations are, as many.
        quarantine: Takes pairs that cannot be used.
        names: What the user calls the two, for errors.

    Raises:
        InputError: There are more of one than of the other.
    """
    others = find_files(targets)
    if len(files) != len(others):
        raise InputError(
            f"{names[0]} is {len(files)} files and {names[1]} {len(others)}: they go in pairs",
            where=targets,
            fix="name as many of one as of the other",
        )
    pairs = zip(files, others, strict=True)
    return chain.from_iterable(read_parallel(a, b, quarantine=quarantine) for a, b in pairs)


def _first(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` items, in their order: those first by a hash of what they say."""
    if limit is None or len(items) <= limit:
        return list(items)
    ranks = [_rank(item) for item in items]
    chosen = sorted(range(len(items)), key=lambda number: ranks[number])[:limit]
    return [items[number] for number in sorted(chosen)]


def _rank(item: Item) -> bytes:
    said = [item.source, item.text or "", *(turn["content"] for turn in item.messages)]
    return hashlib.blake2b("\0".join(said).encode(), digest_size=16).digest()


def _nothing(config: DataConfig, name: str, quarantine: Quarantine) -> InputError:
    files: Files = getattr(config, name)
    return InputError(
        f"no example is left for the {name} split",
        where=files if isinstance(files, str) else ", ".join(files),
        fix="; ".join(_reasons(quarantine)) or "give more examples",
    )


def _reasons(quarantine: Quarantine) -> list[str]:
    """Each reason for which rows were left out, how often, and the first place."""
    lines = []
    for reason, count in quarantine.counts.most_common():
        cases = ((where, why) for where, why in quarantine.samples if why.startswith(reason))
        where, why = next(cases, ("", reason))
        lines.append(f"{count:,} x {why}" + (f" (the first: {where})" if where else ""))
    return lines
