"""All finders together: which there are, their pre-filters, and where two overlap, who wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from puna.corpus.pii.contact import (
    EMAIL_FILTER,
    HANDLE_FILTER,
    IP_FILTER,
    find_addresses,
    find_emails,
    find_handles,
)
from puna.corpus.pii.fakes import is_reserved
from puna.corpus.pii.keys import KEY_FILTER, find_keys
from puna.corpus.pii.kinds import COMMON_KINDS, Kind, Places, Rules, Span
from puna.corpus.pii.numbers import (
    CARD_FILTER,
    IBAN_FILTER,
    NATIONAL_ID_FILTER,
    find_cards,
    find_ibans,
    find_national_ids,
)
from puna.corpus.pii.phones import PHONE_FILTER, find_phones


@dataclass(frozen=True)
class Detector:
    """How one kind is found."""

    kind: Kind
    """What it finds."""
    prefilter: str
    """An expression for RE2: a text that does not match holds nothing of the kind."""
    find: Callable[[str, Rules], Places]
    """Where it stands; places may overlap."""


DETECTORS: tuple[Detector, ...] = (  # in the order of KINDS
    Detector("key", KEY_FILTER, find_keys),
    Detector("email", EMAIL_FILTER, find_emails),
    Detector("iban", IBAN_FILTER, find_ibans),
    Detector("card", CARD_FILTER, find_cards),
    Detector("national_id", NATIONAL_ID_FILTER, find_national_ids),
    Detector("ip", IP_FILTER, find_addresses),
    Detector("phone", PHONE_FILTER, find_phones),
    Detector("handle", HANDLE_FILTER, find_handles),
)


def find_personal(
    text: str, kinds: Sequence[Kind] = COMMON_KINDS, rules: Rules | None = None
) -> list[Span]:
    """Where a text holds personal data: spans in their order, none over another.

    Args:
        text: Any text.
        kinds: What is looked for.
        rules: What counts; the defaults of `Rules` if None.

    Raises:
        MissingPackageError: phonenumbers or python-stdnum is needed and not installed.
    """
    rules = rules or Rules()
    found: list[Span] = []
    left = text
    for detector in DETECTORS:
        if detector.kind in kinds:
            places = _apart(detector.find(left, rules))
            found += [
                Span(detector.kind, start, stop)
                for start, stop in places
                if rules.reserved or not is_reserved(detector.kind, text[start:stop])
            ]
            # What one kind has is hidden from the next: digits of two numbers run into one another.
            left = _hidden(left, places)
    return sorted(found, key=lambda span: span.start)


def _apart(places: Places) -> list[tuple[int, int]]:
    """Places in their order; of those that overlap the first, and of these the longest."""
    kept: list[tuple[int, int]] = []
    for start, stop in sorted(places, key=lambda place: (place[0], -place[1])):
        if start < stop and (not kept or start >= kept[-1][1]):
            kept.append((start, stop))
    return kept


def _hidden(text: str, places: Sequence[tuple[int, int]]) -> str:
    """The text with NUL in the place of some characters."""
    parts: list[str] = []
    place = 0
    for start, stop in places:
        parts += [text[place:start], "\0" * (stop - start)]
        place = stop
    return "".join([*parts, text[place:]]) if places else text
