"""Where things are in the folder of a corpus; imports no library, so that any verb may look.

documents/SOURCE/part-00000.parquet ...   what is kept, in the order of the files
dropped/SOURCE/part-00000.parquet ...     what is not, each row with its reason in `drop`
clusters-REASON.parquet                   which documents are alike, and which of them stays
quarantine.jsonl                          what could not be read or worked on
summary.json, report.html, manifest.json
"""

from __future__ import annotations

from pathlib import Path

from puna.artifact import MANIFEST, read_json, read_manifest

CORPUS = "corpus"  # the kind of its manifest
DOCUMENTS, DROPS = "documents", "dropped"
SUMMARY, REPORT, QUARANTINE = "summary.json", "report.html", "quarantine.jsonl"


def is_corpus(path: Path) -> bool:
    """Whether a folder holds what `puna curate` made."""
    told = read_manifest(path / MANIFEST)
    return told is not None and told["identity"]["kind"] == CORPUS


def whole_files(folder: Path) -> list[Path]:
    """The files with whole texts: of what is kept, and of what is not where all of it stayed.

    Raises:
        InputError: The summary is missing or damaged.
    """
    asked = read_json(folder / SUMMARY).get("asked") or {}
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
