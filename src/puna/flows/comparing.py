"""Several tuning methods on one budget: the same base, data, seeds and batches, side by side."""

from __future__ import annotations

import dataclasses
import gc
import os
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.artifact import digest_json, read_json, write_json, writing_file
from puna.config import to_dict
from puna.errors import InputError
from puna.evaluate import judge
from puna.flows.compare_methods import RECIPES, TRUNKS, Entrant, entrants, trunk_folder
from puna.flows.compare_rows import row_of
from puna.flows.compare_step import Step, run_apart
from puna.flows.opening import set_threads
from puna.flows.products import PRODUCT, RUN_FILE
from puna.flows.run_place import SUMMARY, held
from puna.flows.tune_recipe import TuneRecipe
from puna.flows.tune_report import compare_page
from puna.flows.tune_summary import told_machine
from puna.flows.tuning import Workbench
from puna.flows.watcher import Watcher
from puna.meter import Meter
from puna.report import write
from puna.report.words import number

COMPARISON, PAGE, BASE = "compare.json", "compare.html", "base.json"

Runner = Callable[[Step, Watcher], str | None]


@dataclass(frozen=True)
class CompareOptions:
    """Which methods, on what budget, and where to."""

    names: tuple[str, ...]
    """Of methods, or of the recipe's `compare`."""
    out: Path
    """A folder; each method has one in it."""
    budget_seconds: float | None = None
    """Training time of each; null: the recipe's epochs or steps."""
    force: bool = False
    """Begin each of these again."""
    resume: bool = False
    """There must be a comparison to go on with."""
    command: str = ""
    """What repeats the comparison, for the page."""


@dataclass(frozen=True)
class Comparison:
    """What was found."""

    path: Path
    page: Path
    told: Mapping[str, Any]  # compare.json: `rows`, `base`, `facts` ...

    @property
    def base(self) -> Mapping[str, Any] | None:
        """The base's figure of the metric that methods are compared by."""
        return _base_metric(self.told)


