"""From measured values before and after to a verdict that says no more than they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from puna.report.parts import Interval, Tone, Verdict
from puna.report.words import decimals_for, finite, number, probability

_SHARES = ("share", "fraction", "ratio")
_TITLES = (
    ("bleu", "BLEU"),
    ("chrf", "chrF"),
    ("ter", "TER"),
    ("exact_match", "Exact match"),
    ("token_accuracy", "Token accuracy"),
    ("perplexity", "Perplexity"),
    ("bits_per_byte", "Bits per byte"),
    ("validation_loss", "Validation loss"),
)


def metric_title(name: str) -> str:
    """How a metric is written; a name that is not known is written as it is, in words."""
    return dict(_TITLES).get(name, name.replace("_", " ").strip().capitalize() or "Metric")


@dataclass(frozen=True)
class Score:
    """A metric's value with its provenance; bounds of a 95 % interval."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str = ""
    signature: str = ""
    higher_is_better: bool = True

    @property
    def title(self) -> str:
        """The metric's name for people."""
        return metric_title(self.name)

    def text(self, value: float | None) -> str:
        """A value on the metric's scale, with as many digits as its interval justifies."""
        return _written(value, self.unit, _width(self.low, self.high))

    def interval_text(self) -> str:
        """The bounds in words; empty where there are none."""
        if self.low is None or self.high is None:
            return ""
        return f"{self.text(self.low).removesuffix(' %')} to {self.text(self.high)}"

    def interval(self, label: str, tone: Tone = "plain") -> Interval:
        """The score as a row of a drawing."""
        return Interval(label, self.value, self.low, self.high, self.text(self.value), tone)


