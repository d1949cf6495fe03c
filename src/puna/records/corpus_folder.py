"""Where things are in the folder of a corpus; imports no library, so that any verb may look.

documents/SOURCE/part-00000.parquet ...   what is kept, in the order of the files
dropped/SOURCE/part-00000.parquet ...     what is not, each row with its reason in `drop`
clusters-REASON.parquet                   which documents are alike, and which of them stays
quarantine.jsonl                          what could not be read or worked on
summary.json, report.html, manifest.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from puna.artifact import MANIFEST, read_json, read_manifest
from puna.errors import InputError

CORPUS = "corpus"  # the kind of its manifest
DOCUMENTS, DROPS = "documents", "dropped"
SUMMARY, REPORT, QUARANTINE = "summary.json", "report.html", "quarantine.jsonl"


def corpus_identity(path: Path) -> str | None:
    """The digest of the corpus in a folder; None where it holds none."""
    told = read_manifest(path / MANIFEST)
    return None if told is None or told["identity"]["kind"] != CORPUS else str(told["digest"])


def is_corpus(path: Path) -> bool:
    """Whether a folder holds what `puna curate` made."""
    return corpus_identity(path) is not None


def read_summary(path: Path) -> dict[str, Any]:
    """What is told of the making of a corpus.

    Raises:
        InputError: It is missing or damaged.
    """
    summary = read_json(path / SUMMARY)
    if not isinstance(summary, dict):
        raise InputError("is damaged", where=path / SUMMARY, fix="make it again with --force")
    return summary


def whole_files(folder: Path) -> list[Path]:
    """The files with whole texts: of what is kept, and of what is not where all of it stayed.

    Raises:
        InputError: The summary is missing or damaged.
    """
    asked = read_summary(folder).get("asked") or {}
    parts = (DOCUMENTS, DROPS) if asked.get("keep_dropped") == "text" else (DOCUMENTS,)
    return [file for part in parts for file in part_files(folder / part)]


def part_files(folder: Path) -> list[Path]:
    """The files of what is kept, or of what is not: by source, then in their order."""
    return sorted(folder.glob("*/part-*.parquet"))


def cluster_file(folder: Path, reason: str) -> Path:
    """Which documents are alike, as the search that gives this reason found."""
    return folder / f"clusters-{reason}.parquet"


def cluster_files(folder: Path) -> list[Path]:
    """All of these."""
    return sorted(folder.glob("clusters-*.parquet"))
