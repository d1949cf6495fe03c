"""`python -m bench [part ...]`: measure, print, and with --record write bench/RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from bench import converting, decoding, loading, pretraining, tokenizing, tuning
from bench.measure import Row
from bench.work import Work, prepared

PARTS: dict[str, Callable[[Work, int], Iterator[Row]]] = {
    "loading": loading.rows,
    "decoding": decoding.rows,
    "converting": converting.rows,
    "tuning": tuning.rows,
    "tokenizing": tokenizing.rows,
    "pretraining": pretraining.rows,
}
HEAD = "| what | ours | peer | ratio | over the turns | asked | |\n|---|---:|---:|---:|---|---|---|"


def main() -> None:
    """Run the parts named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--turns", type=int, default=5, help="turns of each side")
    parser.add_argument("--record", action="store_true", help="append to bench/RESULTS.md")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="go on with what is there")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    torch.set_num_threads(2)
    lines = [_title(options.parts, options.turns), "", HEAD]
    print("\n".join(lines), flush=True)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    with prepared(options.keep) as work:
        for part in options.parts or PARTS:
            for row in PARTS[part](work, options.turns):
                lines.append(_line(row))
                print(lines[-1], flush=True)
    if options.record:
        place = Path(__file__).parent / "RESULTS.md"
        with place.open("a", encoding="utf-8") as file:
            file.write("\n" + "\n".join(lines) + "\n")


def _title(parts: list[str], turns: int) -> str:
    names = ("puna", "torch", "transformers", "tokenizers", "peft", "datasets", "llama-cpp-python")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} absent")
    date = datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    command = " ".join(["python -m bench", *parts, "--turns", str(turns)])
    return (
        f"## {date}\n\n`{command}` with 2 threads, float32, on {_processor()} "
        f"({torch.backends.cpu.get_cpu_capability()}), Python {platform.python_version()}; "
        f"{', '.join(versions)}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _line(row: Row) -> str:
    peer = "" if row.peer is None else f"{row.peer:.3g}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    verdict = {True: "met", False: "**missed**", None: ""}[row.met]
    asked = f"{row.target}: {verdict}" if row.target and verdict else row.target
    return (
        f"| {row.what} | {row.ours:.3g} {row.unit} | {peer} | {ratio} | {row.spread} | {asked} "
        f"| {row.note} |"
    )


if __name__ == "__main__":
    main()
