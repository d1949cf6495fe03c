"""Row bytes: what people have on disk becomes items, each with its turns and its place.

Files come in (json, jsonl, csv, tsv, parquet, text, gettext catalogues, line-aligned pairs); rows
go out, then items in one of six shapes, then splits. Whatever cannot be used is in one
`Quarantine`, counted by reason, with its file and line: the rows that came in are the items that
go out and the cases in quarantine, and no group of equal questions is ever parted by a split.
"""

from __future__ import annotations

from puna.records.files import find_files
from puna.records.items import SHAPES, Columns, Item, Message, Messages, Shape, normalised
from puna.records.parallel import read_parallel
from puna.records.recognition import choose_shape, recognise
from puna.records.row import Quarantine, Row, sample_rows
from puna.records.rows import FORMATS, Format, format_of, read_rows
from puna.records.shapes import shape_rows
from puna.records.splits import Splits, separate, split, without_duplicates
from puna.records.wording import Wording

__all__ = [
    "FORMATS",
    "SHAPES",
    "Columns",
    "Format",
    "Item",
    "Message",
    "Messages",
    "Quarantine",
    "Row",
    "Shape",
    "Splits",
    "Wording",
    "choose_shape",
    "find_files",
    "format_of",
    "normalised",
    "read_parallel",
    "read_rows",
    "recognise",
    "sample_rows",
    "separate",
    "shape_rows",
    "split",
    "without_duplicates",
]
