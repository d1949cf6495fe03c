"""What a page is made of: plain frozen values, without a word of HTML.

Texts are texts: whatever they hold is shown as it is and never read as markup. Numbers may be
missing (None) or not finite; the drawing leaves them out and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

Tone = Literal["plain", "good", "bad", "even", "quiet"]


@dataclass(frozen=True)
class Paragraph:
    """Running text. A tone other than plain sets it off as a notice."""

    kind: ClassVar[str] = "paragraph"
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class KeyValues:
    """Names and what they stand for."""

    kind: ClassVar[str] = "key_values"
    items: Mapping[str, str]


@dataclass(frozen=True)
class Tile:
    """One figure that should be seen at a glance."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    """A row of figures."""

    kind: ClassVar[str] = "tiles"
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Interval:
    """One measured value with its interval, named."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""
    """How the value is written; empty to write the number itself."""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Intervals:
    """Values with their intervals on one axis, one below the other."""

    kind: ClassVar[str] = "intervals"
    rows: tuple[Interval, ...]
    x_label: str
    caption: str = ""


@dataclass(frozen=True)
class Verdict:
    """The result: one word, one sentence, then how sure it is."""

    kind: ClassVar[str] = "verdict"
    tone: Tone
    word: str
    sentence: str
    detail: str = ""
    before: str = ""
    """The two figures in large type; empty for none."""
    after: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table, with a smaller line below it."""

    text: str
    note: str = ""
    tone: Tone = "plain"
    strip: tuple[Interval, ...] = ()
    """Values drawn small on an axis of their own, in place of text."""


@dataclass(frozen=True)
class Table:
    """A table. The first cell of a row is its heading."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    align: str = ""
    """One letter per column, l or r; empty: the first left, the others right."""
    caption: str = "Table"
    total: tuple[str | Cell, ...] = ()
    """A last row that sums up; empty for none."""


@dataclass(frozen=True)
class Series:
    """One line of a chart: points (x, y); where y is missing or not finite the line breaks."""

    name: str
    points: tuple[tuple[float | None, float | None], ...]
    marked: bool = False
    """Whether each point has a mark."""
    quiet: bool = False
    """Drawn thin and pale, behind the others."""


@dataclass(frozen=True)
class LineChart:
    """Lines over a common axis."""

    kind: ClassVar[str] = "line_chart"
    title: str
    series: tuple[Series, ...]
    x_label: str
    y_label: str
    log_y: bool = False
    rule: tuple[float, str] | None = None
    """A vertical line at an x, with its name."""
    caption: str = ""


@dataclass(frozen=True)
class Histogram:
    """Counts by range: (from, to, count), the upper bound included."""

    kind: ClassVar[str] = "histogram"
    title: str
    bins: tuple[tuple[float, float, int], ...]
    x_label: str
    y_label: str
    caption: str = ""


@dataclass(frozen=True)
class BarChart:
    """One bar per row, with an interval where there is one."""

    kind: ClassVar[str] = "bar_chart"
    title: str
    bars: tuple[Interval, ...]
    x_label: str
    caption: str = ""


@dataclass(frozen=True)
class Stage:
    """What is left after one stage of a `Funnel`, in its two measures."""

    name: str
    values: tuple[float | None, float | None]
    texts: tuple[str, str] = ("", "")
    """How the values are written; empty to write the numbers themselves."""
    notes: tuple[str, str] = ("", "")
    """A smaller line below each value, such as what was lost since the stage before."""


@dataclass(frozen=True)
class Funnel:
    """What is left after every stage, the first on top; two measures, left and right."""

    kind: ClassVar[str] = "funnel"
    title: str
    stages: tuple[Stage, ...]
    measures: tuple[str, str]
    """Their names; each has a scale of its own, from zero."""
    caption: str = ""


@dataclass(frozen=True)
class Dot:
    """A labelled point; its y may have an interval."""

    label: str
    x: float | None
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scatter:
    """Points over two measures; `floor` is a level that they are to be held against."""

    kind: ClassVar[str] = "scatter"
    title: str
    dots: tuple[Dot, ...]
    x_label: str
    y_label: str
    x_unit: Literal["plain", "bytes", "seconds", "joules"] = "plain"
    floor: tuple[float, str] | None = None
    caption: str = ""


@dataclass(frozen=True)
class Sample:
    """One question and what was said to it, under the columns of its `SideBySide`."""

    question: str
    answers: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True)
class SideBySide:
    """Samples side by side. An answer equal to the first column's is ticked."""

    kind: ClassVar[str] = "side_by_side"
    columns: tuple[str, ...]
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class MarkedText:
    """Text of which some pieces are marked."""

    kind: ClassVar[str] = "marked_text"
    pieces: tuple[tuple[str, bool], ...]
    legend: str
    plain_legend: str


@dataclass(frozen=True)
class Code:
    """Text to be copied as it stands."""

    kind: ClassVar[str] = "code"
    text: str
    label: str = ""


@dataclass(frozen=True)
class Step:
    """One station of a `Chain`."""

    name: str
    text: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Chain:
    """What came from what, the origin first."""

    kind: ClassVar[str] = "chain"
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Details:
    """Parts that are folded away until asked for."""

    kind: ClassVar[str] = "details"
    summary: str
    parts: tuple[Part, ...]


Part: TypeAlias = (
    Paragraph
    | KeyValues
    | Tiles
    | Intervals
    | Verdict
    | Table
    | LineChart
    | Histogram
    | BarChart
    | Funnel
    | Scatter
    | SideBySide
    | MarkedText
    | Code
    | Chain
    | Details
)


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading; the navigation shows the short name."""

    title: str
    parts: tuple[Part, ...]
    short: str = ""
    lead: str = ""
    """What the section says, in one sentence."""


@dataclass(frozen=True)
class Page:
    """A page: what stands first, then its sections."""

    title: str
    subtitle: str = ""
    eyebrow: str = "Puna"
    opening: tuple[Part, ...] = ()
    """Parts above all sections."""
    sections: tuple[Section, ...] = ()
    foot: str = ""
