"""From raw text to a corpus, in a folder that appears whole, with a report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from puna.artifact import (
    BESIDE,
    MANIFEST,
    check_free,
    digest_file,
    digest_json,
    manifest,
    write_json,
    writing_folder,
)
from puna.config import to_dict
from puna.corpus import step as steps
from puna.corpus.decontaminate import DecontaminateConfig, evaluation_digest
from puna.corpus.dedup import (
    Clusters,
    dropping,
    find_exact_duplicates,
    find_near_duplicates,
    find_repeated_lines,
    removing_lines,
)
from puna.corpus.model_score import ScoreConfig
from puna.corpus.read import ReadUnit, plan_units
from puna.corpus.step import Apply
from puna.errors import InputError
from puna.flows.curate_corpus import write_documents, write_quarantine
from puna.flows.curate_counts import Counts, total
from puna.flows.curate_opening import corpus_lines
from puna.flows.curate_recipe import CurateRecipe
from puna.flows.curate_report import curate_page
from puna.flows.curate_seen import Seen
from puna.flows.curate_told import told_summary
from puna.flows.curate_unit import Json, read_told
from puna.flows.listener import Listener
from puna.flows.workspace import ASKED, holding_workspace, is_made
from puna.meter import Meter
from puna.records.corpus_folder import (
    CORPUS,
    QUARANTINE,
    REPORT,
    SUMMARY,
    cluster_file,
    read_summary,
)
from puna.report import write as write_page
from puna.scale.cores import cores
from puna.scale.executor import Executor, Limits, LocalExecutor, Task, Work
from puna.scale.units import UnitStore

SAMPLE_UNITS = 8
LIKELIHOOD = "puna.flows.curate_scorer:open_likelihood"
WORKER = "puna.flows.curate_unit:open_worker"


@dataclass(frozen=True)
class CurateOptions:
    """Where the corpus goes."""

    out: Path
    """The folder to make."""
    force: bool = False
    """Replace the corpus that is there."""
    command: str = ""
    """What repeats the run, for the manifest."""
    ray: str | None = None
    """Address of a Ray cluster whose nodes do the units, and see the same files; None: this
    machine does."""
    sample: int | None = None
    """Read about so many documents only, from several places; None: all."""


@dataclass(frozen=True)
class Curated:
    """What a run made."""

    path: Path
    summary: Json
    fresh: bool
    """False: all was there already."""

    def lines(self) -> list[str]:
        """For a terminal."""
        return corpus_lines(self.summary)


def curate(recipe: CurateRecipe, options: CurateOptions, listener: Listener) -> Curated:
    """Make a corpus.

    The same call again goes on where a killed one was left: units that are done are not done again.

    Raises:
        InputError: Something in the recipe, the files or the folder is not right.
    """
    out = options.out
    if not out.parent.is_dir():
        check_free(out, folder=True)
    began = time.perf_counter()
    units = [
        unit
        for name, source in recipe.sources.items()
        for unit in plan_units(name, source, recipe.unit_bytes)
    ]
    each = None
    if options.sample is not None:
        units = _some(units, options.sample)
        each = max(1, options.sample // len(units))
    told_units = [unit.to_dict() for unit in units]
    asked = digest_json(
        {
            "recipe": recipe.hashed(),
            "units": told_units,
            "sample": each,
            "judged": _judged(recipe),
        }
    )
    if not options.force and is_made(out, CORPUS, asked):
        return Curated(out, read_summary(out), fresh=False)
    check_free(out, force=options.force, folder=True)
    with holding_workspace(out, "curating") as work, Meter(recipe.meter) as meter:
        run = _Run(recipe, options, units, UnitStore(work, tell=listener.note), listener, meter)
        run.sample = each
        run.map_units()
        run.find_duplicates()
        run.publish(asked, began)
    shutil.rmtree(work, ignore_errors=True)
    return Curated(out, read_summary(out), fresh=True)


class _Run:
    """One run over its units."""

    def __init__(
        self,
        recipe: CurateRecipe,
        options: CurateOptions,
        units: Sequence[ReadUnit],
        store: UnitStore,
        listener: Listener,
        meter: Meter,
    ) -> None:
        self.recipe, self.options, self.units = recipe, options, units
        self.store, self.listener, self.meter = store, listener, meter
        self.sample: int | None = None  # documents that are read of each unit
        self.failed: list[Json] = []
        self.clusters: list[Clusters] = []
        self.last: list[tuple[str, Apply]] = []  # the steps that need to know all documents

    @cached_property
    def keys(self) -> list[str]:
        """Of the units: of all that their result depends on."""
        from puna import __version__

        asked = {
            "steps": [steps.identity(step) for step in self.recipe.steps],
            "judged": _judged(self.recipe),
            "sources": {n: to_dict(source) for n, source in self.recipe.sources.items()},
            "dedup": to_dict(self.recipe.dedup),
            "excerpt": self.recipe.excerpt,
            "sample": self.sample,
            "puna": __version__,
        }
        shared = digest_json(asked)
        return [digest_json({"asked": shared, "unit": u.to_dict()})[:32] for u in self.units]

    @cached_property
    def folders(self) -> list[Path]:
        """Of the units that are done, in their order."""
        failed = {one["key"] for one in self.failed}
        return [self.store.place(key) for key in self.keys if key not in failed]

    def map_units(self) -> None:
        """Do all units that are not done."""
        tasks = [
            Task(key, {"key": key, "unit": unit.to_dict()})
            for key, unit in zip(self.keys, self.units, strict=True)
            if not self.store.is_done(key)
        ]
        done = len(self.units) - len(tasks)
        if done:
            self.listener.note(f"{done} of {len(self.units)} units are done already")
        shared = {
            "steps": to_dict(self.recipe.unit_steps()),
            "store": str(self.store.folder),
            "excerpt": self.recipe.excerpt,
            "sample": self.sample,
        }
        executor = self._executor()
        with self.meter.stage("reading and filtering"):
            for outcome in executor.run(tasks, Work(WORKER, shared)):
                done += 1
                self.listener.progress("curating", done, len(self.units))
                if outcome.error is not None:
                    self._give_up(outcome.key, outcome.error)

    def _executor(self) -> Executor:
        limits, workers = Limits(task_seconds=self.recipe.task_seconds), self.recipe.workers
        if self.options.ray is None:
            return LocalExecutor(workers or cores(), limits)
        from puna.scale.ray_executor import RayExecutor

        return RayExecutor(self.options.ray, workers, limits)

    def _give_up(self, key: str, error: str) -> None:
        places = [piece.place for piece in self.units[self.keys.index(key)].pieces]
        where = places[0] if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"
        self.failed.append({"key": key, "locator": where, "reason": f"the unit failed: {error}"})
        self.listener.note(f"{where}: the unit failed and is left out: {error}")

    def find_duplicates(self) -> None:
        """Find what is there more than once, over all units."""
        dedup, folders, work = self.recipe.dedup, self.folders, self.store.folder
        with self.meter.stage("duplicates"):
            if dedup.lines is not None:
                repeated = find_repeated_lines(folders, dedup.lines)
                self.last.append((dedup.lines.step, removing_lines(repeated, dedup.lines)))
            exact = None
            if dedup.exact is not None:
                exact = find_exact_duplicates(folders, dedup.exact, work)
                self._drop(exact)
            if dedup.near is not None:  # which must know what is gone, or no copy might stay
                self._drop(find_near_duplicates(folders, dedup.near, work, exact))

    def _drop(self, found: Clusters) -> None:
        self.clusters.append(found)
        self.last.append((found.reason, dropping(found)))

    def publish(self, asked: str, began: float) -> None:
        """Write the corpus, its report and its manifest."""
        told = [read_told(folder) for folder in self.folders]
        counts = total(Counts.from_dict(one["counts"]) for one in told)
        with (
            writing_folder(self.options.out, force=self.options.force) as folder,
            self.meter.stage("writing"),
        ):
            seen = Seen(self.recipe.steps, self.clusters)
            kept = write_documents(
                self.folders,
                self.last,
                folder,
                counts=counts,
                seen=seen,
                part_bytes=self.recipe.part_bytes,
                excerpt=self.recipe.excerpt,
            )
            samples = [*self.failed, *(s for one in told for s in one["samples"])]
            write_quarantine(samples, folder / QUARANTINE)
            for found in self.clusters:
                found.save(cluster_file(folder, found.reason))
            summary = told_summary(self.recipe, counts, told, kept)
            summary["quarantine"]["samples"] = samples[:20]
            summary["quarantine"]["total"] += len(self.failed)
            summary["command"] = self.options.command
            summary["seconds"] = round(time.perf_counter() - began, 3)
            summary["scores"] = seen.scores()
            summary["clusters"] = seen.clusters()
            summary["ledger"] = self.meter.to_dict()
            write_json(folder / SUMMARY, summary)
            write_page(curate_page(summary), folder / REPORT)
            self._write_manifest(folder, asked)

    def _write_manifest(self, folder: Path, asked: str) -> None:
        # The report and the summary tell times: they are no part of what a corpus is.
        files = {
            str(path.relative_to(folder)): digest_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in (SUMMARY, REPORT)
        }
        told = manifest(
            CORPUS,
            config={"made by": "curate", "asked": self.recipe.hashed()},
            parents=[f"units {digest_json(self.keys)}"],
            files=files,
            measured={
                ASKED: asked,
                BESIDE: [SUMMARY, REPORT],
                "command": self.options.command,
                "cost": self.meter.to_dict(),
            },
        )
        write_json(folder / MANIFEST, told)


def _some(units: Sequence[ReadUnit], documents: int) -> list[ReadUnit]:
    """A few units from all over, so that a sample is not of the first file alone.

    Raises:
        InputError: No document is asked for.
    """
    if documents < 1:
        raise InputError(f"a sample has at least 1 document, not {documents}")
    count = min(len(units), SAMPLE_UNITS, documents)
    return [units[place * len(units) // count] for place in range(count)]


def _judged(recipe: CurateRecipe) -> list[str]:
    """What steps go by that their configuration does not hold: files and models."""
    found = [evaluation_digest(s) for s in recipe.steps if isinstance(s, DecontaminateConfig)]
    for step in recipe.steps:
        if isinstance(step, ScoreConfig) and step.factory == LIKELIHOOD:
            from puna.flows.curate_scorer import judging_identity  # which imports torch

            found.append(judging_identity(step.arguments))
    return found
