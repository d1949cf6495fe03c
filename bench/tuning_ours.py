"""Our side of the tuning bench: `python -m bench.tuning_ours SPEC` prints one line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.tuning_spec import Gauge, Spec


def main() -> None:
    gauge = Gauge()
    from puna.config import from_dict
    from puna.flows.tune_recipe import TuneRecipe
    from puna.flows.tuning import TuneOptions, tune
    from puna.train import MetricsLog, Silent

    class Watcher(Silent):
        def begin(self, step: int, total: int) -> None:
            gauge.mark_loaded()

        def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
            gauge.mark()

        def progress(self, what: str, done: int, total: int) -> None:
            """Nothing."""

        def lines(self, title: str, lines: list[str]) -> None:
            """Nothing."""

    spec = Spec.read(sys.argv[1])
    out = Path(spec.out)
    tune(from_dict(TuneRecipe, spec.recipe()), TuneOptions(out), Watcher())
    rows = MetricsLog(out).rows()
    steps = [row for row in rows if row["kind"] == "step"]
    told = {
        "marks": gauge.marks,
        "grown": gauge.grown(),
        "tokens": sum(row["tokens"] for row in steps) // spec.epochs,
        "trained": sum(row["trained_tokens"] for row in steps) // spec.epochs,
        "epoch_seconds": [
            sum(r["tokens"] / r["tokens_per_second"] for r in steps if -(-r["epoch"] // 1) == e)
            for e in range(1, spec.epochs + 1)
        ],
        "losses": [row["validation_loss"] for row in rows if row["kind"] == "evaluation"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
