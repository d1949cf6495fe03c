"""One method of a comparison, in a process of its own; its progress is told to the one that waits.

Memory and energy of a method are those of its process, so no two of them share one. What a watcher
would be told goes through standard output, a line of JSON for each call, and is told again there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, TextIO

from puna.artifact import read_json
from puna.config import from_dict, load_recipe, to_dict
from puna.errors import InputError
from puna.evaluate import Judgement
from puna.flows.tune_recipe import TuneRecipe
from puna.flows.tuning import TuneOptions, tune
from puna.flows.watcher import Watcher
from puna.train import StepMetrics


@dataclass(frozen=True)
class Step:
    """What the process is asked to do."""

    recipe: Path
    """A file."""
    out: Path
    """The folder of the run."""
    trunk_folder: Path
    """Its trunk cache."""
    before: Path | None = None
    """The judgement of the base; null where there is nothing to judge it on."""
    force: bool = False
    """Remove the run that is there."""
    command: str = ""
    """What repeats it."""


def work(step: Step, watcher: Watcher) -> None:
    """Run the method, here and now.

    Raises:
        InputError: As `tune`.
    """
    before = None
    if step.before is not None:
        before = Judgement.from_dict(read_json(step.before)["judgement"], str(step.before))
    options = TuneOptions(
        step.out,
        step.force,
        command=step.command,
        before=before,
        trunk_folder=step.trunk_folder,
    )
    tune(load_recipe(step.recipe, TuneRecipe), options, watcher)


def run_apart(step: Step, watcher: Watcher) -> str | None:
    """Run the method in a fresh process.

    Ctrl-C is passed on to it; it keeps a checkpoint before it ends. The second one ends it at once.

    Returns:
        Why it failed; None where it did not.

    Raises:
        KeyboardInterrupt: Here, or there.
    """
    command = [sys.executable, "-m", "puna.flows.compare_step", json.dumps(to_dict(step))]
    with (
        _terminable(),
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # the terminal's Ctrl-C comes through us, once
        ) as process,
    ):
        assert process.stdout is not None, "it is a pipe"
        try:
            failures = list(_hear(process.stdout, watcher))
            code = process.wait()
        except BaseException:
            _end(process, watcher)
            raise
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    return None if code == 0 else [_ending(code), *failures][-1]


_INTERRUPTED = 130


def _end(process: subprocess.Popen[str], watcher: Watcher) -> None:
    """Ask it to keep what it has; one more Ctrl-C meanwhile, and it is gone."""
    assert process.stdout is not None, "it is a pipe"
    process.send_signal(signal.SIGINT)
    try:
        list(_hear(process.stdout, watcher))
        process.wait()
    except BaseException:
        process.kill()
        raise


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, as the system does when memory runs out"
    return f"its process ended with code {code}"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """A polite request to end is taken as Ctrl-C is: no process is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- what is told through the pipe ----------------------------------------------------------------


class Sender:
    """A watcher that writes down what it is told."""

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def say(self, what: str, *told: Any) -> None:
        """One call as a line."""
        self._to.write(json.dumps([what, *told]) + "\n")
        self._to.flush()

    def begin(self, step: int, total: int | None) -> None:
        """Pass it on."""
        self.say("begin", step, total)

    def step(self, metrics: StepMetrics) -> None:
        """Pass it on."""
        self.say("step", dataclasses.asdict(metrics))

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        """Pass it on."""
        self.say("evaluated", step, dict(metrics), best)

    def note(self, text: str) -> None:
        """Pass it on."""
        self.say("note", text)

    def end(self) -> None:
        """Pass it on."""
        self.say("end")

    def progress(self, what: str, done: int, total: int) -> None:
        """Pass it on."""
        self.say("progress", what, done, total)

    def lines(self, title: str, lines: list[str]) -> None:
        """Of the data, which are the same for each method: told once, elsewhere."""


def _hear(lines: IO[str], watcher: Watcher) -> Iterator[str]:
    """Tell a watcher what a `Sender` wrote; yields why the work failed."""
    for line in lines:
        if not line.endswith("\n"):  # torn: its writer was killed
            continue
        what, *told = json.loads(line)
        if what == "failed":
            yield str(told[0])
        elif what == "step":
            watcher.step(from_dict(StepMetrics, told[0], "a step"))
        elif what in ("begin", "evaluated", "note", "end", "progress"):
            getattr(watcher, what)(*told)


def main(argument: str) -> int:
    """The process: the exit code is 0, or 1 after `failed`, or 130 where it was interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell had it ignored
    # What others print must not get between the lines.
    sender = Sender(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    try:
        work(from_dict(Step, json.loads(argument), "step"), sender)
    except InputError as error:
        sender.say("failed", str(error))
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # nobody waits any more
        return 1
    except Exception as error:
        traceback.print_exc()
        sender.say("failed", f"a defect of ours: {type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
