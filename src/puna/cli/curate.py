"""`puna curate`: raw text in, documents worth training on out."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import puna.corpus  # noqa: F401  first, since it says which extra is missing
from puna.cli.places import default_place
from puna.cli.progress import ReportOptions
from puna.cli.watching import watching
from puna.config import load_recipe
from puna.flows.curate_recipe import CurateRecipe
from puna.flows.curating import CurateOptions
from puna.flows.curating import curate as curate_flow
from puna.records.corpus_folder import REPORT


@dataclass(frozen=True)
class Where:
    """Where the corpus goes."""

    out: Path | None = None
    """The folder to make; runs/NAME-OF-THE-RECIPE by default."""
    force: bool = False
    """Replace the corpus that is there."""
    ray: str | None = None
    """Address of a Ray cluster that does the work; its nodes see the same files."""
    sample: int | None = None
    """Read about so many documents only, from several places: a look at what a recipe does."""


def curate(
    recipe: Path,
    *overrides: str,
    where: Annotated[Where, Parameter(name="*")] = Where(),
    report: Annotated[ReportOptions, Parameter(name="*")] = ReportOptions(),  # noqa: B008
) -> None:
    """Turn raw text into a clean, deduplicated, documented corpus.

    Every document that is dropped has a counted reason. The same command again goes on where an
    interrupted one was left.

    Args:
        recipe: A YAML file; see recipes/curate-documentation.yaml.
        overrides: key=value in place of the recipe's, such as workers=1.
    """
    config = load_recipe(recipe, CurateRecipe, overrides)
    kind = "" if where.sample is None else "-sample"
    out = where.out or default_place(f"{recipe.stem}{kind}")
    words = ["puna", "curate", str(recipe), *overrides, "--out", str(out)]
    words += [] if where.ray is None else ["--ray", where.ray]
    words += [] if where.sample is None else ["--sample", str(where.sample)]
    command = shlex.join(words)
    with watching(report) as watcher:
        options = CurateOptions(out, where.force, command, where.ray, where.sample)
        done = curate_flow(config, options, watcher)
    if report.quiet:
        return
    if not done.fresh:
        print("this corpus is here already; --force makes it again", file=sys.stderr)
    for line in done.lines():
        print(line, file=sys.stderr)
    print(f"corpus             {done.path}", file=sys.stderr)
    print(f"report             {done.path / REPORT}", file=sys.stderr)
    print(f"use it             puna tokenize RECIPE corpus={done.path}", file=sys.stderr)
