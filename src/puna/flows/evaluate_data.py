"""What a model is judged on: the test data of a run, or files; asked in its words, as tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from puna.artifact import digest_json
from puna.errors import InputError
from puna.evaluate import Case
from puna.flows.tune_data import make_cases, paired_rows, read_items
from puna.flows.tune_recipe import TuneRecipe
from puna.records import (
    Columns,
    Format,
    Item,
    Quarantine,
    Row,
    Shape,
    Wording,
    choose_shape,
    find_files,
    read_rows,
    sample_rows,
    shape_rows,
)
from puna.tokens.examples import ExampleConfig, encode_items
from puna.tokens.mask_report import MaskReport
from puna.tokens.rendering import Renderer

CONVERSATIONS = ("messages", "sharegpt")  # shapes that bring words of their own


@dataclass(frozen=True)
class DataOptions:
    """What it is judged on. By default the test examples of the run that made it."""

    data: tuple[str, ...] = ()
    """Files, globs, folders, package:NAME or hub:OWNER/NAME; every row of them is asked."""
    targets: str | None = None
    """A file whose lines are the translations of those of --data."""
    format: Format | Literal["auto"] = "auto"
    """Of the files; auto goes by their suffixes."""
    shape: Shape | Literal["auto"] = "auto"
    """Of the rows; auto recognises it and says why."""
    columns: Columns = field(default_factory=Columns)
    """Columns whose names are not the shape's own."""
    max_tokens: int | None = None
    """How long an example may be, tokens; 1024 or the recipe's, and never beyond the context."""


@dataclass(frozen=True)
class TestData:
    """Items to be judged on, and how they were found."""

    __test__ = False  # no test of pytest's

    items: list[Item]
    files: list[Path]
    shape: Shape
    why: str
    quarantine: Quarantine
    wording: Wording  # as it was used
    notes: tuple[str, ...] = ()

    def identity(self) -> str:
        """A digest over what every item says, in order."""
        said = [[item.text, [dict(turn) for turn in item.messages]] for item in self.items]
        return digest_json(said)


@dataclass(frozen=True)
class AsTokens:
    """The same for one tokenizer and template."""

    cases: list[Case]
    mask: MaskReport


def read_files(options: DataOptions, wording: Wording, *, insist: bool) -> TestData:
    """All rows of files; none is dropped for being there twice, as published test sets have them.

    Args:
        options: The files.
        wording: How rows become turns.
        insist: The user asked for this wording; otherwise rows with words of their own keep them.

    Raises:
        InputError: A file is missing or unreadable, or its rows have no known shape.
    """
    quarantine = Quarantine()
    files = find_files(options.data)
    sample, rows = sample_rows(_rows(options, files, quarantine))
    if not sample:
        raise InputError("there is no row", where=", ".join(options.data), fix=_why(quarantine))
    wanted = None if options.shape == "auto" else options.shape
    shape, why = choose_shape(sample, options.columns, wanted)
    notes = []
    if shape in CONVERSATIONS and not insist and (wording.prompt or wording.answer):
        wording = Wording(system=wording.system)
        notes.append("These rows are conversations: they are asked in their own words.")
    items = list(shape_rows(rows, shape, options.columns, wording, quarantine))
    return TestData(items, files, shape, why, quarantine, wording, tuple(notes))


def read_test_split(recipe: TuneRecipe, wording: Wording, told: dict[str, Any]) -> TestData:
    """The test examples of a run, as its recipe divides its data.

    Args:
        recipe: Of the run.
        wording: How rows become turns.
        told: What the run's summary says of its data.

    Raises:
        InputError: A file is not there any more, or nothing was held out.
    """
    try:
        raw = read_items(recipe.data, wording)
    except InputError as error:
        raise InputError(
            f"the run's own test data cannot be read: {error.what}",
            where=error.where,
            fix=f"{error.fix or 'call from the folder that the run was made in'}; or name other "
            "files with --data",
        ) from error
    if not raw.items["test"]:
        raise InputError("the run held out no test examples", fix="name files with --data")
    notes = []
    identity = told.get("identity")
    if identity is not None and wording == recipe.wording and identity != raw.identity:
        notes.append("The data have changed since the run: its own figures are of other examples.")
    files = raw.files["test"] or raw.files["train"]
    return TestData(
        raw.items["test"], files, raw.shape, raw.why, raw.quarantine, wording, tuple(notes)
    )


def as_tokens(test: TestData, renderer: Renderer, config: ExampleConfig) -> AsTokens:
    """What one model is given of the data.

    Raises:
        InputError: There is no chat template, or no example is left.
    """
    cases = make_cases(test.items, renderer, config)
    _, mask = encode_items(test.items, renderer, config)
    if not cases:
        reasons = [f"{n:,} x {reason}" for reason, n in mask.dropped.items()]
        raise InputError(
            "no example is left to judge by",
            where=", ".join(map(str, test.files[:3])),
            fix="; ".join([*reasons, _why(test.quarantine)]),
        )
    return AsTokens(cases, mask)


def fitting(config: ExampleConfig, options: DataOptions, context: int) -> ExampleConfig:
    """How long an example may be for a model that takes `context` tokens."""
    wanted = config.max_tokens if options.max_tokens is None else options.max_tokens
    return dataclasses.replace(config, max_tokens=min(wanted, context))


def in_common(first: Sequence[Case], second: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """The cases that two models share: what is too long for one is asked of neither."""
    shared = {case.id for case in first} & {case.id for case in second}
    return [c for c in first if c.id in shared], [c for c in second if c.id in shared]


def _rows(options: DataOptions, files: Sequence[Path], quarantine: Quarantine) -> Iterator[Row]:
    if options.targets is None:
        return read_rows(files, quarantine=quarantine, format=options.format)
    return paired_rows(files, options.targets, quarantine, names=("--data", "--targets"))


def _why(quarantine: Quarantine) -> str:
    return "; ".join(quarantine.lines()) or "give more examples"
