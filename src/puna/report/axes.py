"""Scales, ticks and the labels of ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from puna.report.words import finite

_UNITS = (
    ("seconds", ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"))),
    ("bytes", ((1.0, "bytes"), (2.0**20, "MiB"), (2.0**30, "GiB"))),
    ("joules", ((1.0, "J"), (3600.0, "Wh"), (3.6e6, "kWh"))),
)
_LARGEST = 1e300  # the width of an axis stays a finite float64
_LEAST = 1e-100  # on a log axis: the quotient of the extremes must not overflow


@dataclass(frozen=True)
class Scale:
    """A map from values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixels; values beyond the axis are set on its edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            # Differences of logarithms: the quotient of the extremes may overflow.
            low = math.log(self.low)
            share = (math.log(value) - low) / (math.log(self.high) - low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def drawable(value: float | None, *, log: bool = False) -> float | None:
    """The value where an axis can show it: finite, not astronomic, positive on a log axis."""
    known = finite(value)
    if known is None or abs(known) > _LARGEST or (log and not _LEAST <= known <= 1 / _LEAST):
        return None
    return known


def span(
    values: Iterable[float | None], *, log: bool = False, zero: bool = False
) -> tuple[float, float]:
    """Bounds of an axis that holds all values that can be drawn.

    Args:
        values: What is shown.
        log: Whether the axis is logarithmic.
        zero: Whether zero is on it.
    """
    known = [v for v in (drawable(value, log=log) for value in values) if v is not None]
    if zero:
        known.append(0.0)
    if not known:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(known), max(known)
    if log:
        return (low / 1.15, high * 1.15) if high <= low * (1 + 1e-9) else (low, high)
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-290:
        pad = 0.1 * max(abs(low), abs(high)) or 1.0
        return (low, high + pad) if zero and low == 0 else (low - pad, high + pad)
    return low, high


def padded(low: float, high: float, share: float, *, log: bool = False) -> tuple[float, float]:
    """Bounds with air on both sides, as a share of the width."""
    if log:
        factor = (high / low) ** share
        return low / factor, high * factor
    return low - share * (high - low), high + share * (high - low)


def ticks(low: float, high: float, count: int, *, log: bool = False) -> list[float]:
    """Round values inside [low, high], about `count` of them."""
    if log:
        found = _log_ticks(low, high, count)
        if len(found) >= 2:
            return found
    step = _round_step((high - low) / max(count, 1))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5):
        if rough <= factor * power * (1 + 1e-9):
            return factor * power
    return 10 * power


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / max(count, 1)))
    for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        powers = range(first, last + 1, stride)
        found = [f * 10.0**power for power in powers for f in factors]
        found = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(found) >= min(3, count):
            return found
    return found


def unit_for(unit: str, largest: float) -> tuple[float, str]:
    """What to divide by, and its name, so that an axis has round ticks.

    Args:
        unit: seconds, bytes or joules; anything else stays as it is.
        largest: The largest value on the axis.
    """
    fitting = [entry for entry in dict(_UNITS).get(unit, ()) if entry[0] <= abs(largest)]
    return max(fitting, default=(1.0, ""))


def tick_label(value: float) -> str:
    """A tick in few characters."""
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-3:
        mantissa, exponent = f"{value:.3e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        text = f"{mantissa}e{int(exponent)}"
    else:
        text = _with_suffix(value)
    return text.replace("-", "\u2212")


def _with_suffix(value: float) -> str:
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{value / (1e3 if suffix == 'k' else factor):.4g}{suffix}"
    return f"{round(value, 9):,.6g}" if abs(value) < 1000 else f"{value:,.0f}"
