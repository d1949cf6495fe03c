"""What a comparison says of each method, from the summary of its run; and the table of them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.artifact import format_bytes
from puna.flows.tuning import FILLING, TRAINING
from puna.report.scores import Score, read_score
from puna.report.words import MISSING, count, duration, energy, finite, number

Told = Mapping[str, Any]


def row_of(name: str, summary: Told, folder: Path, metric: str | None) -> dict[str, Any]:
    """One method.

    Args:
        name: Of the method.
        summary: Of its run.
        folder: Of its run.
        metric: The figure that is compared; None where nothing was judged.

    Returns:
        `metric` (plain data), `metrics` (all of them), `validation_loss` (of what was published),
        `trainable`, `steps`, `epochs`, `stopped`; and what training took, opening and judging
        left out, the trunk cache counted: `seconds`, `peak_bytes` (above what was held before the
        method was put on the base), `energy_joules`, `co2e_grams`.
    """
    training, method = summary["training"], summary["method"]
    metrics = (summary.get("after") or {}).get("metrics") or {}
    loss = _validation_loss(summary)
    return {
        "name": name,
        "metric": metrics.get(metric) if metric else _as_metric(loss),
        "metrics": metrics,
        "validation_loss": loss,
        "trainable": method["trainable"],
        "layers": method["layers"],
        "seconds": training["seconds"] + training["seconds_before"],
        "peak_bytes": training["peak_bytes"] - training["resident_bytes"],
        **_energy(summary),
        "steps": training["steps"],
        "epochs": summary["history"][-1]["epoch"] if summary["history"] else 0.0,
        "best_step": summary["best_step"],
        "stopped": training["stopped"],
        "learning_rate": summary["asked"]["train"]["optim"]["learning_rate"],
        "folder": str(folder),
        "notes": _notes(summary),
    }


def _validation_loss(summary: Told) -> float | None:
    """At the step that was published; the last one known where that was not judged."""
    rows = [row for row in summary["evaluations"] if row["step"] <= summary["best_step"]]
    return finite(rows[-1].get("validation_loss")) if rows else None


def _as_metric(loss: float | None) -> dict[str, Any] | None:
    if loss is None:
        return None
    return {"name": "validation_loss", "value": loss, "higher_is_better": False}


def _energy(summary: Told) -> dict[str, float | None]:
    """Of the stages that belong to the method; not known where an earlier process had a share."""
    stages = summary["ledger"]["stages"]
    own = [stages[name] for name in (FILLING, TRAINING) if name in stages]
    known = own and not summary["training"]["resumed"]
    return {
        key: sum(stage[key] for stage in own) if known else None
        for key in ("energy_joules", "co2e_grams")
    }


def _notes(summary: Told) -> list[str]:
    if not summary["training"]["resumed"]:
        return []
    return ["The run was interrupted and continued: the energy of all of it is not known."]


def table(rows: Sequence[Told], base: Told | None) -> list[str]:
    """The comparison as lines of text."""
    scores = [read_score("quality", row.get("metric")) for row in rows]
    title = next((score.title for score in scores if score), "quality")
    head = ["method", title, "validation loss", "trained", "time", "memory", "energy", "epochs"]
    cells = [head]
    for row, score in zip(rows, scores, strict=True):
        if "error" in row:
            continue
        peak, epochs = finite(row.get("peak_bytes")), finite(row.get("epochs"))
        cells.append(
            [
                str(row["name"]),
                _scored(score),
                number(row.get("validation_loss"), 3),
                count(row.get("trainable")),
                duration(row.get("seconds")),
                MISSING if peak is None else format_bytes(peak),
                energy(row.get("energy_joules")),
                number(epochs, 1),
            ]
        )
    if base is not None:
        cells.append(["base", _scored(read_score("quality", base)), *([MISSING] * 6)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [*(_line(row, widths) for row in cells), *_failures(rows)]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    parts = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
    return "  ".join(parts).rstrip()


def _failures(rows: Sequence[Told]) -> list[str]:
    return [f"{row['name']} failed: {row['error']}" for row in rows if "error" in row]


def _scored(score: Score | None) -> str:
    if score is None:
        return MISSING
    bounds = score.interval_text()
    return score.text(score.value) + (f" [{bounds}]" if bounds else "")
