"""`puna doctor`: what this machine has and lacks."""

from __future__ import annotations

import json

from puna.cli.output import table_console
from puna.flows.doctor import collect, table


def doctor(*, as_json: bool = False) -> None:
    """Show versions, CPU features, memory, GPUs and extras, and the commands that add what lacks.

    Args:
        as_json: Print JSON.
    """
    report = collect()
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    table_console().print(table(report))
