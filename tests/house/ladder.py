"""The import ladder: which room may lean on which, read from the syntax tree."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from house.source import Source

LADDER = (  # from the ground up; rooms of one rung do not import one another
    ("errors",),
    ("artifact", "config", "meter"),
    ("scale", "store", "records", "report"),
    ("corpus", "tokens", "model"),
    ("generate", "tune", "attack", "compress"),
    ("evaluate",),
    ("train",),
    ("serve", "hf"),
    ("flows",),
    ("api",),
    ("cli",),
    ("__main__",),
)
RANKS = {room: rank for rank, rooms in enumerate(LADDER) for room in rooms}

ONLY_IN = {  # outside package -> the one room that may name it
    "torch.distributed": "scale",
    "torch.multiprocessing": "scale",
    "ray": "scale",
    "daft": "scale",
    "transformers": "hf",
    "peft": "hf",
}
MODEL_MAY = ("torch", "puna.model", "puna.errors", "__future__")


def imports(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Every imported dotted name, relative ones resolved; TYPE_CHECKING and lazy ones too.

    `from a import b` yields `a.b`, since b may be a module.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = source.package.split(".")
                kept = parts[: len(parts) - node.level + 1]
                base = ".".join([*kept, base] if base else kept)
            for alias in node.names:
                yield node, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node, first.value


def room_of(dotted: str) -> str | None:
    """The room of `puna.store.hf` is store; names of the root, such as __version__, have none."""
    parts = dotted.split(".")
    if parts[0] != "puna" or len(parts) == 1 or parts[1] in ("__version__", "*"):
        return None
    return "api" if parts[1] in ("load", "Llama") else parts[1]


def ladder_violations(source: Source) -> Iterator[str]:
    """Imports that go up the ladder, or sideways."""
    room = room_of(source.module)
    if room is None:  # puna/__init__.py: nothing but api, and that lazily
        for node, name in imports(source):
            if room_of(name) not in (None, "api"):
                yield source.at(node, f"the root of the package imports {name}; it may name api")
        return
    if room not in RANKS:
        yield source.at(source.tree, f"the room {room!r} stands on no rung; see LADDER")
        return
    for node, name in imports(source):
        other = room_of(name)
        if other is None or other == room:
            continue
        if other not in RANKS:
            yield source.at(node, f"imports {name}: {other!r} is no room; see LADDER")
        elif RANKS[other] >= RANKS[room]:
            way = "up" if RANKS[other] > RANKS[room] else "sideways"
            yield source.at(node, f"{room} imports {way}: {name}")


def outside_violations(source: Source) -> Iterator[str]:
    """Outside packages named by a room that has no business with them."""
    room = room_of(source.module)
    for node, name in (*imports(source), *_dotted_uses(source)):
        for package, owner in ONLY_IN.items():
            if room != owner and (name == package or name.startswith(package + ".")):
                yield source.at(node, f"only {owner} may name {package}")


def model_violations(source: Source) -> Iterator[str]:
    """The model imports torch, the standard library, itself and the errors; nothing else."""
    if room_of(source.module) != "model":
        return
    for node, name in imports(source):
        top = name.partition(".")[0]
        allowed = any(name == may or name.startswith(may + ".") for may in MODEL_MAY)
        if not allowed and top not in sys.stdlib_module_names:
            yield source.at(node, f"model imports {name}; it may import torch only")


def _dotted_uses(source: Source) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name.replace(".", "").isidentifier():
                yield node, name


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""
