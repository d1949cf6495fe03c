"""Parsed sources of the repository, for the rules of the house."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file: `path` relative to the repository, with `/`."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.path)

    @property
    def module(self) -> str:
        """Dotted name, for a file under src/: src/puna/store/hf.py is puna.store.hf."""
        parts = Path(self.path).with_suffix("").parts
        parts = parts[1:] if parts[0] == "src" else parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        if self.path.endswith("/__init__.py"):
            return self.module
        return self.module.rpartition(".")[0]

    def at(self, node: ast.AST, what: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {what}"

    def functions(self) -> Iterator[tuple[Function, str, bool]]:
        """Every function: node, dotted name, and whether it is public."""
        yield from _functions(self.tree, "", True)


def _functions(node: ast.AST, prefix: str, public: bool) -> Iterator[tuple[Function, str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            open_name = public and not _private(child.name)
            yield child, prefix + child.name, open_name
            yield from _functions(child, f"{prefix}{child.name}.", False)
        elif isinstance(child, ast.ClassDef):
            open_class = public and not _private(child.name)
            yield from _functions(child, f"{prefix}{child.name}.", open_class)
        else:
            yield from _functions(child, prefix, public)


def _private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def python_sources(*folders: str) -> list[Source]:
    """All Python files under the folders of the repository."""
    paths = sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))
    return [
        Source(path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8"))
        for path in paths
        if "__pycache__" not in path.parts
    ]


def repository_files() -> list[Path]:
    """Tracked files and new ones that git does not ignore; all files where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
        names = done.stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        skip = (".git", ".venv", ".venv-bench", "__pycache__")
        found = (p for p in REPOSITORY.rglob("*") if not set(skip) & set(p.parts))
        names = [p.relative_to(REPOSITORY).as_posix() for p in found]
    return sorted(REPOSITORY / name for name in names if name and (REPOSITORY / name).is_file())


def planted(code: str, path: str = "src/puna/store/planted.py") -> Source:
    """A source that never stood on disk: to see that a rule sees."""
    return Source(path, code)
