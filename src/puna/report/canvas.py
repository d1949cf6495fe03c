"""A small SVG writer: elements without styles, which the page's style sheet paints."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from puna.report.axes import Scale, tick_label, ticks
from puna.report.words import visible

CHAR = 6.3
"""Mean advance of a character in the charts' type, pixels."""


def text_width(text: str) -> float:
    """About how wide a text is, pixels; East Asian characters are two wide."""
    wide = sum(1 for c in text if unicodedata.east_asian_width(c) in "WF")
    return CHAR * (len(text) + 0.8 * wide)


def clipped(text: str, width: float) -> str:
    """A text cut to about `width` pixels, with a mark where it was cut."""
    text = " ".join(visible(text).split())
    if text_width(text) <= width:
        return text
    while text and text_width(text) > width - 2 * CHAR:
        text = text[:-1]
    return f"{text.rstrip()}…"


@dataclass
class Canvas:
    """Elements on an area of `width` by `height` pixels."""

    width: float
    height: float
    elements: list[str] = field(default_factory=list)

    def add(self, name: str, attributes: Mapping[str, object], text: str = "") -> None:
        """Add an element; attributes and text are escaped."""
        written = "".join(f' {k}="{html.escape(str(v))}"' for k, v in attributes.items())
        inner = html.escape(visible(text), quote=False)
        self.elements.append(
            f"<{name}{written}>{inner}</{name}>" if text else f"<{name}{written}/>"
        )

    def line(self, kind: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Add a straight line of a class."""
        (x1, y1), (x2, y2) = start, end
        self.add("line", {"class": kind, "x1": x1, "y1": y1, "x2": x2, "y2": y2})

    def text(self, kind: str, x: float, y: float, text: str, anchor: str = "start") -> None:
        """Add text of a class; `anchor` is start, middle or end."""
        at = {"class": kind, "x": round(x, 1), "y": round(y, 1), "text-anchor": anchor}
        self.add("text", at, text)

    def dot(self, kind: str, x: float, y: float, radius: float, title: str = "") -> None:
        """Add a disc of a class, with a title that shows on pointing."""
        said = f"<title>{html.escape(visible(title))}</title>" if title else ""
        self.elements.append(
            f'<circle class="{html.escape(kind)}" cx="{x}" cy="{y}" r="{radius}">{said}</circle>'
        )

    def svg(self, name: str, title: str, description: str) -> str:
        """The whole drawing.

        Args:
            name: Unique on the page; the ids in the drawing begin with it.
            title: What it shows, for those who cannot see it.
            description: What can be read from it.
        """
        width, height = f"{self.width:g}", f"{self.height:g}"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" '
            f'aria-labelledby="{name}-t {name}-d">'
        )
        said = (
            f'<title id="{name}-t">{html.escape(visible(title))}</title>'
            f'<desc id="{name}-d">{html.escape(visible(description))}</desc>'
        )
        return head + said + "".join(self.elements) + "</svg>"


@dataclass(frozen=True)
class Frame:
    """The axes of a chart and where they stand."""

    x: Scale
    y: Scale


@dataclass(frozen=True)
class Axes:
    """Bounds and names of the two axes of a chart."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    whole_y: bool = False
    """Whether y counts things, so that fractions have no tick."""


def draw_axes(canvas: Canvas, axes: Axes, *, x_ticks: bool = True) -> Frame:
    """Draw grid, ticks and labels; return the scales inside them.

    Without `x_ticks` the caller writes below the lower axis.
    """
    narrow = canvas.width < 500
    y_ticks = ticks(*axes.y, 4 if narrow else 5, log=axes.log_y)
    if axes.whole_y:
        y_ticks = [value for value in y_ticks if value == round(value)]
    labels = [tick_label(value) for value in y_ticks]
    left = 12 + max((text_width(label) for label in labels), default=20)
    top, bottom = 26.0, canvas.height - 40.0
    y = Scale(*axes.y, bottom, top, axes.log_y)
    x = Scale(*axes.x, left, canvas.width - 14.0, axes.log_x)
    for value, label in zip(y_ticks, labels, strict=True):
        at = y(value)
        canvas.line("grid", (left, at), (canvas.width - 14.0, at))
        canvas.text("tick", left - 7, at + 4, label, "end")
    canvas.line("axis", (x.start, bottom), (x.end, bottom))
    if x_ticks:
        _draw_x(canvas, x, axes, bottom)
    canvas.text("label", 0, 13, axes.y_label)
    canvas.text("label", canvas.width - 14, canvas.height - 5, axes.x_label, "end")
    return Frame(x, y)


def _draw_x(canvas: Canvas, x: Scale, axes: Axes, bottom: float) -> None:
    most = max(2, int((x.end - x.start) / 70))
    last = -1e9
    for value in ticks(*axes.x, most, log=axes.log_x):
        at, label = x(value), tick_label(value)
        half = text_width(label) / 2
        centre = min(at, canvas.width - half)
        canvas.line("axis", (at, bottom), (at, bottom + 4))
        if centre - half > last + 6:
            canvas.text("tick", centre, bottom + 17, label, "middle")
            last = centre + half
