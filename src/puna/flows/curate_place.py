"""Where things are in the folder of a corpus; imports nothing, so that any verb may look.

documents/SOURCE/part-00000.parquet ...   what is kept, in the order of the files
dropped/SOURCE/part-00000.parquet ...     what is not, each row with its reason in `drop`
clusters-REASON.parquet                   which documents are alike, and which of them stays
quarantine.jsonl                          what could not be read or worked on
summary.json, report.html, manifest.json
"""

from __future__ import annotations

from pathlib import Path

CORPUS = "corpus"  # the kind of its manifest
DOCUMENTS, DROPS = "documents", "dropped"
SUMMARY, REPORT, QUARANTINE = "summary.json", "report.html", "quarantine.jsonl"


def part_files(folder: Path) -> list[Path]:
    """The files of what is kept, or of what is not: by source, then in their order."""
    return sorted(folder.glob("*/part-*.parquet"))


def cluster_file(folder: Path, reason: str) -> Path:
    """Which documents are alike, as the search that gives this reason found."""
    return folder / f"clusters-{reason}.parquet"


def cluster_files(folder: Path) -> list[Path]:
    """All of these."""
    return sorted(folder.glob("clusters-*.parquet"))
