"""Real text for the benches of curating: documentation that Debian packages, read by resiliparse.

    python -m bench.debian_texts FOLDER
    python -m bench.debian_texts FOLDER --composed OTHER --megabytes 1000

It takes what `apt-get download` gives, unpacks it, and writes FOLDER/part-00.jsonl to part-07.jsonl
with `id` (a path below the package's root) and `text`; some 120 MB. Needs apt-get and dpkg-deb.
The second form composes as much text as is asked for out of blocks of these, with a copy of every
tenth document in which one word in fifty is another.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

PACKAGES = (
    "python3.11-doc",
    "openjdk-17-doc",
    "linux-doc-6.1",
    "erlang-doc",
    "python-pandas-doc",
    "python-scipy-doc",
    "postgresql-doc-15",
)
PARTS = 8
LEAST_CHARACTERS = 200  # of a page
LEAST_BLOCK = 80  # characters
COPIED, EDITED = 10, 50  # one document in so many is copied, one word in so many is another


def main() -> None:
    """Make the texts."""
    parser = argparse.ArgumentParser(prog="python -m bench.debian_texts", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--composed", type=Path, metavar="OTHER", help="compose them into OTHER")
    parser.add_argument("--megabytes", type=float, default=1000.0, help="of text, composed")
    options = parser.parse_args()
    if options.composed:
        size = compose(options.folder, options.composed, options.megabytes * 1e6)
        print(f"{size / 1e6:.1f} MB of text in {options.composed}")
        return
    print(f"{make(options.folder) / 1e6:.1f} MB of text in {options.folder}")


def make(folder: Path) -> int:
    """Write the texts, and return their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        root = unpacked(Path(place))
        pages = sorted(path for path in root.rglob("*.html") if path.is_file())
        with ProcessPoolExecutor(2) as pool:
            texts = pool.map(text_of, pages, chunksize=64)
            return written(folder, root, zip(pages, texts, strict=True))


def compose(folder: Path, out: Path, size: float) -> int:
    """Write texts of blocks that are drawn from those of all texts, and return their bytes."""
    out.mkdir(parents=True, exist_ok=True)
    blocks = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.open(encoding="utf-8"):
            blocks += [b for b in json.loads(line)["text"].split("\n\n") if len(b) >= LEAST_BLOCK]
    random, written, number = Random(1), 0, 0
    files = [(out / f"part-{n:02}.jsonl").open("w", encoding="utf-8") for n in range(PARTS)]
    while written < size:
        text = "\n\n".join(random.choices(blocks, k=random.randrange(4, 40)))
        texts = [text, edited(text, random)] if number % COPIED == 0 else [text]
        for copy, one in enumerate(texts):
            row = {"id": f"{number}-{copy}", "text": one}
            files[random.randrange(PARTS)].write(json.dumps(row, ensure_ascii=False) + "\n")
            written += len(one.encode())
        number += 1
    for file in files:
        file.close()
    return written


def edited(text: str, random: Random) -> str:
    """A copy in which some words are others."""
    words = text.split(" ")
    for _ in range(len(words) // EDITED):
        words[random.randrange(len(words))] = f"w{random.randrange(10**6)}"
    return " ".join(words)


def unpacked(place: Path) -> Path:
    """The files of all packages below one root."""
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=place, check=True, capture_output=True)
    root = place / "root"
    for package in sorted(place.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    return root


def text_of(path: Path) -> str:
    """All text of a page, its menus included: what a rule should have something to say about."""
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(path.read_bytes().decode("utf-8", "replace"), main_content=True)


def written(folder: Path, root: Path, pages: Iterator[tuple[Path, str]]) -> int:
    """Deal the documents out to files."""
    size = 0
    files = [(folder / f"part-{n:02}.jsonl").open("w", encoding="utf-8") for n in range(PARTS)]
    for number, (path, text) in enumerate((p, t) for p, t in pages if len(t) >= LEAST_CHARACTERS):
        row = {"id": str(path.relative_to(root)), "text": text}
        files[number % PARTS].write(json.dumps(row, ensure_ascii=False) + "\n")
        size += len(text.encode())
    for file in files:
        file.close()
    return size


if __name__ == "__main__":
    main()
