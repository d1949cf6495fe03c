"""What a model's name stands for: its product, its run, what it was made from, how it is asked.

Read from the small files only; no weights are touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from puna.artifact import find_manifest, read_json, read_manifest
from puna.config import from_dict
from puna.errors import InputError
from puna.flows.opening import MAX_STACKED, base_name, checkpoint_tokenizer, read_config
from puna.flows.products import (
    PRODUCT,
    RUN_FILE,
    Asking,
    checkpoint_asking,
    find_product,
    is_tuning,
    read_asking,
)
from puna.flows.run_place import PRETRAINING, SUMMARY
from puna.flows.tune_recipe import TuneRecipe
from puna.store import open_checkpoint
from puna.store.locate import locate
from puna.tokens import Tokenizer
from puna.tune import read_tuned


@dataclass(frozen=True)
class Subject:
    """A model that was named."""

    name: str
    path: Path
    """Of the product: a tuning or a checkpoint."""
    run: Path | None
    """The folder of the run that made it, where it lies in one."""

    @cached_property
    def base(self) -> str | None:
        """The name of the model that this one was made from; None where nothing says so."""
        if is_tuning(self.path):
            return read_tuned(self.path).base.name or None
        manifest = find_manifest(self.path)
        told = None if manifest is None else read_manifest(manifest)
        base = None if told is None else told["identity"]["config"].get("base")
        return base if isinstance(base, str) else None

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """What the run says of itself; empty where there is none."""
        place = None if self.run is None else self.run / SUMMARY
        told = read_json(place) if place is not None and place.is_file() else {}
        return told if isinstance(told, dict) else {}

    def recipe(self) -> TuneRecipe | None:
        """The recipe of the tuning run; None where there is none.

        Raises:
            InputError: It is of another version of puna.
        """
        asked = self.summary.get("asked")
        if not isinstance(asked, dict) or self.run is None:
            return None
        if self.summary.get("kind") == PRETRAINING:  # it held out documents, not examples
            return None
        return from_dict(TuneRecipe, asked, str(self.run / SUMMARY))

    @cached_property
    def foundation(self) -> Path:
        """The checkpoint at the bottom: of a tuning its base's, of a checkpoint its own.

        Raises:
            InputError: A base is not here.
        """
        *_, bottom = self._stack()
        return bottom

    def _stack(self) -> Iterator[Path]:
        """The product, and what it stands on, down to a checkpoint."""
        path = self.path
        for _ in range(MAX_STACKED + 1):
            yield path
            if not is_tuning(path):
                return
            name = base_name(read_tuned(path))
            try:
                path = find_product(locate(name).path)
            except InputError as error:
                raise InputError(
                    f"needs its base {name!r}: {error.what}", where=path, fix=error.fix
                ) from error
        raise InputError(f"stands on more than {MAX_STACKED} other tunings", where=self.path)

    def asking(self) -> Asking | None:
        """How it was taught to be asked; None where it does not say.

        Raises:
            InputError: What it says is damaged, or a base is not here.
        """
        for path in self._stack():
            if not is_tuning(path):
                return checkpoint_asking(open_checkpoint(path))
            told = read_asking(path)
            if told is not None:
                return told
        return None

    def tokenizer(self) -> tuple[Tokenizer, int]:
        """The tokenizer, and the tokens that the model takes.

        Raises:
            InputError: There is none, or the checkpoint is damaged.
        """
        checkpoint = open_checkpoint(self.foundation)
        config = read_config(checkpoint)
        return checkpoint_tokenizer(checkpoint, config), config.max_position_embeddings


def find_subject(name: str) -> Subject:
    """Find a model by name: a run, a tuning, a checkpoint.

    Raises:
        InputError: There is none, or it is a run that is not finished.
    """
    path = locate(name).path
    product = find_product(path)
    if product != path:
        return Subject(name, product, path)
    inside = path.resolve().name == PRODUCT and (path.resolve().parent / RUN_FILE).is_file()
    return Subject(name, path, path.resolve().parent if inside else None)


def same_model(first: Subject, second: Subject) -> bool:
    """Whether two names stand for one product."""
    return first.path.resolve() == second.path.resolve()