@dataclass(frozen=True)
class Change:
    """A paired comparison: after minus before over the same examples, with its interval."""

    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None = None
    n: int | None = None

    def certain(self) -> bool:
        """Whether the interval leaves zero out and the test, if there was one, agrees."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return False
        return self.p_value is None or self.p_value < 0.05

    def parts(self, unit: str) -> tuple[str, str]:
        """The difference and the bounds of its interval: `+21.3` and `+19.9 to +22.8`.

        Percentages differ by percentage points, pp.
        """
        width = _width(self.low, self.high)
        written = (
            _written(value, unit, width, signed=True).removesuffix(" %")
            for value in (self.difference, self.low, self.high)
        )
        said, low, high = written
        points = " pp" if unit == "%" or unit in _SHARES else ""
        known = self.low is not None and self.high is not None
        return f"{said}{points}", f"{low} to {high}" if known else ""

    def text(self, unit: str) -> str:
        """The difference with its interval: `+21.3 (+19.9 to +22.8)`."""
        said, bounds = self.parts(unit)
        return f"{said} ({bounds})" if bounds else said


def read_score(name: str, told: Any) -> Score | None:
    """A score from plain data; None where there is none. A bare number has no interval."""
    if isinstance(told, Mapping):
        n = finite(told.get("n"))
        return Score(
            name=str(told.get("name") or name),
            value=finite(told.get("value")),
            low=finite(told.get("low")),
            high=finite(told.get("high")),
            n=None if n is None else int(n),
            unit=str(told.get("unit") or ""),
            signature=str(told.get("signature") or ""),
            higher_is_better=bool(told.get("higher_is_better", True)),
        )
    value = finite(told)
    return None if value is None else Score(name, value)


def read_change(told: Any) -> Change | None:
    """A paired comparison from plain data; None where there is none."""
    if not isinstance(told, Mapping) or finite(told.get("difference")) is None:
        return None
    n = finite(told.get("n"))
    low, high = finite(told.get("low")), finite(told.get("high"))
    p_value = finite(told.get("p_value"))
    return Change(finite(told["difference"]), low, high, p_value, None if n is None else int(n))


def direction(before: Score | None, after: Score | None, change: Change | None) -> Tone:
    """Whether things got better: good or bad where it is certain, even where it is not.

    A paired comparison decides where there is one, since it sees the same examples twice;
    otherwise the two intervals must not overlap. Plain where nothing can be compared.
    """
    if before is None or after is None or before.value is None or after.value is None:
        return "plain"
    if change is None:
        certain = overlap(before, after) is False
        gain = after.value - before.value
    else:
        certain, gain = change.certain(), change.difference or 0.0
    if not certain or gain == 0:
        return "even"
    return "good" if (gain > 0) == after.higher_is_better else "bad"


def overlap(before: Score, after: Score) -> bool | None:
    """Whether the two intervals share a value; None where one of them is not known."""
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return None
    return before.low <= after.high and after.low <= before.high


def verdict(before: Score | None, after: Score | None, change: Change | None) -> Verdict:
    """The result in one sentence, and how sure it is in a second one."""
    if after is None or after.value is None:
        return Verdict("plain", "Not judged", "The tuned model was not judged on a test set.")
    if before is None or before.value is None:
        sentence = f"{after.title} is {_scored(after)}."
        detail = "The base model was not judged, so nothing here says whether tuning helped."
        return Verdict("plain", "No comparison", sentence, detail, after=after.text(after.value))
    tone = direction(before, after, change)
    word = {"good": "Better", "bad": "Worse"}.get(tone, "No proven gain")
    return Verdict(
        tone,
        word,
        _moved(before, after, tone),
        _assurance(before, after, change, tone),
        _bare(before),
        _bare(after),
        f"{after.title}{', lower is better' if not after.higher_is_better else ''}",
    )


def _moved(before: Score, after: Score, tone: Tone) -> str:
    values = f"from {_scored(before, named=True)} to {_scored(after)}"
    if tone == "even":
        return f"No gain is shown: {after.title} went {values}, which chance alone may explain."
    rose = (after.value or 0) > (before.value or 0)
    verb = ("rose" if rose else "fell") if before.value != after.value else "stayed:"
    worse = " The tuned model is worse than its base." if tone == "bad" else ""
    return f"{after.title} {verb} {values}.{worse}"


def _scored(score: Score, *, named: bool = False) -> str:
    bounds = score.interval_text()
    words = f"95 % interval {bounds}" if named else bounds
    return score.text(score.value) + (f" ({words})" if bounds else "")


def _assurance(before: Score, after: Score, change: Change | None, tone: Tone) -> str:
    shared = overlap(before, after)
    said: list[str] = []
    if change is not None:
        p = f", {probability(change.p_value)}" if change.p_value is not None else ""
        over = f" over the same {change.n:,} examples" if change.n else ""
        said.append(f"Paired difference{over}: {change.text(after.unit)}{p}.")
        if shared and tone != "even":
            said.append(
                "The two intervals overlap, but the paired test, which compares example by "
                "example, tells the models apart."
            )
        elif tone == "even":
            said.append(_doubt(change))
    elif shared is None:
        said.append("No interval was computed, so a difference cannot be told from chance.")
    elif shared:
        said.append("The two intervals overlap, and no paired test was made.")
    else:
        said.append("The two intervals do not overlap; no paired test was made.")
    return " ".join(said)


def _doubt(change: Change) -> str:
    """Why a paired difference proves nothing."""
    if change.low is None or change.high is None:
        return "The difference has no interval, so it cannot be told from chance."
    if change.low <= 0 <= change.high:
        return "The interval of the difference includes zero."
    return "The test does not pass at 5 %." if not change.certain() else "The values are equal."


def _bare(score: Score) -> str:
    return score.text(score.value)


def _width(low: float | None, high: float | None) -> float | None:
    return None if low is None or high is None else high - low


def _written(value: float | None, unit: str, width: float | None, *, signed: bool = False) -> str:
    if value is None:
        return number(None)
    if unit in _SHARES:
        decimals = min(decimals_for(100 * width), 2) if width else 1
        return f"{number(100 * value, decimals, signed=signed)} %"
    places = None if width is None else min(decimals_for(width), 4)
    text = number(value, places, signed=signed)
    return f"{text} %" if unit == "%" else text
