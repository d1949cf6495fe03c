"""Texts for `runs/laptop.sh`: documents to learn from, and questions to tune on, as JSON lines.

    python runs/laptop_text.py FOLDER [--quick]
    python runs/laptop_text.py --weights CORPUS

Everything comes from what is installed: CPython's own topics (`pydoc_data`) and the docstrings of
its standard library, whose sources are parsed and never imported; the catalogues of JupyterLab's
language packs, where any is installed; and, where the environment names a folder in PUNA_DATA,
the stories and articles that it has. Each file of documents is one source for `puna curate`,
with `text`, `license` and `path` in every row. `sources.txt` has overrides for the recipe; it is
written last, and says that all is there. The second form prints an override for pretraining: each
source of a corpus weighs what was kept of it.
"""

from __future__ import annotations

import ast
import gettext
import gzip
import json
import os
import pydoc_data.topics
import re
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

Row = dict[str, str]

LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "turtledemo"}
LEAST_CHARS = 80  # of a document
QUICK_MODULES = 40
PACK_LINES = 24  # translations that make one document
QUESTION_CHARS = (24, 160)  # of a summary that becomes a question
MODULE_QUESTIONS = (12, 60)  # modules with fewer are left out, of others as many are taken
USED = ("FOLDER [--quick]", "--weights CORPUS")
LICENCES = {
    "python": "PSF-2.0",
    "interface": "BSD-3-Clause",
    "stories": "CDLA-Sharing-1.0",
    "articles": "CC-BY-SA-3.0",
}


def main(arguments: list[str]) -> int:
    """Write everything into the folder that the arguments name."""
    if arguments[:1] == ["--weights"] and len(arguments) == len(USED):
        print(weights(Path(arguments[1])))
        return 0
    quick = "--quick" in arguments
    folders = [Path(word) for word in arguments if not word.startswith("--")]
    if len(folders) != 1:
        print(f"usage: python runs/laptop_text.py {' | '.join(USED)}", file=sys.stderr)
        return 2
    folder = folders[0]
    folder.mkdir(parents=True, exist_ok=True)
    modules = list(standard_modules(QUICK_MODULES if quick else None))
    sources = {
        "python": [*topics(), *(row for path, tree in modules for row in docstrings(path, tree))],
        "interface": [] if quick else list(interface()),
        **({} if quick else extra()),
    }
    sizes = {}
    for name, rows in sources.items():
        documents = [row | {"license": LICENCES[name]} for row in rows]
        documents = [row for row in documents if len(row["text"]) >= LEAST_CHARS]
        if documents:
            sizes[name] = write(folder / f"{name}.jsonl", documents)
    asked = questions(modules, least=2 if quick else MODULE_QUESTIONS[0])
    write(folder / "questions.jsonl", asked)
    told = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items())
    print(f"texts in {folder}: {told}; {len(asked):,} questions")
    lines = (
        f"sources.{name}={{files: {json.dumps(str(folder / f'{name}.jsonl'))}, "
        f"license: {LICENCES[name]}}}\n"
        for name in sizes
    )
    (folder / "sources.txt").write_text("".join(lines), encoding="utf-8")
    return 0


def write(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as JSON lines, whole or not at all; returns the bytes of their texts."""
    size = 0
    beside = path.with_suffix(".partial")
    with beside.open("w", encoding="utf-8") as file:
        for row in rows:
            size += len(row.get("text", "").encode())
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    beside.replace(path)
    return size


def weights(corpus: Path) -> str:
    """Each source of a corpus with the megabytes that were kept of it, for a mixture."""
    told = json.loads((corpus / "summary.json").read_text(encoding="utf-8"))
    kept = {name: source["kept"]["bytes"] for name, source in told["sources"].items()}
    shares = ", ".join(f"{name}: {size / 1e6:.4f}" for name, size in kept.items() if size)
    return f"mixture.weights={{{shares}}}"


# --- CPython ----------------------------------------------------------------------------------


def topics() -> Iterator[Row]:
    """What `help()` says about the language."""
    for name, text in sorted(pydoc_data.topics.topics.items()):
        yield {"text": tidy(text), "path": f"pydoc_data/topics.py#{name}"}


def standard_modules(most: int | None) -> Iterator[tuple[str, ast.Module]]:
    """The modules of the standard library, parsed: dotted name and tree."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path
        for path in sorted(root.rglob("*.py"))
        if not LEFT_OUT & set(path.relative_to(root).parts) and "config-" not in str(path.parent)
    ]
    for path in paths if most is None else paths[:most]:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):  # made to be wrong, for its own tests
            continue
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), tree


