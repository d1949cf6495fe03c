"""Sides that run in a process of their own, and what they told, kept for a bench that goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bench.work import Work

Told = dict[str, Any]  # what a side printed


class Asked(Protocol):
    """What a side is asked to do: a frozen dataclass of plain data."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    PLACES: ClassVar[tuple[str, ...]]  # the fields that differ from one bench to the next
    out: str  # the folder that the side may write to; it exists


def told(work: Work, module: str, spec: Asked, summary: Callable[[Told], str]) -> Told:
    """What a side tells, or told to a bench that was broken off.

    Args:
        work: Says where that is kept.
        module: What runs: it is given the path of the specification, and prints a line of JSON.
        spec: The specification. The name of its folder is the name of the run.
        summary: What to say of it on the way.
    """
    name = Path(spec.out).name
    kept = (work.kept or work.folder.parent) / f"{name}.json"
    plain = {key: value for key, value in asdict(spec).items() if key not in spec.PLACES}
    asked = {"module": module, **plain}
    if kept.exists() and (before := json.loads(kept.read_text()))["asked"] == asked:
        found: Told = before["told"]
    else:
        found = _run(module, spec)
        kept.write_text(json.dumps({"asked": asked, "told": found}))
    print(f"{name}: {summary(found)}", file=sys.stderr, flush=True)
    return found


def _run(module: str, spec: Asked) -> Told:
    out = Path(spec.out)
    out.mkdir(parents=True)
    path = out / "spec.json"
    path.write_text(json.dumps(asdict(spec)))
    done = subprocess.run(
        [sys.executable, "-m", module, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOMP_SPINCOUNT": "1000"},  # as our command line sets it; for all
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-3000:]}")
    found: Told = json.loads(done.stdout.strip().splitlines()[-1])
    shutil.rmtree(out)  # checkpoints and the like, which many turns would fill a disk with
    return found
