"""The step `pii`: personal data removed, masked, or replaced by consistent fakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from puna.corpus.pii.fakes import fake, normalise
from puna.corpus.pii.find import DETECTORS, find_personal
from puna.corpus.pii.kinds import COMMON_KINDS, KINDS, Kind, Rules, Span
from puna.corpus.schema import alive, with_errors, with_stats, with_texts
from puna.corpus.step import Apply, seed_of
from puna.errors import require

Action = Literal["keep", "remove", "mask", "replace"]


@dataclass(frozen=True)
class PiiConfig:
    """Find personal data, and make it nobody's.

    Names, addresses and what only a reader recognises stay: that takes a model.
    """

    VERSION: ClassVar[int] = 1

    step: Literal["pii"] = "pii"
    """As recipes call it."""
    kinds: tuple[Kind, ...] = COMMON_KINDS
    """What is looked for; `handle` has to be named, since decorators in code look like handles."""
    action: Action = "replace"
    """What becomes of it: out, `[EMAIL]`, a fake that is the same throughout a document; `keep`
    counts and changes nothing."""
    actions: Mapping[Kind, Action] = field(default_factory=dict)
    """Another action for single kinds."""
    regions: tuple[str, ...] = ("US", "GB", "DE", "FR", "CN")
    """Whose national phone numbers count without a word like "call" near by: ISO 3166-1."""
    private_addresses: bool = False
    """Whether IP addresses that are not routed on the Internet count too."""
    reserved: bool = False
    """Whether values that belong to nobody by agreement (example.com) count too."""
    seed: int = 0
    """Chooses the fakes."""

    def open(self) -> Apply:
        """What does the work; figures are `pii_email` and so on, pieces per document.

        Raises:
            MissingPackageError: phonenumbers or python-stdnum is not installed.
        """
        if "phone" in self.kinds:
            require("phonenumbers", extra="corpus", purpose="finding phone numbers")
        if "national_id" in self.kinds:
            require("stdnum", extra="corpus", purpose="finding national identities")
        return lambda batch: _apply(self, batch)


def change_personal(
    text: str, spans: Sequence[Span], config: PiiConfig, document: bytes = b""
) -> str:
    """The text with its personal data removed, masked or replaced.

    Args:
        text: The text that the spans were found in.
        spans: In their order, none over another.
        config: What becomes of them.
        document: The id of the row: within it a value always gets the same fake.
    """
    parts: list[str] = []
    place = 0
    for span in spans:
        value = text[span.start : span.stop]
        parts.append(text[place : span.start])
        place = span.stop
        action = config.actions.get(span.kind, config.action)
        if action == "remove":
            # The blank before it goes too, where another follows.
            if text[place : place + 1] in ("", " ", "\n") and parts[-1].endswith(" "):
                parts[-1] = parts[-1][:-1]
        else:
            parts.append(_instead(value, span.kind, action, config.seed, document))
    return "".join([*parts, text[place:]])


def _instead(value: str, kind: Kind, action: Action, seed: int, document: bytes) -> str:
    if action == "keep":
        return value
    if action == "mask":
        return f"[{kind.upper()}]"
    key = document + f"\0{kind}\0{normalise(kind, value)}".encode("utf-8", "surrogatepass")
    return fake(kind, value, seed_of("pii", seed, key))


def _apply(config: PiiConfig, batch: pa.RecordBatch) -> pa.RecordBatch:
    rules = Rules(config.regions, config.private_addresses, config.reserved)
    living = alive(batch)
    hits = _hits(config, batch.column("text"))
    counts = {kind: np.where(living, 0.0, np.nan) for kind in KINDS if kind in config.kinds}
    changed: dict[int, str] = {}
    errors: dict[int, str] = {}
    doubtful = living & np.any([living & False, *hits.values()], axis=0)
    for row in map(int, np.flatnonzero(doubtful)):
        text: str = batch.column("text")[row].as_py()
        kinds = [kind for kind, rows in hits.items() if rows[row]]
        try:
            spans = find_personal(text, kinds, rules)
            new = change_personal(text, spans, config, batch.column("id")[row].as_py())
        except Exception as error:  # one row that a library fails on must not fail the others
            errors[row] = f"pii: {type(error).__name__}: {error}"
            continue
        for span in spans:
            counts[span.kind][row] += 1
        if new != text:
            changed[row] = new
    if changed:
        texts = batch.column("text").to_pylist()
        for row, new in changed.items():
            texts[row] = new
        batch = with_texts(batch, texts, changed)
    batch = with_stats(batch, {f"pii_{kind}": figures for kind, figures in counts.items()})
    return with_errors(batch, errors)


def _hits(config: PiiConfig, texts: pa.Array) -> dict[Kind, np.ndarray]:
    """Which rows may hold something of a kind: bool [rows], by RE2 over the Arrow buffer."""
    return {
        detector.kind: np.asarray(pc.match_substring_regex(texts, pattern=detector.prefilter))
        for detector in DETECTORS
        if detector.kind in config.kinds
    }
