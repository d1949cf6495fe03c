"""Progress of long work: a bar with rate and time left, a log file, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from puna.errors import InputError


@dataclass(frozen=True)
class ReportOptions:
    """How the work is reported."""

    quiet: bool = False
    """No progress and no timing on standard error."""
    log_file: Path | None = None
    """Append one line per finished stage to this file."""

    def __post_init__(self) -> None:
        if self.log_file is None:
            return
        folder = self.log_file.parent
        if not folder.is_dir():  # seen before the work, not after it
            raise InputError(
                f"the folder {folder} does not exist", where=self.log_file, fix=f"mkdir -p {folder}"
            )
        if self.log_file.is_dir():
            raise InputError("is a folder; the log is a file", where=self.log_file)


@contextmanager
def reporting(
    options: ReportOptions, unit: str, *, began: float | None = None
) -> Iterator[Callable[[str, int, int], None]]:
    """Yield `report(what, done, total)`; `unit` names what is counted.

    A stage begins where the one before it was last heard of, the first one on entry.
    The bar goes to standard error, and only to a terminal.

    Args:
        options: What is wanted.
        unit: Names what is counted, in the plural.
        began: `time.perf_counter()` where the work began before this was called.

    Raises:
        InputError: The log file cannot be written.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    hidden = options.quiet or not console.is_terminal
    tasks: dict[str, tuple[TaskID, float]] = {}
    heard = time.perf_counter() if began is None else began
    with ExitStack() as stack:
        log: TextIO | None = None
        if options.log_file is not None:
            log = stack.enter_context(open_log(options.log_file))
        progress = stack.enter_context(
            Progress(*columns, console=console, transient=True, disable=hidden)
        )

        def report(what: str, done: int, total: int) -> None:
            nonlocal heard
            if what not in tasks:
                tasks[what] = (progress.add_task(what, total=total, rate=""), heard)
            task, start = tasks[what]
            heard = time.perf_counter()
            seconds = heard - start
            rate = f"{done / seconds:.1f} {unit}/s" if seconds > 0 else ""
            progress.update(task, completed=done, rate=rate)
            if log is not None and done == total:
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
                with naming_log(options.log_file):
                    log.write(f"{stamp} {what}: {done} {unit} in {seconds:.2f} s\n")
                    log.flush()

        yield report


@contextmanager
def open_log(path: Path) -> Iterator[TextIO]:
    """Open a log file to append to.

    Raises:
        InputError: It cannot be written.
    """
    with naming_log(path):
        log = path.open("a", encoding="utf-8")
    try:
        yield log
    finally:
        with naming_log(path):  # what is left is written now
            log.close()


@contextmanager
def naming_log(path: Path | None) -> Iterator[None]:
    """Tell of a log file that cannot be written in a user's words.

    Raises:
        InputError: That.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the log cannot be written: {error.strerror}",
            where=path,
            fix="choose another --log-file",
        ) from error
