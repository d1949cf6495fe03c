"""The charts of a page, drawn as SVG: lines, counts, bars, intervals and points.

Every chart is drawn for a given width, so that a page can hold one for a desk and one for a
phone, each with type of readable size. Colours come from the page's style sheet by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from puna.report.axes import Scale, drawable, padded, span, tick_label, ticks, unit_for
from puna.report.canvas import Axes, Canvas, Frame, clipped, draw_axes, text_width
from puna.report.funnel import draw_funnel
from puna.report.parts import (
    BarChart,
    Dot,
    Funnel,
    Histogram,
    Interval,
    Intervals,
    LineChart,
    Scatter,
)
from puna.report.words import number, plural

MAX_POINTS = 600
"""A longer line is thinned to the extremes of as many steps: the same line to the eye."""

Chart = LineChart | Histogram | BarChart | Intervals | Scatter | Funnel
Point = tuple[float, float]


def draw(chart: Chart, width: float, name: str) -> str:
    """Draw a chart as an SVG element.

    Args:
        chart: What to draw.
        width: Pixels; the height follows.
        name: Unique on the page.
    """
    match chart:
        case LineChart():
            return line_chart(chart, width, name)
        case Histogram():
            return histogram(chart, width, name)
        case BarChart():
            return bar_chart(chart, width, name)
        case Intervals():
            return intervals(chart, width, name)
        case Scatter():
            return scatter(chart, width, name)
        case Funnel():
            return draw_funnel(chart, width, name)


def line_chart(chart: LineChart, width: float, name: str) -> str:
    """Draw lines; they break where a value is missing or not finite."""
    canvas = Canvas(width, 250 if width < 500 else 300)
    points = [point for series in chart.series for point in series.points]
    rule = chart.rule[0] if chart.rule else None
    y_span = padded(*span((y for _, y in points), log=chart.log_y), 0.05, log=chart.log_y)
    axes = Axes(
        span([*(x for x, _ in points), rule]),
        y_span,
        chart.x_label,
        chart.y_label,
        log_y=chart.log_y,
    )
    frame = draw_axes(canvas, axes)
    if chart.rule:
        _draw_rule(canvas, frame, *chart.rule)
    said = []
    for index, series in sorted(enumerate(chart.series), key=lambda pair: not pair[1].quiet):
        runs = _runs(series.points, chart.log_y)
        for run in runs:
            _draw_run(canvas, frame, run, index, marked=series.marked, quiet=series.quiet)
        said.append(f"{series.name}: {_told(runs)}")
    return canvas.svg(name, chart.title, f"{chart.y_label} over {chart.x_label}. {'; '.join(said)}")


def _draw_rule(canvas: Canvas, frame: Frame, at: float, label: str) -> None:
    x = frame.x(at)
    canvas.line("rule", (x, frame.y.end - 4), (x, frame.y.start))
    right = x + text_width(label) + 6 > frame.x.end
    canvas.text(
        "note", x - 5 if right else x + 5, frame.y.end + 6, label, "end" if right else "start"
    )


def _draw_run(
    canvas: Canvas, frame: Frame, run: list[Point], index: int, *, marked: bool, quiet: bool
) -> None:
    placed = [(frame.x(x), frame.y(y)) for x, y in run]
    kind = f"s{index % 6}"
    if len(placed) > 1:
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in placed)
        canvas.add("path", {"class": f"line {kind}{' pale' if quiet else ''}", "d": path})
    if marked or len(placed) == 1:
        for (x, y), (step, value) in zip(placed, run, strict=True):
            title = f"{tick_label(step)}: {number(value)}"
            canvas.dot(f"mark {kind}", x, y, 3.2, title)


def _runs(points: Sequence[tuple[float | None, float | None]], log: bool) -> list[list[Point]]:
    """The unbroken runs of a line, thinned."""
    runs: list[list[Point]] = [[]]
    for x, y in points:
        known_x, known_y = drawable(x), drawable(y, log=log)
        if known_x is not None and known_y is not None:
            runs[-1].append((known_x, known_y))
        elif runs[-1]:
            runs.append([])
    return [thinned(run, MAX_POINTS) for run in runs if run]


def thinned(run: list[Point], most: int) -> list[Point]:
    """At most about `most` points of a line that keep its shape.

    Of every stretch the first, the last, the lowest and the highest point stay: the M4 aggregation
    of Jugel et al. (VLDB 2014).
    """
    if len(run) <= most:
        return run
    size = -(-4 * len(run) // most)
    kept: list[Point] = []
    for start in range(0, len(run), size):
        stretch = list(enumerate(run[start : start + size]))
        low = min(stretch, key=lambda pair: pair[1][1])
        high = max(stretch, key=lambda pair: pair[1][1])
        kept += [point for _, point in sorted({stretch[0], low, high, stretch[-1]})]
    return kept


def _told(runs: list[list[Point]]) -> str:
    points = [point for run in runs for point in run]
    if not points:
        return "no value that can be drawn"
    low, high = min(y for _, y in points), max(y for _, y in points)
    return (
        f"begins at {number(points[0][1])}, ends at {number(points[-1][1])}, "
        f"lowest {number(low)}, highest {number(high)}"
    )


def histogram(chart: Histogram, width: float, name: str) -> str:
    """Draw counts by range as columns of one width, since ranges may differ in theirs."""
    canvas = Canvas(width, 210 if width < 500 else 230)
    bins = [entry for entry in chart.bins if None not in map(drawable, entry)]
    _, most = span((n for *_, n in bins), zero=True)
    axes = Axes((0, max(len(bins), 1)), (0, most * 1.05), "", chart.y_label, whole_y=True)
    frame = draw_axes(canvas, axes, x_ticks=False)
    bottom, last = frame.y.start, -1e9
    for index, (low, high, n) in enumerate(bins):
        left, right, top = frame.x(index), frame.x(index + 1), frame.y(n)
        at = {"x": left + 0.5, "y": top, "width": round(max(right - left - 1, 1), 2)}
        if n:
            canvas.add("rect", {"class": "column", **at, "height": round(bottom - top, 2)})
        label = tick_label(low) if low == high else f"{tick_label(low)}–{tick_label(high)}"
        middle, half = (left + right) / 2, text_width(label) / 2
        if middle - half > last + 4:
            canvas.text("tick", min(middle, width - half), bottom + 17, label, "middle")
            last = middle + half
    canvas.text("label", width - 14, canvas.height - 5, chart.x_label, "end")
    total = sum(n for *_, n in bins)
    said = "; ".join(f"{number(low)} to {number(high)}: {n:,}" for low, high, n in bins)
    return canvas.svg(name, chart.title, f"{plural(total, 'entry', 'entries')}. {said}")


def bar_chart(chart: BarChart, width: float, name: str) -> str:
    """Draw a bar from zero per row, its name above it."""
    row = 38
    canvas = Canvas(width, row * len(chart.bars) + 10)
    ends = [v for bar in chart.bars for v in (bar.value, bar.low, bar.high)]
    low, high = span(ends, zero=True)
    reserve = max((text_width(_value_text(bar)) for bar in chart.bars), default=0.0) + 12
    x = Scale(low, high, 0, max(width - reserve, 60))
    for index, bar in enumerate(chart.bars):
        top = row * index + 15
        canvas.text("name", 0, top, clipped(bar.label, width))
        value = drawable(bar.value)
        begin, end = sorted((x(0), x(value or 0)))
        size = {"width": round(max(end - begin, 1), 2), "height": 11, "rx": 2}
        canvas.add("rect", {"class": f"bar {bar.tone}", "x": begin, "y": top + 6, **size})
        _whisker(canvas, x, bar, top + 11.5)
        reach = max(end, x(drawable(bar.high) or low))
        canvas.text("value", reach + 7, top + 15.5, _value_text(bar))
    return canvas.svg(name, chart.title, f"{chart.x_label}. {_listed(chart.bars)}")


def intervals(chart: Intervals, width: float, name: str) -> str:
    """Draw each value as a point on its interval, one row each."""
    row = 40
    canvas = Canvas(width, row * len(chart.rows) + 44)
    ends = [v for item in chart.rows for v in (item.value, item.low, item.high)]
    low, high = padded(*span(ends), 0.08)
    x = Scale(low, high, 8, width - 8)
    bottom = canvas.height - 34
    for value in ticks(low, high, 4 if width < 500 else 7):
        canvas.line("grid", (x(value), 4), (x(value), bottom))
        canvas.text("tick", x(value), bottom + 15, tick_label(value), "middle")
    for index, item in enumerate(chart.rows):
        middle = row * index + 27
        _whisker(canvas, x, item, middle)
        value_text = f"{item.label}  {_value_text(item)}"
        known = drawable(item.value)
        at = x(known) if known is not None else 8
        half = text_width(value_text) / 2
        at_text = min(max(at, half), width - half)
        canvas.text(f"name {item.tone}", at_text, middle - 12, clipped(value_text, width), "middle")
        if known is not None:
            canvas.dot(f"point {item.tone}", at, middle, 5.5, value_text)
    canvas.text("label", width, canvas.height - 4, chart.x_label, "end")
    return canvas.svg(name, chart.x_label, _listed(chart.rows))


def strip(items: Sequence[Interval], name: str) -> str:
    """Draw values with their intervals in the space of a table's cell."""
    canvas = Canvas(150, 10 + 12 * len(items))
    ends = [v for item in items for v in (item.value, item.low, item.high)]
    low, high = padded(*span(ends), 0.06)
    x = Scale(low, high, 5, 145)
    for index, item in enumerate(items):
        middle = 11 + 12 * index
        canvas.line("grid", (0, middle), (150, middle))
        _whisker(canvas, x, item, middle)
        known = drawable(item.value)
        if known is not None:
            canvas.dot(f"point {item.tone}", x(known), middle, 3.6)
    return canvas.svg(name, "Values with their intervals", _listed(items))


