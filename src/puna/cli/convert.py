"""`puna convert`: another format, the same model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from puna.artifact import format_bytes
from puna.cli.progress import ReportOptions, reporting
from puna.errors import InputError
from puna.flows import convert as flow
from puna.flows.products import find_product, is_tuning
from puna.store.locate import locate


def convert(
    source: str,
    target: Path,
    *,
    options: Annotated[flow.ConvertOptions, Parameter(name="*", negative_bool="no-")],
    report: Annotated[ReportOptions, Parameter(name="*")] = ReportOptions(),  # noqa: B008
) -> None:
    """Write a checkpoint in another format, tensor by tensor, and compare the two.

    Args:
        source: A path, an alias, a packaged model, owner/name on the hub, or a run.
        target: The folder (hf, meta) or the .gguf file to make.
    """
    place = find_product(locate(source).path)
    if is_tuning(place):
        raise InputError(
            "is a tuning, which needs its base",
            where=place,
            fix=f"puna merge {source} {target} --to {options.to}",
        )
    with reporting(report, "parts") as progress:
        done = flow.convert(place, target, options, progress=progress)
    if report.quiet:
        return
    size = sum(p.stat().st_size for p in [done.path, *done.path.rglob("*")] if p.is_file())
    print(f"{done.path}: {format_bytes(size)} in {done.seconds:.1f} s", file=sys.stderr)
    if done.verdict is None:
        print("not compared with its source (--no-verify); the manifest says so", file=sys.stderr)
    else:
        print(done.verdict.sentence(), file=sys.stderr)
