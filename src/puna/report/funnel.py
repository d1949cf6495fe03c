"""The drawing of a funnel: what is left after every stage, in two measures back to back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from puna.report.axes import drawable
from puna.report.canvas import Canvas, clipped, text_width
from puna.report.parts import Funnel, Stage
from puna.report.words import number

ROW, BAR = 48, 15
"""Heights of a stage with its name, and of its bars; pixels."""

_TOP = 24.0  # below the names of the measures
_SIDES = ("s0", "s1")


def draw_funnel(chart: Funnel, width: float, name: str) -> str:
    """Draw the first measure to the left of an axis and the second to the right.

    Pale slopes join a stage to the next, so that what is lost is seen as a narrowing. A value that
    is missing or not finite is named and has no bar; one below zero has none either.
    """
    canvas = Canvas(width, _TOP + ROW * len(chart.stages) + 6)
    middle = width / 2
    for side, anchor in ((0, "end"), (1, "start")):
        at = middle + _outward(side, 9)
        canvas.text("label", at, 13, clipped(chart.measures[side], middle - 8), anchor)
        reserve = max((_text_width(stage, side) for stage in chart.stages), default=0.0)
        _draw_side(canvas, chart.stages, side, max(middle - reserve - 14, 20.0))
    for row, stage in enumerate(chart.stages):
        canvas.text("name", middle, _bar_top(row) - 5, clipped(stage.name, width), "middle")
    return canvas.svg(name, chart.title, _told(chart))


def _draw_side(canvas: Canvas, stages: Sequence[Stage], side: int, room: float) -> None:
    """The bars, slopes and texts of one measure, at most `room` pixels wide."""
    values = [_value(stage, side) for stage in stages]
    most = max((value for value in values if value is not None), default=0.0)
    lengths = [None if v is None or most <= 0 else round(room * v / most, 1) for v in values]
    middle = canvas.width / 2
    for row, (before, after) in enumerate(pairwise(lengths)):
        if before is not None and after is not None:
            _draw_slope(canvas, side, row, before, after)
    for row, (stage, length) in enumerate(zip(stages, lengths, strict=True)):
        long = 0.0 if length is None else length
        if length is not None:
            x = middle - long if side == 0 else middle
            at = {"x": round(x, 1), "y": _bar_top(row), "width": max(long, 1.0), "height": BAR}
            canvas.add("rect", {"class": f"stage {_SIDES[side]}", **at})
        anchor, end = ("end", "start")[side], middle + _outward(side, long + 7)
        space = middle - long - 7
        canvas.text("value", end, _bar_top(row) + 11.5, clipped(_text(stage, side), space), anchor)
        if stage.notes[side]:
            canvas.text("tick", end, _bar_top(row) + 25, clipped(stage.notes[side], space), anchor)


def _draw_slope(canvas: Canvas, side: int, row: int, before: float, after: float) -> None:
    middle, top, bottom = canvas.width / 2, _bar_top(row) + BAR, _bar_top(row + 1)
    corners = (
        (middle, top),
        (middle + _outward(side, before), top),
        (middle + _outward(side, after), bottom),
        (middle, bottom),
    )
    points = " ".join(f"{x:g},{y:g}" for x, y in corners)
    canvas.add("polygon", {"class": f"slope {_SIDES[side]}", "points": points})


def _bar_top(row: int) -> float:
    return _TOP + ROW * row + 18


def _outward(side: int, pixels: float) -> float:
    return pixels if side else -pixels


def _value(stage: Stage, side: int) -> float | None:
    known = drawable(stage.values[side])
    return known if known is not None and known >= 0 else None


def _text(stage: Stage, side: int) -> str:
    return stage.texts[side] or number(stage.values[side])


def _text_width(stage: Stage, side: int) -> float:
    return max(text_width(_text(stage, side)), text_width(stage.notes[side]))


def _told(chart: Funnel) -> str:
    """What can be read from it, for those who cannot see it."""
    left, right = chart.measures
    said = [f"{s.name}: {left} {_text(s, 0)}, {right} {_text(s, 1)}" for s in chart.stages]
    return "; ".join(said) or "nothing to show"
