"""Raw text to curated documents: steps that take record batches and return record batches.

Every document keeps its `id` through all steps; a filter says why it drops one, and what cannot be
read or worked on is put aside with its reason. Steps know nothing of processes, files or clusters.
Everything here stands on Arrow, which the extra `corpus` brings.
"""

from __future__ import annotations

from puna.errors import MissingPackageError

try:
    import pyarrow  # noqa: F401
except ImportError as error:
    raise MissingPackageError(
        "working on a corpus needs the package 'pyarrow', which is not installed",
        fix="pip install 'puna[corpus]'",
    ) from error
