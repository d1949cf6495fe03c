"""`python -m bench.curating`: ours against datatrove, from JSON lines to Parquet, turn by turn.

Each side is a command of its own, two workers, start-up included. The filters are those of FineWeb:
language, Gopher's repetition and quality, C4, FineWeb, e-mail and IP addresses. Near-duplicates are
found by MinHash, 14 bands of 8, words in fives. What was kept is compared, too: with the splitter
`datatrove` ours must decide as datatrove does with a splitter by a regular expression.

Needs texts (`python -m bench.debian_texts FOLDER`) and datatrove in a virtual environment of its
own, since its pins are not ours: `make .venv-datatrove/.stamp-datatrove`. PUNA names another puna,
such as that of an installation with the extra `corpus` alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
PEER = HERE.parent / ".venv-datatrove" / "bin" / "python"
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Told:
    """One run of one side."""

    seconds: float
    peak_bytes: int
    """Most memory of all its processes at once, shared pages counted once (PSS)."""
    kept: frozenset[str]
    """The ids of the documents that are left."""


def main() -> None:
    """Measure one of the two kinds of work, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.curating", description=__doc__)
    parser.add_argument("work", choices=["filters", "near"])
    parser.add_argument("texts", type=Path, help="a folder of JSON lines")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--stock-turns", type=int, default=1, help="of datatrove with spaCy's words"
    )
    parser.add_argument("--ours", type=int, default=None, metavar="TURNS", help="of ours alone")
    options = parser.parse_args()
    files = sorted(options.texts.glob("*.jsonl"))
    size = text_bytes(files)
    print(f"{len(files)} files, {size / 1e6:.1f} MB of text")
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(options.work, options.texts, Path(place))
        names = list(bench.sides)
        if options.ours is not None:
            found = {"ours": [bench.run("ours") for _ in range(options.ours)]}
        else:
            found = {name: [] for name in names}
            for turn in range(options.turns):
                for name in names if turn % 2 == 0 else names[::-1]:
                    if name != "stock" or turn < options.stock_turns:
                        found[name].append(bench.run(name))
    print_table(found, size)


class Bench:
    """The commands of all sides on one folder of texts."""

    def __init__(self, work: str, texts: Path, place: Path) -> None:
        self._work, self._texts, self._place = work, texts, place
        peer = [str(PEER), str(HERE / "datatrove_peer.py"), work]
        self.sides: dict[str, Callable[[Path], list[str]]] = {
            "ours": lambda out: self._ours(out, "puna"),
            "regex": lambda out: [*peer, "--words", "regex", str(texts), str(out)],
            "stock": lambda out: [*peer, "--words", "spacy", str(texts), str(out)],
        }
        if work == "filters":
            self.sides["ours, as datatrove"] = lambda out: self._ours(out, "datatrove")

    def run(self, name: str) -> Told:
        """One run, whose output is removed."""
        out = self._place / "out"
        told = watched(self.sides[name](out), out)
        print(
            f"{name}: {told.seconds:.1f} s, {told.peak_bytes / 1e6:.0f} MB, {len(told.kept)} left"
        )
        shutil.rmtree(out)
        return told

    def _ours(self, out: Path, splitter: str) -> list[str]:
        recipe = self._place / f"recipe-{splitter}.json"
        recipe.write_text(json.dumps(recipe_of(self._work, self._texts, splitter)))
        puna = os.environ.get("PUNA", str(Path(sys.executable).parent / "puna"))
        return [puna, "curate", str(recipe), "--out", str(out), "--quiet"]


def recipe_of(work: str, texts: Path, splitter: str) -> dict[str, Any]:
    """The rules of datatrove's pipeline as a recipe."""
    same = splitter == "datatrove"
    published: dict[str, Any] = {"per_language": {}} if same else {}
    figures = {"step": "statistics", "splitter": splitter}
    steps = [
        {"step": "language", "keep": ["en"], "min_score": 0.5},
        figures,
        {"step": "gopher_repetition", **published},
        {"step": "gopher_quality", **published},
        {"step": "c4", "splitter": splitter, **published},
        figures,
        {"step": "fineweb"},
        {"step": "pii", "kinds": ["email", "ip"], "action": "mask"},
    ]
    return {
        "sources": {"texts": {"files": str(texts / "*.jsonl")}},
        "steps": steps if work == "filters" else [],
        "dedup": {"exact": None, "near": None if work == "filters" else {}},
        "keep_dropped": "none",
        "workers": 2,
        "meter": {"use_codecarbon": False},
    }


def watched(command: Sequence[str], out: Path) -> Told:
    """Run a command to its end, and look at the memory of its processes meanwhile."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=env)
        peak = 0
        while child.poll() is None:
            peak = max(peak, memory_of(child.pid))
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - began
        if child.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read().decode()[-4000:]}")
    return Told(seconds, peak, kept_ids(out))


def memory_of(pid: int) -> int:
    """Proportional set size of a process and all below it, bytes."""
    total = 0
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in family:
        try:
            for line in Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) << 10
        except OSError:
            continue
    return total


def kept_ids(out: Path) -> frozenset[str]:
    """What is left: by the id in the input, which is what our locators lead to."""
    found: set[str] = set()
    for path in sorted((out / "documents").rglob("*.parquet")):
        columns = pq.read_schema(path).names
        if "locator" not in columns:
            found.update(pq.read_table(path, columns=["id"]).column("id").to_pylist())
            continue
        for row in pq.read_table(path, columns=["locator"]).column("locator").to_pylist():
            file, _, offset = row.rpartition("@")
            found.add(ids_of(Path(file))[int(offset)])
    return frozenset(found)


@cache
def ids_of(path: Path) -> dict[int, str]:
    """The ids of a file of texts by the offset of their line."""
    found, offset = {}, 0
    with path.open("rb") as file:
        for line in file:
            found[offset] = json.loads(line)["id"]
            offset += len(line)
    return found


def text_bytes(files: Sequence[Path]) -> int:
    """UTF-8 bytes of all texts."""
    size = 0
    for path in files:
        with path.open(encoding="utf-8") as file:
            size += sum(len(json.loads(line)["text"].encode()) for line in file)
    return size


def print_table(found: dict[str, list[Told]], size: int) -> None:
    """Medians, rates, and ours against each."""
    ours = statistics.median(one.seconds for one in found["ours"])
    print("\n| side | turns | seconds | MB/s | times ours | over the turns | peak MB | left |")
    print("|---|---:|---:|---:|---:|---|---:|---:|")
    for name, runs in ((name, runs) for name, runs in found.items() if runs):
        seconds = sorted(one.seconds for one in runs)
        median = statistics.median(seconds)
        peak = max(one.peak_bytes for one in runs) / 1e6
        spread = f"{seconds[0]:.1f} to {seconds[-1]:.1f} s"
        print(
            f"| {name} | {len(runs)} | {median:.1f} | {size / median / 1e6:.2f} | "
            f"{median / ours:.1f} | {spread} | {peak:.0f} | {len(runs[0].kept):,} |"
        )
    as_peer, regex = found.get("ours, as datatrove"), found.get("regex")
    if as_peer and regex:
        mine, theirs = as_peer[0].kept, regex[0].kept
        print(
            f"\nof the same words: {len(mine & theirs)} kept by both, {len(mine - theirs)} by ours"
        )
        print(f"alone, {len(theirs - mine)} by datatrove alone: {sorted(mine ^ theirs)[:20]}")


if __name__ == "__main__":
    main()
