"""`puna convert`: another format, the same model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from puna.artifact import format_bytes
from puna.cli.progress import ReportOptions, reporting
from puna.flows import convert as flow
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
        source: A path, an alias, a packaged model, or owner/name on the hub.
        target: The folder (hf, meta) or the .gguf file to make.
    """
    place = locate(source).path
    with reporting(report, "parts") as progress:
        done = flow.convert(place, target, options, progress=progress)
    if report.quiet:
        return
    size = sum(p.stat().st_size for p in [target, *target.rglob("*")] if p.is_file())
    print(f"{target}: {format_bytes(size)} in {done.seconds:.1f} s", file=sys.stderr)
    verdict = done.verdict
    if verdict is None:
        print("not compared with its source (--no-verify); the manifest says so", file=sys.stderr)
    elif verdict.rounding == "exact":
        print(
            f"equal to its source after every block, bit for bit, over {verdict.tokens} tokens "
            f"of {verdict.prompts} prompts; tokenizer: {verdict.tokenizer}",
            file=sys.stderr,
        )
    else:
        print(
            f"close to its source over {verdict.tokens} tokens: mean KL {verdict.mean_kl:.2g} "
            f"nats, {verdict.same_choice:.1%} the same next token; tokenizer: "
            f"{verdict.tokenizer}",
            file=sys.stderr,
        )
