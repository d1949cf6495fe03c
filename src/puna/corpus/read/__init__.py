"""Files to documents: what people have on disk, in units of work, nothing lost in silence."""

from __future__ import annotations

from puna.corpus.read.plan import UNIT_BYTES, plan_units
from puna.corpus.read.reader import read_unit
from puna.corpus.read.units import (
    FORMATS,
    DocumentColumns,
    Format,
    Piece,
    ReadConfig,
    ReadUnit,
    Unread,
)

__all__ = [
    "FORMATS",
    "UNIT_BYTES",
    "DocumentColumns",
    "Format",
    "Piece",
    "ReadConfig",
    "ReadUnit",
    "Unread",
    "plan_units",
    "read_unit",
]
