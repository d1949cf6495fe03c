"""`puna tokenize`: documents in, shards of tokens out."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from puna.cli.progress import ReportOptions
from puna.cli.watching import watching
from puna.config import load_recipe
from puna.errors import InputError
from puna.flows.tokenize_recipe import TokenizeRecipe
from puna.flows.tokenize_trial import rehearse
from puna.flows.tokenizing import TokenizeOptions
from puna.flows.tokenizing import tokenize as tokenize_flow


@dataclass(frozen=True)
class Where:
    """Where the shards go."""

    out: Path | None = None
    """The folder to make."""
    force: bool = False
    """Replace the shards that are there, and begin unfinished ones again."""
    dry_run: bool = False
    """Print what would be done, tried on the first documents, and stop."""


def tokenize(
    recipe: Path,
    *overrides: str,
    where: Annotated[Where, Parameter(name="*")] = Where(),
    report: Annotated[ReportOptions, Parameter(name="*")] = ReportOptions(),  # noqa: B008
) -> None:
    """Turn documents into shards of tokens, which models are pretrained on.

    A vocabulary is learnt, taken from a model, or extended. The same command again goes on where an
    interrupted one was left.

    Args:
        recipe: A YAML file; see recipes/tokenize.yaml.
        overrides: key=value in place of the recipe's, such as held_out=0.01.
    """
    config = load_recipe(recipe, TokenizeRecipe, overrides)
    if where.dry_run:
        for line in rehearse(config):
            print(line)
        return
    if where.out is None:
        raise InputError("no folder is named for the shards", fix="add --out FOLDER")
    command = shlex.join(["puna", "tokenize", str(recipe), *overrides, "--out", str(where.out)])
    options = TokenizeOptions(where.out, where.force, command)
    with watching(report) as watcher:
        done = tokenize_flow(config, options, watcher)
    if report.quiet:
        return
    if not done.fresh:
        print("these shards are here already; --force makes them again", file=sys.stderr)
    for line in done.lines():
        print(line, file=sys.stderr)
    print(f"shards     {done.path}", file=sys.stderr)
    print(f"use them   puna pretrain RECIPE shards={done.path}", file=sys.stderr)
