"""`puna merge`: a tuning and its base become one plain checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from puna.artifact import format_bytes
from puna.cli.progress import ReportOptions, reporting
from puna.flows import merging as flow


def merge(
    tuning: str,
    target: Path,
    *,
    options: Annotated[
        flow.MergeOptions, Parameter(name="*", negative_bool="no-")
    ] = flow.MergeOptions(),  # noqa: B008
    report: Annotated[ReportOptions, Parameter(name="*")] = ReportOptions(),  # noqa: B008
) -> None:
    """Write a tuned model as one plain checkpoint, which needs no base and any program reads.

    What was learnt is added to the weights (lora, dora), or takes their place (top_layers). The
    words and the chat template of the recipe stay with the model.

    Args:
        tuning: The folder of a run or of a tuning.
        target: The folder (hf, meta) or the .gguf file to make.
    """
    with reporting(report, "parts") as progress:
        done = flow.merge(tuning, target, options, progress=progress)
    if report.quiet:
        return
    product = done.product
    size = sum(p.stat().st_size for p in [product.path, *product.path.rglob("*")] if p.is_file())
    said = [
        f"{product.path}: {done.base} with its {done.method} merged in, {format_bytes(size)} "
        f"in {product.seconds:.1f} s",
        done.sentence(),
    ]
    if product.verdict is None:
        said.append("the files were not compared (--no-verify); the manifest says so")
    else:
        said.append(product.verdict.sentence().replace("its source", "the merged model"))
    if done.template:
        said.append("its chat template is that of the recipe, not the base's")
    said.append(f'use it   puna generate --model {product.path} "..."')
    print("\n".join(said), file=sys.stderr)
