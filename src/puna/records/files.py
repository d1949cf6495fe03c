"""Where data lie: a path, a glob, a folder, a Python package's data, or a data set of the hub."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from puna.errors import InputError, MissingPackageError, require
from puna.records.rows import SUFFIXES, Format, format_of

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MAGIC = re.compile(r"[*?\[]")
_ABOUT = re.compile(  # what lies beside data and tells about them
    r"(readme|licen[cs]e|notice|copying|citation|changelog|requirements)\b.*\.txt(\.gz)?"
    r"|(dataset_infos?|dataset_dict|state|manifest|metadata)\.json",
    re.IGNORECASE,
)


def find_files(where: str | Sequence[str], formats: Iterable[Format] | None = None) -> list[Path]:
    """Find files, in a stable order, each once.

    Each name is one of

    * a path to a file, which is taken whatever it is called;
    * a glob such as `data/**/*.jsonl`; what it matches is taken, sorted;
    * a folder: its files of known formats at any depth, sorted, without hidden ones and those that
      tell about the data (README.txt, LICENSE.txt, dataset_infos.json ...);
    * `package:NAME` or `package:NAME/GLOB`: files in an installed Python package, never imported;
    * `hub:OWNER/NAME` or `hub:OWNER/NAME/GLOB`: a data set of the Hugging Face hub; without `hub:`
      too, where no such path exists.

    Args:
        where: One name or several.
        formats: Only files of these formats, in folders, packages and hub data sets.

    Raises:
        InputError: Nothing is there, or a folder mixes catalogues with other formats.
        MissingPackageError: A hub name, and huggingface_hub is not installed.
    """
    wanted = None if formats is None else tuple(formats)
    names = [where] if isinstance(where, str) else list(where)
    if not names:
        raise InputError(
            "no files are named", fix="give a path, a glob, a folder or hub:owner/name"
        )
    found = [path for name in names for path in _find(name, wanted)]
    return list(dict.fromkeys(found))


def _find(name: str, formats: tuple[Format, ...] | None) -> list[Path]:
    if name.startswith("package:"):
        return _in_package(name, formats)
    if name.startswith("hub:"):
        return _in_hub(name.removeprefix("hub:"), formats)
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(path, formats, name)
    if path.exists():
        return [path]
    if _MAGIC.search(name):
        first = next(i for i, part in enumerate(path.parts) if _MAGIC.search(part))
        return _matching(Path(*path.parts[:first]), "/".join(path.parts[first:]), name)
    if _HUB_NAME.fullmatch(name) and format_of(path) is None and not path.parent.is_dir():
        return _in_hub(name, formats)
    raise _missing(path, name)


def _in_folder(folder: Path, formats: tuple[Format, ...] | None, name: str) -> list[Path]:
    found = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in inner)
        kind = format_of(path)
        if hidden or _ABOUT.fullmatch(path.name) or kind is None or not path.is_file():
            continue
        if formats is None or kind in formats:
            found.append(path)
    if formats is None:
        _refuse_mixture(found, name)
    return _some(found, name)


def _refuse_mixture(found: Sequence[Path], name: str) -> None:
    """A folder of catalogues often has each twice, compiled to another format."""
    kinds = Counter(str(format_of(path)) for path in found)
    if len(kinds) > 1 and ("po" in kinds or "mo" in kinds):
        counts = ", ".join(f"{count} .{kind}" for kind, count in sorted(kinds.items()))
        wanted = "mo" if "mo" in kinds else "po"
        raise InputError(
            f"holds several formats that may say the same twice: {counts}",
            where=name,
            fix=f"name those you mean: {name.rstrip('/')}/**/*.{wanted}",
        )


def _in_package(name: str, formats: tuple[Format, ...] | None) -> list[Path]:
    package, _, pattern = name.removeprefix("package:").partition("/")
    if not package.isidentifier():
        raise InputError(
            f"{package!r} is no name of a Python package",
            where=name,
            fix="write package:NAME or package:NAME/folder/*.mo, with the name that one imports",
        )
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    if not places:
        raise InputError(
            f"the Python package {package} is not installed",
            where=name,
            fix=f"pip install {package.replace('_', '-')}",
        )
    return _below(Path(places[0]), pattern, formats, name)


def _in_hub(name: str, formats: tuple[Format, ...] | None) -> list[Path]:
    owner, _, rest = name.partition("/")
    title, _, pattern = rest.partition("/")
    repository = f"{owner}/{title}"
    if not _HUB_NAME.fullmatch(repository):
        raise InputError(f"{repository!r} is not of the form owner/name", where=f"hub:{name}")
    try:
        hub: Any = require("huggingface_hub", extra="hub", purpose=f"fetching {repository}")
    except MissingPackageError as error:
        raise MissingPackageError(
            f"is no path here, and {error.what}", where=name, fix=error.fix
        ) from error
    suffixes = SUFFIXES if formats is None else [f".{kind}" for kind in formats]
    patterns = [f"*{suffix}{zipped}" for suffix in suffixes for zipped in ("", ".gz")]
    try:
        folder = hub.snapshot_download(
            repository, repo_type="dataset", allow_patterns=[pattern] if pattern else patterns
        )
    except (OSError, ValueError) as error:  # the hub's own errors are such
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"could not be fetched from the hub: {reason}",
            where=repository,
            fix="check the name, the network and, for a gated data set, `hf auth login`",
        ) from error
    return _below(Path(folder), pattern, formats, f"hub:{name}")


def _below(folder: Path, pattern: str, formats: tuple[Format, ...] | None, name: str) -> list[Path]:
    """Files of a folder that lies somewhere: those of a glob below it, or all."""
    place = folder / pattern
    if not pattern or place.is_dir():
        return _in_folder(place, formats, name)
    return _matching(folder, pattern, name)


def _matching(folder: Path, pattern: str, name: str) -> list[Path]:
    """The files that a glob matches, sorted; hidden ones only where the glob names the dot."""
    hidden = "." in (part[0] for part in Path(pattern).parts if part)
    try:
        matches = sorted(folder.glob(pattern))
    except (ValueError, NotImplementedError) as error:  # the latter of an absolute one
        raise InputError(f"is no glob: {error}", where=name) from error
    found = []
    for path in matches:
        inner = path.relative_to(folder).parts
        if path.is_file() and (hidden or not any(part.startswith(".") for part in inner)):
            found.append(path)
    return _some(found, name)


def _some(found: list[Path], name: str) -> list[Path]:
    if not found:
        raise InputError(
            "holds or matches no file to read", where=name, fix=f"known are {', '.join(SUFFIXES)}"
        )
    return found


def _missing(path: Path, name: str) -> InputError:
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    if near:
        return InputError(
            "does not exist", where=name, fix=f"did you mean {path.parent / near[0]}?"
        )
    return InputError(
        "does not exist", where=name, fix="give a path, a glob, a folder or hub:owner/name"
    )