def _whisker(canvas: Canvas, x: Scale, item: Interval, middle: float) -> None:
    low, high = drawable(item.low), drawable(item.high)
    if low is not None and high is not None:
        canvas.line(f"whisker {item.tone}", (x(low), middle), (x(high), middle))


def _value_text(item: Interval) -> str:
    return item.text or number(item.value)


def _listed(items: Sequence[Interval]) -> str:
    return "; ".join(f"{item.label}: {_value_text(item)}" for item in items)


def scatter(chart: Scatter, width: float, name: str) -> str:
    """Draw labelled points with the intervals of their y; a wide range of x is logarithmic.

    A floor that lies so far off that the points would be crowded is named instead of drawn.
    """
    canvas = Canvas(width, 300 if width < 500 else 340)
    xs = [x for x in (drawable(dot.x) for dot in chart.dots) if x is not None]
    log = bool(xs) and min(xs) > 0 and max(xs) / min(xs) > 20
    divisor, unit = unit_for(chart.x_unit, max(xs, default=0.0))
    dots = [replace(dot, x=None if dot.x is None else dot.x / divisor) for dot in chart.dots]
    low, high = padded(*span((dot.x for dot in dots), log=log), 0.12, log=log)
    if not log and all(x >= 0 for x in xs):
        low = max(0.0, low)
    ys = [y for dot in dots for y in (dot.y, dot.low, dot.high)]
    y_span, near = _with_floor(span(ys), chart.floor)
    notes = [unit] if unit else []
    notes += ["logarithmic"] if log else []
    x_label = f"{chart.x_label} ({', '.join(notes)})" if notes else chart.x_label
    axes = Axes((low, high), padded(*y_span, 0.1), x_label, chart.y_label, log_x=log)
    frame = draw_axes(canvas, axes)
    if chart.floor and drawable(chart.floor[0]) is not None:
        _draw_floor(canvas, frame, *chart.floor, near=near)
    _draw_dots(canvas, frame, dots)
    said = "; ".join(f"{dot.label}: {number(dot.x)} {unit}, {number(dot.y)}" for dot in dots)
    return canvas.svg(name, chart.title, f"{chart.y_label} against {x_label}. {said}")


