"""The log says how long a stage took, and not how long after its first report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from puna.cli import progress
from puna.cli.progress import ReportOptions, reporting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def logged(path: Path) -> list[str]:
    return [re.sub(r"^\S+ ", "", line) for line in path.read_text().splitlines()]


def test_a_stage_begins_where_the_one_before_ended(clock: list[float], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with reporting(ReportOptions(log_file=log), "parts") as report:
        for done in (1, 2):
            clock[0] += 3
            report("writing", done, 2)
        clock[0] += 5
        report("comparing", 1, 1)
    assert logged(log) == ["writing: 2 parts in 6.00 s", "comparing: 1 parts in 5.00 s"]


def test_work_that_began_before(clock: list[float], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with reporting(ReportOptions(log_file=log), "prompts", began=90.0) as report:
        report("generating", 1, 1)
    assert logged(log) == ["generating: 1 prompts in 10.00 s"]
