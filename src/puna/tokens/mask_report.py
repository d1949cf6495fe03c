"""What training will learn from, said before the first step, and refused where it makes no sense.

Most failed tunings fail here: a template that hides the answers, an end of turn that is never
learnt, a bound that cuts half of the data.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from puna.errors import InputError
from puna.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from puna.tokens.examples import ExampleConfig, TokenExample

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # data must not steer a terminal
_BINS = 12
_BAR_CHARS = 32
_SAMPLE_TOKENS = 400
_OTHER_REASONS = "other reasons"
_MAX_REASONS = 20


@dataclass(frozen=True)
class MaskReport:
    """Figures of a set of examples."""

    examples: int
    """Examples that are kept."""
    tokens: int
    trained_tokens: int
    masked_tokens: int
    """Tokens that are read and not learnt: prompts, and the first of each sequence."""
    truncated_examples: int
    """Kept examples whose prompt was cut."""
    dropped: dict[str, int]
    """Examples that are not kept, by reason."""
    ends: int
    """Tokens that end a turn (or a text) and are trained."""
    expects_end: bool
    """Whether some token has to be learnt that ends an answer."""
    longest_tokens: int
    """Tokens of the longest example, before anything was cut or dropped."""
    histogram: list[tuple[int, int, int]]
    """Lengths of the kept: from so many tokens, to below so many, examples."""
    sample: list[tuple[str, bool]]
    """One example in pieces of text, and whether each is trained."""

    def check(self, config: ExampleConfig) -> None:
        """Refuse to train on what cannot work.

        Raises:
            InputError: Nothing is trained, no end of turn is, or more was truncated and dropped
                than the configuration allows; the message says what to change.
        """
        if not self.trained_tokens:
            raise InputError(
                f"no token is trained: {self.examples} examples kept, {self._reasons()}",
                fix=self._longer(config)
                or "look at the shape that the data were read as, and at their columns",
            )
        if self.expects_end and not self.ends:
            raise InputError(
                "no example ends an answer with a token at which generation stops: the model "
                "would never learn to stop",
                fix="let the chat template write {{ eos_token }} after the assistant's content, "
                "or use the template 'plain'",
            )
        lost = self.truncated_examples + sum(self.dropped.values())
        seen = self.examples + sum(self.dropped.values())
        if lost > config.max_truncated_share * seen:
            raise InputError(
                f"{lost} of {seen} examples ({lost / seen:.1%}) are truncated or dropped, more "
                f"than max_truncated_share={config.max_truncated_share:g}: "
                f"{self.truncated_examples} truncated, {self._reasons()}",
                fix=self._remedy(config),
            )

    def lines(self) -> list[str]:
        """The report for a terminal; the trained part of the sample stands in [[ ]]."""
        share = self.trained_tokens / max(self.tokens, 1)
        lines = [
            f"examples  {self.examples:,} kept, {sum(self.dropped.values()):,} dropped, "
            f"{self.truncated_examples:,} with a shortened prompt",
            *(f"  dropped {count:,}: {reason}" for reason, count in self.dropped.items()),
            f"tokens    {self.tokens:,}: {self.trained_tokens:,} trained ({share:.1%}), "
            f"{self.masked_tokens:,} masked",
            f"ends      {self.ends:,} ends of turn or text are trained",
            "lengths   in tokens",
        ]
        highest = max((count for _, _, count in self.histogram), default=0)
        for low, high, count in self.histogram:
            span = f"{low} to {high - 1}" if high - low > 1 else str(low)
            bar = "#" * -(-count * _BAR_CHARS // highest)
            lines.append(f"  {span:<14} {count:>9,} {bar}".rstrip())
        if self.sample:
            text = "".join(f"[[{piece}]]" if on else piece for piece, on in self.sample)
            text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
            lines += ["sample    [[what is trained]]", *(f"  {line}" for line in text.split("\n"))]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        plain = dataclasses.asdict(self)
        plain["histogram"] = [list(bin_) for bin_ in self.histogram]
        plain["sample"] = [list(piece) for piece in self.sample]
        return plain

    def _reasons(self) -> str:
        listed = [f"{reason} ({count})" for reason, count in self.dropped.items()]
        return f"dropped: {', '.join(listed)}" if listed else "none dropped"

    def _remedy(self, config: ExampleConfig) -> str:
        accept = "raise max_truncated_share to accept it"
        longer = self._longer(config)
        if longer is None:
            return f"mend the data, or {accept}"
        cut = "" if config.too_long == "cut_prompt" else "set too_long: cut_prompt, or "
        return f"{longer}, {cut}{accept}"

    def _longer(self, config: ExampleConfig) -> str | None:
        if self.longest_tokens <= config.max_tokens:
            return None
        longest = f"the longest example has {self.longest_tokens} tokens"
        return f"raise max_tokens from {config.max_tokens} ({longest})"


def mask_report(
    examples: Sequence[TokenExample],
    dropped: Iterable[str],
    *,
    truncated: int,
    longest: int,
    expects_end: bool,
    tokenizer: Tokenizer,
) -> MaskReport:
    """Count what examples train.

    Args:
        examples: All that are kept.
        dropped: Of each that is not, the reason.
        truncated: How many of the kept lost the beginning of their prompt.
        longest: Tokens of the longest before that.
        expects_end: Whether some token has to be learnt that ends an answer.
        tokenizer: Shows the sample.
    """
    tokens = sum(map(len, examples))
    trained = sum(int(example.trained.sum()) for example in examples)
    return MaskReport(
        examples=len(examples),
        tokens=tokens,
        trained_tokens=trained,
        masked_tokens=tokens - trained,
        truncated_examples=truncated,
        dropped=_by_reason(dropped),
        ends=sum(example.ends for example in examples),
        expects_end=expects_end,
        longest_tokens=longest,
        histogram=_histogram([len(example) for example in examples]),
        sample=_sample(examples, tokenizer),
    )


def _by_reason(reasons: Iterable[str]) -> dict[str, int]:
    """Counts, the highest first; the rarest together: each template refuses in its own words."""
    counts = Counter(reasons)
    common = dict(counts.most_common(_MAX_REASONS))
    rest = counts.total() - sum(common.values())
    return common | ({_OTHER_REASONS: rest} if rest else {})


def _histogram(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """At most 12 bins of equal and round width, from the first to the last that is not empty."""
    if not lengths:
        return []
    low, high = min(lengths), max(lengths)
    widths = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
    width = next(width for width in widths if high // width - low // width < _BINS)
    counts = Counter(length // width for length in lengths)
    bins = range(low // width, high // width + 1)
    return [(place * width, (place + 1) * width, counts[place]) for place in bins]


def _sample(examples: Sequence[TokenExample], tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """The first example of a bearable length, or both ends of the shortest."""
    if not examples:
        return []
    bearable = (example for example in examples if len(example) <= _SAMPLE_TOKENS)
    chosen = next(bearable, None) or min(examples, key=len)
    pairs = list(zip(chosen.ids.tolist(), chosen.trained.tolist(), strict=True))
    half = _SAMPLE_TOKENS // 2
    if len(pairs) <= _SAMPLE_TOKENS:
        return _pieces(pairs, tokenizer)
    left_out = f"\n[... {len(pairs) - 2 * half} tokens ...]\n"
    return [
        *_pieces(pairs[:half], tokenizer),
        (left_out, False),
        *_pieces(pairs[-half:], tokenizer),
    ]


def _pieces(pairs: Sequence[tuple[int, bool]], tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    # By bytes: `decode` would take the space off the beginning of every piece.
    return [
        (b"".join(tokenizer.token_bytes(i) for i, _ in run).decode("utf-8", "replace"), trained)
        for trained, run in groupby(pairs, key=lambda pair: pair[1])
    ]