def _with_floor(bounds: Point, floor: tuple[float, str] | None) -> tuple[Point, bool]:
    """The bounds of y, stretched to a floor that is near enough, and whether it is."""
    low, high = bounds
    level = None if floor is None else drawable(floor[0])
    if level is None:
        return bounds, False
    away = max(low - level, level - high, 0.0)
    near = away <= 1.5 * (high - low)
    return ((min(low, level), max(high, level)) if near else bounds), near


def _draw_floor(canvas: Canvas, frame: Frame, level: float, label: str, *, near: bool) -> None:
    if near:
        y = frame.y(level)
        canvas.line("rule", (frame.x.start, y), (frame.x.end, y))
        canvas.text("note", frame.x.end, y - 5, label, "end")
        return
    below = level < frame.y.low
    text = f"{'↓' if below else '↑'} {label}: {number(level)}, off this axis"
    canvas.text("note", frame.x.end, frame.y.start - 6 if below else frame.y.end + 6, text, "end")


def _draw_dots(canvas: Canvas, frame: Frame, dots: Sequence[Dot]) -> None:
    shown = [
        (index, dot, frame.x(x), frame.y(y))
        for index, dot in enumerate(dots)
        for x, y in [(drawable(dot.x), drawable(dot.y))]
        if x is not None and y is not None
    ]
    taken = [(x - 6, y - 6, x + 6, y + 6) for _, _, x, y in shown]
    for index, dot, x, y in shown:
        low, high = drawable(dot.low), drawable(dot.high)
        if low is not None and high is not None:
            canvas.line(f"whisker s{index % 6}", (x, frame.y(low)), (x, frame.y(high)))
            taken.append((x - 3, frame.y(high), x + 3, frame.y(low)))
        canvas.dot(f"mark s{index % 6}", x, y, 5, dot.label)
    for _, dot, x, y in shown:
        label = clipped(dot.label, canvas.width / 2)
        box = _free_place(canvas, taken, x, y, text_width(label))
        taken.append(box)
        canvas.text("name", box[0], box[3] - 4, label)


Area = tuple[float, float, float, float]


def _free_place(canvas: Canvas, taken: list[Area], x: float, y: float, width: float) -> Area:
    """Where a label meets nothing that is drawn: right, left, above, below, then further off."""
    first: Area | None = None
    for away in (0, 14, 28, 42):
        for left, top in (
            (x + 9, y - 8 - away),
            (x - 9 - width, y - 8 - away),
            (x + 9, y - 8 + away),
            (x - 9 - width, y - 8 + away),
            (x - width / 2, y - 26 - away),
            (x - width / 2, y + 9 + away),
        ):
            box = (left, top, left + width, top + 16)
            inside = left >= 0 and box[2] <= canvas.width and top >= 14
            if not inside:
                continue
            first = first or box
            if not any(_meet(box, other) for other in taken):
                return box
    return first or (max(0.0, canvas.width - width), y - 8, canvas.width, y + 8)


def _meet(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
