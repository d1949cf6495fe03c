"""What a tuning run shows while it runs: stages as bars, figures of each step, a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from puna.artifact import format_bytes
from puna.cli.progress import ReportOptions, naming_log, open_log

if TYPE_CHECKING:  # work without a model starts without torch
    from puna.train import StepMetrics

SMOOTH_SECONDS = 10.0  # over which the speed that is shown is averaged


class TuneWatcher:
    """Tells standard error, and the log file, how a run goes. Made by `watching`."""

    def __init__(self, options: ReportOptions, console: Console, bars: Progress) -> None:
        self._options, self._console, self._bars = options, console, bars
        self._log: TextIO | None = None
        self._tasks: dict[str, TaskID] = {}
        self._training: TaskID | None = None
        self._of = ""
        self._last = 0.0
        self._tokens_per_second = 0.0

    def begin(self, step: int, total: int | None) -> None:
        """The training starts, or goes on."""
        self._of = "" if total is None else f" of {total}"
        self._training = self._bars.add_task("training", total=total, completed=step, figures="")
        self.note(f"training: step {step}{self._of}")

    def step(self, metrics: StepMetrics) -> None:
        """A step is done."""
        now = time.monotonic()
        share = min(1.0, (now - self._last) / SMOOTH_SECONDS) if self._tokens_per_second else 1.0
        self._tokens_per_second += share * (metrics.tokens_per_second - self._tokens_per_second)
        self._last = now
        figures = (
            f"loss {metrics.loss:.3f} · {self._tokens_per_second:,.0f} tokens/s · "
            f"lr {metrics.learning_rate:.1e} · {format_bytes(metrics.memory_bytes)}"
        )
        if self._training is not None:
            self._bars.update(self._training, completed=metrics.step, figures=figures)
        skipped = ", nothing learnt: not finite" if metrics.skipped else ""
        self._write(f"step {metrics.step}{self._of}: {figures}{skipped}")

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """An evaluation is done."""
        shown = [f"{name} {value:.4g}" for name, value in metrics.items()]
        kept = [text for text in shown if not text.startswith("validation_tokens")]
        self.note(f"after step {step}: {', '.join(kept)}{' (best so far)' if best else ''}")

    def note(self, text: str) -> None:
        """Something that a user should know."""
        if not self._options.quiet:
            self._console.print(Text(text), soft_wrap=True)
        self._write(text)

    def lines(self, title: str, lines: list[str]) -> None:
        """Something to read."""
        if not self._options.quiet:
            self._console.print(Text(title, style="bold"))
            for line in lines:
                self._console.print(Text(f"  {line}"), soft_wrap=True)
        for line in lines:
            self._write(f"{title}: {line}")

    def progress(self, what: str, done: int, total: int) -> None:
        """Work of another stage."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, figures="")
        self._bars.update(self._tasks[what], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(what))
            self._write(f"{what}: {done} done")

    def end(self) -> None:
        """The training ends."""
        if self._training is not None:
            self._bars.remove_task(self._training)
            self._training = None

    def write_to(self, log: TextIO) -> None:
        """Also write to this file from now on."""
        self._log = log

    def _write(self, line: str) -> None:
        if self._log is not None:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
            with naming_log(self._options.log_file):
                self._log.write(f"{stamp} {line}\n")
                self._log.flush()


@contextmanager
def watching(options: ReportOptions) -> Iterator[TuneWatcher]:
    """Yield a watcher; its bars go to standard error, and only to a terminal.

    Raises:
        InputError: The log file cannot be written.
    """
    console = Console(stderr=True, highlight=False)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        transient=True,
        disable=options.quiet or not console.is_terminal,
    )
    watcher = TuneWatcher(options, console, bars)
    with ExitStack() as stack:
        if options.log_file is not None:
            watcher.write_to(stack.enter_context(open_log(options.log_file)))
        stack.enter_context(bars)
        yield watcher
