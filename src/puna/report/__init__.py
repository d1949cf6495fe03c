"""Pages that people read: plain values come in, one self-contained HTML file goes out.

A caller builds a `Page` out of parts (texts, tables, charts, samples) and never writes HTML. The
invariant: whatever the values hold, the file is well-formed, loads nothing, runs nothing, and
shows every text as it is. No torch here, and no knowledge of what the numbers mean, but for
`scores`, which turns values with intervals into a sentence that claims no more than they show.
"""

from __future__ import annotations

from puna.report.page import render, write
from puna.report.parts import (
    BarChart,
    Cell,
    Chain,
    Code,
    Details,
    Dot,
    Funnel,
    Histogram,
    Interval,
    Intervals,
    KeyValues,
    LineChart,
    MarkedText,
    Page,
    Paragraph,
    Part,
    Sample,
    Scatter,
    Section,
    Series,
    SideBySide,
    Stage,
    Step,
    Table,
    Tile,
    Tiles,
    Verdict,
)
from puna.report.scores import (
    Change,
    Score,
    direction,
    metric_title,
    read_change,
    read_score,
    verdict,
)

__all__ = [
    "BarChart",
    "Cell",
    "Chain",
    "Change",
    "Code",
    "Details",
    "Dot",
    "Funnel",
    "Histogram",
    "Interval",
    "Intervals",
    "KeyValues",
    "LineChart",
    "MarkedText",
    "Page",
    "Paragraph",
    "Part",
    "Sample",
    "Scatter",
    "Score",
    "Section",
    "Series",
    "SideBySide",
    "Stage",
    "Step",
    "Table",
    "Tile",
    "Tiles",
    "Verdict",
    "direction",
    "metric_title",
    "read_change",
    "read_score",
    "render",
    "verdict",
    "write",
]
