"""Which source each row of a pretraining run comes from: by weights, or by epochs.

A row is a fixed number of tokens of one source. The order of rows is a closed form of the seed:
any row of a run is found at once, with memory that does not grow with the run, and any stretch of
rows has nearly the shares of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from puna.errors import InputError

PERIOD_ROWS = 2**20
"""Rows after which the shares of a mixture by weights are exact, to one row of each source."""
_BLOCK_ROWS = 1024  # rows that are put in order together
_PURPOSE = 0x6D69  # sets these random numbers apart from others of the same seed

Drawn = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class MixtureConfig:
    """How much a run reads of each source: by `weights` or by `epochs`; with neither, all once.

    Sources that are named in neither, where one of them names any, are not read.
    """

    weights: dict[str, float] = field(default_factory=dict)
    """Shares of the run's tokens by source; only their ratios count. A source that is used up is
    read again in another order, for as long as the run lasts."""
    epochs: dict[str, float] = field(default_factory=dict)
    """How many times each source is read, by source: 1.06 reads every document once and six in a
    hundred a second time. The run ends when all are read."""

    def __post_init__(self) -> None:
        if self.weights and self.epochs:
            raise InputError(
                "a mixture has weights or epochs, not both",
                fix="epochs say how often a source is read, weights which share of the run it is",
            )
        for key, named in (("weights", self.weights), ("epochs", self.epochs)):
            for source, value in named.items():
                if not (math.isfinite(value) and value > 0):
                    raise InputError(
                        f"{key}.{source} must be a positive number, found {value}",
                        fix="leave a source out that is not to be read",
                    )


class Schedule:
    """The order in which the rows of a run are drawn from its sources.

    Within a period, block b of nb holds of a source with q rows those from floor(b q / nb) to
    floor((b + 1) q / nb). Inside a block, row i of the n of a source stands at (i + u) / n, with u
    uniform in [0, 1) from the generator Philox, keyed by seed, period and block.

    Attributes:
        names: The sources in the order of their numbers, which is alphabetical.
        quotas: Of each source, its rows in a period; 0 for those that are not read.
        rows_total: Rows of the whole run; None where the mixture never ends.
    """

    def __init__(
        self, config: MixtureConfig, tokens: Mapping[str, int], *, row_tokens: int, seed: int
    ) -> None:
        """Work out the quotas.

        Args:
            config: What is asked.
            tokens: Of each source, how many there are to read.
            row_tokens: Tokens of a row.
            seed: Chooses the order.

        Raises:
            InputError: The mixture names an unknown source or an empty one, a weight is too small
                for any row, there is no source at all, or the seed is negative.
        """
        if seed < 0:
            raise InputError(f"a seed must be at least 0, not {seed}")
        self.names = tuple(sorted(tokens))
        _check_sources(config, tokens)
        self._tokens = [tokens[name] for name in self.names]
        self._row_tokens = row_tokens
        self._limits: list[int] | None = None
        if config.weights:
            self.quotas = _shared_out([config.weights.get(name, 0) for name in self.names])
            _check_shares(config.weights, self.names, self.quotas)
        else:
            epochs = config.epochs or dict.fromkeys(self.names, 1.0)
            exact = [Fraction(str(epochs.get(name, 0))) for name in self.names]
            read = zip(exact, self._tokens, strict=True)
            self.quotas = [math.ceil(times * there / row_tokens) for times, there in read]
            whole = zip(exact, self._tokens, strict=True)
            self._limits = [math.ceil(times) * there for times, there in whole]
        self.period_rows = sum(self.quotas)
        self.rows_total = None if config.weights else self.period_rows
        self._blocks = -(-self.period_rows // _BLOCK_ROWS)
        self._key = np.random.SeedSequence([seed, _PURPOSE]).generate_state(2, np.uint64)
        self._kept: tuple[tuple[int, int], Drawn] | None = None

    def limit(self, source: int) -> int | None:
        """The tokens that are read of a source at most: its last row may end before its end.

        It keeps every document to the epochs of its source, rounded down or up, and no more.
        None where the mixture never ends.
        """
        return None if self._limits is None else self._limits[source]

    def draws(self, start: int, stop: int) -> Drawn:
        """The rows from `start` up to `stop` of the run.

        Returns:
            Of each, the number of its source (int32 [n]) and of the row in that source's endless
            stream of rows (int64 [n]). The rows of a source come in order, none left out.

        Raises:
            InputError: The run does not have these rows.
        """
        self._check(start, stop)
        sources = np.empty(stop - start, dtype=np.int32)
        rows = np.empty(stop - start, dtype=np.int64)
        at = start
        while at < stop:
            period, place = divmod(at, self.period_rows)
            block = self._block_of(place)
            found_sources, found_rows = self._block(period, block)
            first = place - sum(self._firsts(block))
            take = min(len(found_rows) - first, stop - at)
            filled = slice(at - start, at - start + take)
            sources[filled] = found_sources[first : first + take]
            rows[filled] = found_rows[first : first + take]
            at += take
        return sources, rows

    def counts(self, rows: int) -> list[int]:
        """How many of the first `rows` rows of the run are of each source.

        Raises:
            InputError: The run does not have so many.
        """
        self._check(0, rows)
        periods, place = divmod(rows, self.period_rows)
        block = self._block_of(place)
        before = self._firsts(block)
        part = self._block(periods, block)[0][: place - sum(before)]
        within = np.bincount(part, minlength=len(self.names)).tolist()
        return [
            periods * quota + first + more
            for quota, first, more in zip(self.quotas, before, within, strict=True)
        ]

    def tokens(self, counts: Sequence[int]) -> list[int]:
        """The tokens in so many rows of each source: fewer in a last row that ends early."""
        read = [count * self._row_tokens for count in counts]
        return read if self._limits is None else list(map(min, read, self._limits))

    def _check(self, start: int, stop: int) -> None:
        end = stop if self.rows_total is None else self.rows_total
        if not 0 <= start <= stop <= end:
            has = "" if self.rows_total is None else f" of {self.rows_total}"
            raise InputError(f"there are no rows from {start} to {stop} in this schedule{has}")

    def _firsts(self, block: int) -> list[int]:
        """Of each source, its first row in a block, counted within the period."""
        return [block * quota // self._blocks for quota in self.quotas]

    def _block_of(self, place: int) -> int:
        """The block that a place of a period lies in."""
        block = place * self._blocks // self.period_rows  # or, as quotas round down, one above
        while sum(self._firsts(block + 1)) <= place:
            block += 1
        return block

    def _block(self, period: int, block: int) -> Drawn:
        """A block in its order; the last one is kept, since its rows are asked for in turn."""
        if self._kept is None or self._kept[0] != (period, block):
            self._kept = ((period, block), self._ordered(period, block))
        return self._kept[1]

    def _ordered(self, period: int, block: int) -> Drawn:
        begins, ends = self._firsts(block), self._firsts(block + 1)
        counts = np.subtract(ends, begins)
        sources = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        firsts = np.repeat(np.cumsum(counts) - counts, counts)
        index = np.arange(len(sources)) - firsts  # of the row among those of its source here
        # Raw bits, which numpy promises never to change; the lowest word counts within a block.
        counter = np.array([0, block, period, 0], dtype=np.uint64)
        bits = np.random.Philox(key=self._key, counter=counter).random_raw(len(sources))
        jitter = (np.asarray(bits, dtype=np.uint64) >> np.uint64(11)) * 2.0**-53
        order = np.argsort((index + jitter) / np.repeat(counts, counts), kind="stable")
        streams = zip(self.quotas, begins, strict=True)
        starts = [period * quota + begin for quota, begin in streams]
        rows = np.repeat(np.array(starts, dtype=np.int64), counts) + index
        return sources[order], rows[order]


def _check_sources(config: MixtureConfig, tokens: Mapping[str, int]) -> None:
    if not tokens:
        raise InputError("there are no sources to read")
    named = config.weights or config.epochs
    known = ", ".join(sorted(tokens))
    for name in named:
        if name not in tokens:
            raise InputError(
                f"the mixture names {name!r}, which is not among the sources",
                fix=f"sources here: {known}",
            )
    for name in named or tokens:
        if tokens[name] < 1:
            raise InputError(
                f"the source {name!r} has no tokens to train on",
                fix="give it documents, or name the other sources in the mixture",
            )


def _check_shares(
    weights: Mapping[str, float], names: Sequence[str], quotas: Sequence[int]
) -> None:
    for name, quota in zip(names, quotas, strict=True):
        if name in weights and not quota:
            raise InputError(
                f"weights.{name} is {weights[name]}, less than one row in {PERIOD_ROWS}",
                fix="raise it, or leave the source out",
            )


def _shared_out(weights: Sequence[float]) -> list[int]:
    """The rows of a period by weights: rounded down, the rest to the largest remainders."""
    exact = [Fraction(str(weight)) for weight in weights]
    total = sum(exact)
    shares = [PERIOD_ROWS * weight / total for weight in exact]
    rows = [math.floor(share) for share in shares]
    rest = sorted(range(len(rows)), key=lambda i: rows[i] - shares[i])
    for index in rest[: PERIOD_ROWS - sum(rows)]:
        rows[index] += 1
    return rows
