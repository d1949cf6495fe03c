"""`puna pretrain`: shards and a recipe in, a base model and a report out."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from puna.cli.places import default_place
from puna.cli.progress import ReportOptions
from puna.cli.watching import watching
from puna.config import load_recipe_with_origins
from puna.flows.pretrain_recipe import PretrainRecipe
from puna.flows.pretrain_told import closing_lines
from puna.flows.pretraining import Pretraining, PretrainOptions
from puna.flows.pretraining import pretrain as pretrain_flow


@dataclass(frozen=True)
class Where:
    """Where the run goes, and how it begins."""

    out: Path | None = None
    """The folder of the run; runs/ and the name of the recipe by default."""
    force: bool = False
    """Remove the run that is there, and begin again."""
    resume: bool = False
    """There must be a run to go on with. Without it too, the same command goes on."""
    dry_run: bool = False
    """Print the recipe, the figures and what the run would take, and stop."""


def pretrain(
    recipe: Path,
    *overrides: str,
    where: Annotated[Where, Parameter(name="*")] = Where(),
    report: Annotated[ReportOptions, Parameter(name="*")] = ReportOptions(),  # noqa: B008
) -> None:
    """Raise a model from fresh weights on the shards of a recipe; write it with a report.

    The same command again goes on where an interrupted run was left. On several GPUs or machines:
    torchrun --nproc-per-node N -m puna pretrain RECIPE; any N goes on where another one was left.

    Args:
        recipe: A YAML file; see recipes/ for some to copy.
        overrides: key=value in place of the recipe's, such as tokens=10_000_000 model=laptop-30m.
    """
    config, origins = load_recipe_with_origins(recipe, PretrainRecipe, overrides)
    with watching(report) as watcher:
        if where.dry_run:
            from puna.flows.pretrain_trial import rehearse

            for line in rehearse(config, origins, watcher):
                print(line)
            return
        out = where.out or default_place(recipe.stem)
        command = shlex.join(["puna", "pretrain", str(recipe), *overrides, "--out", str(out)])
        options = PretrainOptions(out, where.force, where.resume, command)
        done = pretrain_flow(config, options, watcher)
    if done.first and not report.quiet:
        _tell(done)


def _tell(done: Pretraining) -> None:
    if not done.fresh:
        print("this run is finished already; --force begins it again", file=sys.stderr)
    for line in closing_lines(done.summary):
        print(line, file=sys.stderr)
    print(f"report   {done.report}", file=sys.stderr)
    print(f'use it   puna generate --model {done.path} "..."', file=sys.stderr)
