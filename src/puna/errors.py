"""The two kinds of failure that a user can mend: bad input and a missing optional package."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType


class InputError(ValueError):
    """Bad input: what was wrong, where, and what to do. The command line exits with code 2.

    Args:
        what: What was wrong, with what was expected and what was found.
        where: The file, line, tensor or key that it was found in.
        fix: What the user can do about it.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None):
        self.what, self.where, self.fix = what, where, fix
        message = f"{where}: {what}" if where is not None else what
        super().__init__(f"{message}\n  fix: {fix}" if fix else message)


class AlreadyToldError(InputError):
    """Another process of the run has said what was wrong; this one ends without a word."""


class MissingPackageError(InputError):
    """An optional package is not installed; the message names the extra that brings it."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional `module`, or say which extra of puna brings it.

    Raises:
        MissingPackageError: `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs the package {module.partition('.')[0]!r}, which is not installed",
            fix=f"pip install 'puna[{extra}]'",
        ) from error