def compare(
    recipe: TuneRecipe, options: CompareOptions, watcher: Watcher, *, run: Runner = run_apart
) -> Comparison:
    """Tune by each method in turn, each in a process and a folder of its own, and compare them.

    The base is judged once. Each method fills a trunk cache of its own, which is removed when it
    is done: its time is its own, whoever came before. One that fails is told in the result, and
    the others go on. The same call again goes on where a killed one was left, and runs what had
    failed; a method that is finished is not run again.

    Args:
        recipe: What they have in common.
        options: What is compared.
        watcher: Is told how it goes.
        run: How one method is run; in the same process, say, in tests.

    Raises:
        InputError: The recipe, the data, the base, a name or the folder is not right.
        KeyboardInterrupt: Everything can be gone on with.
    """
    methods = entrants(recipe, options.names, options.budget_seconds)
    _check(options)
    set_threads(recipe.threads)
    with held(options.out):
        told = _begin(recipe, options, methods)
        if not (options.out / COMPARISON).exists():
            _write(options, told)
        ground = _prepare(recipe, options, methods, watcher)
        _check_runs(options, ground.identities)
        told["base"], told["model"] = ground.metrics, ground.model
        for number, entrant in enumerate(methods):
            watcher.note(f"{entrant.name} ({number + 1} of {len(methods)}): {entrant.told()}")
            told["rows"].append(_row(entrant, options, ground, watcher, run))
            _write(options, told)
        shutil.rmtree(options.out / TRUNKS, ignore_errors=True)
        told["state"] = "finished"
        told["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _write(options, told)
    return Comparison(options.out, options.out / PAGE, told)


# --- the folder -----------------------------------------------------------------------------------


def _check(options: CompareOptions) -> None:
    out = options.out
    if options.force and options.resume:
        raise InputError("--force begins again, and --resume goes on", fix="keep one of them")
    if options.resume and not (out / COMPARISON).is_file():
        raise InputError(
            "holds no comparison to go on with", where=out, fix="leave out --resume to begin one"
        )
    if not out.parent.is_dir():
        raise InputError(
            f"the folder {out.parent} does not exist", where=out, fix=f"mkdir -p {out.parent}"
        )
    if out.exists() and not out.is_dir():
        raise InputError("is a file; a comparison is a folder", where=out, fix="choose another")
    if (out / RUN_FILE).is_file():
        raise InputError(
            "holds a run of one method", where=out, fix="choose another --out for the comparison"
        )
    if out.is_dir() and any(out.iterdir()) and not (out / COMPARISON).is_file():
        name = min(path.name for path in out.iterdir())
        raise InputError(
            f"holds {name}, which is not of a comparison", where=out, fix="choose another --out"
        )


def _check_runs(options: CompareOptions, identities: Mapping[str, str]) -> None:
    """Refuse what would leave nothing of an earlier comparison but failures."""
    for name, identity in identities.items():
        folder = options.out / name
        told = _run_told(folder)
        if told and told.get("identity") != identity and not options.force:
            raise InputError(
                "holds a run of another recipe, other data or another base",
                where=folder,
                fix="choose another --out, remove this folder, or add --force to begin all again",
            )


def _run_told(folder: Path) -> Mapping[str, Any]:
    """The note of a run; empty where there is none."""
    place = folder / RUN_FILE
    told = read_json(place) if place.is_file() else {}
    return told if isinstance(told, dict) else {"state": "unknown"}


def _begin(
    recipe: TuneRecipe, options: CompareOptions, methods: Sequence[Entrant]
) -> dict[str, Any]:
    return {
        "kind": "comparison",
        "state": "running",
        "title": recipe.title or "Tuning methods compared",
        "command": options.command,
        "asked": to_dict(recipe),
        "facts": _facts(recipe, options, methods),
        "machine": told_machine(),
        "base": None,
        "rows": [],
    }


def _facts(
    recipe: TuneRecipe, options: CompareOptions, methods: Sequence[Entrant]
) -> dict[str, Any]:
    train = recipe.train
    if options.budget_seconds is not None:
        seconds = number(options.budget_seconds)
        budget = f"{seconds} s of training each; the last evaluation and checkpoint come on top"
    else:
        limits = (train.epochs, "epoch"), (train.max_steps, "step"), (train.max_seconds, "second")
        said = [f"{number(n)} {unit}{'s' * (n != 1)}" for n, unit in limits if n is not None]
        budget = f"at most {', '.join(said)} each"
    return {
        "base": recipe.model,
        "budget": budget,
        "seeds": f"{train.seed} of batches and dropout, {recipe.method_seed} of what is added",
        "time": "Training with its evaluations and checkpoints, and filling the trunk cache; "
        "opening and judging are left out.",
        "memory": "The highest while training, above what was held when the base was loaded.",
        "energy": "Of the same stages as the time.",
        "settings": {entrant.name: entrant.told() for entrant in methods},
    }


def _write(options: CompareOptions, told: Mapping[str, Any]) -> None:
    with writing_file(options.out / COMPARISON, force=True) as temporary:
        write_json(temporary, told)
    page = compare_page(
        told["rows"],
        base=_base_metric(told),
        title=told["title"],
        command=told["command"],
        facts={**told["facts"], "machine": told["machine"]},
    )
    write(page, options.out / PAGE, force=True)


def _base_metric(told: Mapping[str, Any]) -> Mapping[str, Any] | None:
    name = _deciding(told["asked"]["evaluation"]["metrics"], told["base"])
    return None if name is None else told["base"][name]


def _deciding(wanted: Sequence[str], base: Mapping[str, Any] | None) -> str | None:
    """The metric that methods are compared by: the first that the recipe names."""
    return next((name for name in wanted if name in base), None) if base else None


# --- the base, once -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ground:
    """What all methods stand on."""

    identities: Mapping[str, str]  # of each method's run
    before: Path | None  # the judgement of the base
    metrics: Mapping[str, Any] | None
    metric: str | None  # that decides
    model: Mapping[str, Any]


def _prepare(
    recipe: TuneRecipe, options: CompareOptions, methods: Sequence[Entrant], watcher: Watcher
) -> _Ground:
    """Read the data, open and judge the base; its memory is free again afterwards."""
    meter_config = dataclasses.replace(recipe.meter, use_codecarbon=False)
    with Meter(meter_config) as meter:
        bench = Workbench(recipe, meter, watcher)
    identities = {entrant.name: bench.identity_with(entrant.recipe) for entrant in methods}
    if options.force:
        (options.out / BASE).unlink(missing_ok=True)
    before = _judged(bench, options.out / BASE) if bench.data.cases["test"] else None
    metrics = None if before is None else read_json(before)["judgement"]["metrics"]
    metric = _deciding(recipe.evaluation.metrics, metrics)
    model = bench.told_model
    del bench
    gc.collect()
    return _Ground(identities, before, metrics, metric, model)


def _judged(bench: Workbench, place: Path) -> Path:
    """The file with the judgement of the base; an earlier one where it is of the same."""
    recipe, watcher = bench.recipe, bench.watcher
    asked = {
        "data": bench.raw.identity,
        "base": bench.base_identity,
        "template": bench.renderer.template,
        **{key: to_dict(recipe)[key] for key in ("evaluation", "examples", "device", "dtype")},
    }
    identity = digest_json(asked)
    if place.is_file() and read_json(place).get("identity") == identity:
        return place
    found = judge(
        bench.base.model,
        bench.base.tokenizer,
        bench.data.cases["test"],
        recipe.evaluation,
        stop_ids=bench.renderer.stop_ids,
        progress=lambda what, done, total: watcher.progress(
            f"judging the base: {what}", done, total
        ),
    )
    with writing_file(place, force=True) as temporary:
        write_json(temporary, {"identity": identity, "judgement": found.to_dict()})
    return place


# --- one method -----------------------------------------------------------------------------------


def _row(
    entrant: Entrant, options: CompareOptions, ground: _Ground, watcher: Watcher, run: Runner
) -> dict[str, Any]:
    folder = options.out / entrant.name
    if options.force or not _is_finished(folder, ground.identities[entrant.name]):
        error = run(_step(entrant, options, ground), watcher)
        watcher.end()
        shutil.rmtree(trunk_folder(options.out, entrant.name), ignore_errors=True)
        if error is not None:
            watcher.note(f"{entrant.name} failed: {error}")
            return {"name": entrant.name, "error": error, "folder": str(folder)}
    else:
        watcher.note(f"{entrant.name} is finished already")
    return row_of(entrant.name, read_json(folder / SUMMARY), folder, ground.metric)


def _is_finished(folder: Path, identity: str) -> bool:
    if not all((folder / name).exists() for name in (RUN_FILE, SUMMARY, PRODUCT)):
        return False
    told = _run_told(folder)
    return bool(told.get("state") == "finished" and told.get("identity") == identity)


def _step(entrant: Entrant, options: CompareOptions, ground: _Ground) -> Step:
    place = options.out / RECIPES / f"{entrant.name}.json"
    place.parent.mkdir(exist_ok=True)
    with writing_file(place, force=True) as temporary:
        write_json(temporary, to_dict(entrant.recipe))
    folder = options.out / entrant.name
    trunk_folder(options.out, entrant.name).mkdir(parents=True, exist_ok=True)
    return Step(
        recipe=place,
        out=folder,
        trunk_folder=trunk_folder(options.out, entrant.name),
        before=ground.before,
        force=options.force and os.path.lexists(folder),
        command=shlex.join(["puna", "tune", str(place), "--out", str(folder)]),
    )