def docstrings(module: str, tree: ast.Module) -> Iterator[Row]:
    """One document for the module, and one for each class and function at its top."""
    said = ast.get_docstring(tree)
    if said:
        yield {"text": tidy(f"{module}\n\n{said}"), "path": module}
    for node in tree.body:
        lines = list(described(node, ""))
        if lines:
            name = getattr(node, "name", "")
            yield {
                "text": tidy(f"{module}.{name}\n\n" + "\n".join(lines)),
                "path": f"{module}.{name}",
            }


def described(node: ast.stmt, indent: str) -> Iterator[str]:
    """A class or function with its docstring, and those within a class."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        head = f"def {node.name}({ast.unparse(node.args)})"
    elif isinstance(node, ast.ClassDef):
        head = f"class {node.name}"
    else:
        return
    said = ast.get_docstring(node)
    inner = [line for child in node.body for line in described(child, indent + "    ")]
    if said or (isinstance(node, ast.ClassDef) and inner):
        yield indent + head
    if said:
        yield from (f"{indent}    {line}".rstrip() for line in said.splitlines())
        yield ""
    if isinstance(node, ast.ClassDef):
        yield from inner


def questions(modules: Iterable[tuple[str, ast.Module]], *, least: int) -> list[Row]:
    """Summaries of classes and functions, and the module that each is from."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for module, tree in modules:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                summary = (ast.get_docstring(node) or "").partition("\n\n")[0]
                summary = " ".join(summary.split())
                if QUESTION_CHARS[0] <= len(summary) <= QUESTION_CHARS[1]:
                    found[module.partition(".")[0]][summary] = None
    return [
        {"source": summary, "target": module}
        for module, summaries in sorted(found.items())
        if len(summaries) >= least
        for summary in list(summaries)[: MODULE_QUESTIONS[1]]
    ]


# --- what may be there besides ----------------------------------------------------------------


def interface() -> Iterator[Row]:
    """The strings of JupyterLab's language packs: each in English, and in the pack's language."""
    for folder in sorted({Path(entry) for entry in sys.path if entry and Path(entry).is_dir()}):
        for pack in sorted(folder.glob("jupyterlab_language_pack_*")):
            for path in sorted(pack.rglob("*.mo")):
                yield from catalogue(path, pack.name.removeprefix("jupyterlab_language_pack_"))


def catalogue(path: Path, language: str) -> Iterator[Row]:
    """The documents of one catalogue."""
    with path.open("rb") as file:
        try:
            known = gettext.GNUTranslations(file)._catalog
        except (OSError, UnicodeDecodeError):
            return
    lines = [
        f"English: {key}\n{language}: {value}"
        for key, value in known.items()
        if isinstance(key, str) and key and value and "\x04" not in key
    ]
    for start in range(0, len(lines), PACK_LINES):
        text = "\n".join(lines[start : start + PACK_LINES])
        yield {"text": text, "path": f"{language}/{path.name}#{start}"}


def extra() -> dict[str, list[Row]]:
    """Stories and articles of the folder that PUNA_DATA names."""
    if "PUNA_DATA" not in os.environ:
        return {}
    root = Path(os.environ["PUNA_DATA"])
    if not root.is_dir():
        raise SystemExit(f"PUNA_DATA names {root}, which is no folder")
    stories, articles = (
        root / "lm-samples/tinystories.txt.gz",
        root / "lm-samples/enwiki-docs.txt.gz",
    )
    found: dict[str, list[Row]] = {"stories": [], "articles": []}
    if stories.is_file():
        parts = unpacked(stories).split("<|endoftext|>")
        found["stories"] = [
            {"text": part.strip(), "path": f"{stories.name}#{number}"}
            for number, part in enumerate(parts)
        ]
    if articles.is_file():
        parts = re.findall(r"<doc[^>]*>\n(.*?)</doc>", unpacked(articles), flags=re.DOTALL)
        found["articles"] = [
            {"text": part.strip(), "path": f"{articles.name}#{number}"}
            for number, part in enumerate(parts)
        ]
    if not any(found.values()):
        print(f"PUNA_DATA: {root} has none of the texts that this script knows", file=sys.stderr)
    return found


def unpacked(path: Path) -> str:
    """The text of a gzipped file."""
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
        return file.read()


def tidy(text: str) -> str:
    """Without spaces at the ends of lines, and at most one empty line in a row."""
    text = "\n".join(line.rstrip() for line in text.expandtabs().splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
