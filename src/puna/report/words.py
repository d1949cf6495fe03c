"""Numbers and strange characters in words that people read."""

from __future__ import annotations

import math
import re
from typing import Any

MISSING = "–"
_MINUS = "\u2212"


def finite(value: Any) -> float | None:
    """A real number that can be shown or drawn; None for anything else, NaN and infinity too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of float64
        return None
    return number if math.isfinite(number) else None


def number(value: Any, decimals: int | None = None, *, signed: bool = False) -> str:
    """A number for people: grouped thousands, a true minus sign, four significant digits.

    Args:
        value: The number. None shows as a dash, NaN and infinity as what they are.
        decimals: Digits after the point; None to choose from the size.
        signed: Whether a plus sign is written.
    """
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    known = finite(value)
    if known is None:
        return "not a number" if value != value else "infinite"
    if decimals is None and isinstance(value, int):
        decimals = 0
    text = _plain(known, decimals)
    if not re.search("[1-9]", text):
        return text  # zero has no sign
    return (_MINUS if known < 0 else "+" if signed else "") + text


def _plain(value: float, decimals: int | None) -> str:
    """The size of a number without its sign."""
    value = abs(value)
    if value and (value >= 1e15 or value < 10.0 ** -(decimals or 4)):
        if decimals is not None and value < 1:
            return f"{value:.{decimals}f}"
        # Rounding decides on powers of ten: 0.0000999 has one, 0.00009999 is written 0.0001.
        mantissa, _, exponent = f"{value:.3g}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", _MINUS) if exponent else mantissa
    if decimals is None:
        digits = 0 if value == 0 else 3 - math.floor(math.log10(value))
        text = f"{value:,.{min(max(digits, 0), 6)}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:,.{decimals}f}"


def decimals_for(*widths: float | None) -> int:
    """How many decimals an uncertainty justifies: two significant digits of its width."""
    known = [width for width in map(finite, widths) if width]
    if not known:
        return 2
    return min(max(1 - math.floor(math.log10(min(map(abs, known)))), 0), 6)


def percent(share: Any, decimals: int = 1) -> str:
    """A share of one as a percentage; small ones keep two significant digits."""
    known = finite(share)
    if known is None:
        return number(share)
    if 0 < abs(known) < 0.01:
        decimals = max(decimals, min(decimals_for(100 * known), 6))
    return f"{number(100.0 * known, decimals)} %"


def duration(seconds: Any) -> str:
    """Seconds as people say them: 0.42 s, 12.3 s, 4 min 12 s, 2 h 05 min, 3 d 4 h."""
    known = finite(seconds)
    if known is None:
        return number(seconds)
    if round(known, 1) < 60:
        return f"{number(known, 2 if known < 1 else 1)} s"
    whole = round(known)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600} h"


_ENERGIES = ((1.0, "J"), (3600.0, "Wh"), (3.6e6, "kWh"))
_MASSES = ((1e-3, "mg"), (1.0, "g"), (1e3, "kg"), (1e6, "t"))


def energy(joules: Any, *, like: Any = None) -> str:
    """Energy in the unit of the electricity bill: 850 J, 1.24 Wh, 3.41 kWh.

    Args:
        joules: The energy.
        like: The energy whose unit and decimals are taken, so that a column is of one kind.
    """
    return _in_units(joules, like, _ENERGIES)


def mass(grams: Any, *, like: Any = None) -> str:
    """A mass: 12 mg, 3.4 g, 1.2 kg, 5 t; `like` as for energies."""
    return _in_units(grams, like, _MASSES)


def _in_units(value: Any, like: Any, units: tuple[tuple[float, str], ...]) -> str:
    known, model = finite(value), finite(like)
    if known is None:
        return number(value)
    model = abs(known if model is None else model)
    factor, unit = max((u for u in units if u[0] <= model), default=units[0])
    size = model / factor
    decimals = min(max(2 - math.floor(math.log10(size)), 0), 6) if size else 0
    return f"{number(known / factor, decimals)} {unit}"


def count(value: Any) -> str:
    """A large count in three digits: 812, 1.23 M, 135 M, 8.03 G."""
    known = finite(value)
    if known is None:
        return number(value)
    for factor, unit in ((1e9, "G"), (1e6, "M")):
        if abs(known) >= factor:
            return f"{_three(known / factor)} {unit}"
    return number(round(known))


def probability(p: Any) -> str:
    """A p-value, with its relation: `p = 0.021`, `p < 0.001`."""
    known = finite(p)
    if known is None:
        return "p not known"
    return (
        "p < 0.001" if known < 0.001 else f"p = {known:.3f}" if known < 0.1 else f"p = {known:.2f}"
    )


def plural(n: int, one: str, many: str | None = None) -> str:
    """A count with its noun."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def visible(text: str) -> str:
    """Text that every file and browser takes, with nothing silently lost.

    Control characters become their pictures (NUL is shown as its symbol), half characters
    (lone surrogates) and the code points that XML forbids become the replacement character.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", lambda m: chr(0x2400 + ord(m[0])), text)
    text = re.sub(r"[\x80-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)
    return text.replace("\x7f", "\u2421")


def _three(value: float) -> str:
    """Three significant digits, grouped, never in powers of ten where avoidable."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return number(round(value))
    return number(value, min(max(2 - math.floor(math.log10(abs(value))), 0), 6))
