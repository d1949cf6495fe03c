"""`puna tune`: a recipe in, a judged model and a report out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from puna.cli.places import default_place
from puna.cli.progress import ReportOptions
from puna.cli.watching import watching
from puna.config import load_recipe_with_origins
from puna.errors import InputError
from puna.flows.tune_recipe import TuneRecipe
from puna.flows.tuning import TuneOptions, Tuning
from puna.flows.tuning import tune as tune_flow


@dataclass(frozen=True)
class Versus:
    """Several methods side by side."""

    compare: str | None = None
    """Methods to run in turn on the same data, seeds and batches, such as full,lora,dora; full,
    top_layers, lora, dora and adapter are known, and what the recipe's `compare` names."""
    budget_seconds: float | None = None
    """With --compare: equal training time for each, in place of the recipe's epochs and steps."""


@dataclass(frozen=True)
class Where:
    """Where the run goes, and how it begins."""

    out: Path | None = None
    """The folder of the run; runs/ and the name of the recipe by default. A comparison has one
    run in it for each method."""
    force: bool = False
    """Remove the run that is there, and begin again."""
    resume: bool = False
    """There must be a run to go on with. Without it too, the same command goes on."""
    dry_run: bool = False
    """Print the recipe, the figures and what the run would take, and stop."""


def tune(
    recipe: Path,
    *overrides: str,
    versus: Annotated[Versus, Parameter(name="*")] = Versus(),
    where: Annotated[Where, Parameter(name="*")] = Where(),
    report: Annotated[ReportOptions, Parameter(name="*")] = ReportOptions(),  # noqa: B008
) -> None:
    """Tune a model by a recipe; judge it against its base; write the model and a report.

    The same command again goes on where an interrupted run was left. With --compare several
    methods are run, and a table and a page set their quality against what each of them takes.

    Args:
        recipe: A YAML file; see recipes/ for some to copy.
        overrides: key=value in place of the recipe's, such as method.rank=16 train.epochs=2.
    """
    config, origins = load_recipe_with_origins(recipe, TuneRecipe, overrides)
    if versus.compare is not None:
        _compare(config, _names(versus.compare), versus, where, report, (recipe, *overrides))
        return
    if versus.budget_seconds is not None:
        raise InputError(
            "--budget-seconds goes with --compare",
            fix=f"for one method: train.max_seconds={versus.budget_seconds:g} train.epochs=null",
        )
    with watching(report) as watcher:
        if where.dry_run:
            from puna.flows.tune_trial import rehearse

            for line in rehearse(config, origins, watcher):
                print(line)
            return
        out = where.out or default_place(recipe.stem)
        options = TuneOptions(out, where.force, where.resume, _command(recipe, overrides, out))
        done = tune_flow(config, options, watcher)
    if not report.quiet:
        _tell(done)


def _compare(
    config: TuneRecipe,
    names: tuple[str, ...],
    versus: Versus,
    where: Where,
    report: ReportOptions,
    asked: Sequence[Path | str],
) -> None:
    from puna.flows.compare_methods import entrants
    from puna.flows.compare_rows import table
    from puna.flows.comparing import CompareOptions, compare

    if where.dry_run:
        for entrant in entrants(config, names, versus.budget_seconds):
            print(f"{entrant.name}: {entrant.told()}")
        print("of one of them more is told by --dry-run without --compare", file=sys.stderr)
        return
    out = where.out or default_place(f"{Path(asked[0]).stem}-compared")
    budget = versus.budget_seconds
    words = ["--compare", ",".join(names)]
    words += [] if budget is None else ["--budget-seconds", f"{budget:g}"]
    command = shlex.join(["puna", "tune", *map(str, asked), *words, "--out", str(out)])
    options = CompareOptions(names, out, budget, where.force, where.resume, command)
    with watching(report) as watcher:
        done = compare(config, options, watcher)
    print("\n".join(table(done.told["rows"], done.base)))
    print(f"page     {done.page}", file=sys.stderr)
    if all("error" in row for row in done.told["rows"]):
        raise InputError("every method failed", where=out, fix="see what is said of each")


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def _command(recipe: Path, overrides: tuple[str, ...], out: Path) -> str:
    return shlex.join(["puna", "tune", str(recipe), *overrides, "--out", str(out)])


def _tell(done: Tuning) -> None:
    if not done.fresh:
        print("this run is finished already; --force begins it again", file=sys.stderr)
    for name, metric in ((done.summary.get("after") or {}).get("metrics") or {}).items():
        before = (done.summary.get("before") or {})["metrics"][name]
        print(f"{name}: {_figure(before)} -> {_figure(metric)}", file=sys.stderr)
    if said := (done.summary.get("memory") or {}).get("sentence"):
        print(said, file=sys.stderr)
    print(f"report   {done.report}", file=sys.stderr)
    print(f'use it   puna generate --model {done.path} "..."', file=sys.stderr)


def _figure(metric: dict[str, float]) -> str:
    return f"{metric['value']:.3g} [{metric['low']:.3g}, {metric['high']:.3g}]"
