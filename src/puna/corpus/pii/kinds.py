"""What counts as personal, and where in a text it stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["key", "email", "iban", "card", "national_id", "ip", "phone", "handle"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds; where two claim the same characters, the one named first has them: those with a check
digit or a fixed form before those that are recognised by their look."""

COMMON_KINDS: tuple[Kind, ...] = KINDS[:-1]
"""All but handles, which decorators and annotations in code look like."""

Places = Iterator[tuple[int, int]]
"""Where something starts and where it stops, in characters."""


@dataclass(frozen=True)
class Span:
    """One piece of personal data in a text."""

    kind: Kind
    """What it is."""
    start: int
    """Its first character, counted from 0."""
    stop: int
    """The character after its last."""


@dataclass(frozen=True)
class Rules:
    """What the finders count as personal."""

    regions: tuple[str, ...] = ("US", "GB", "DE", "FR", "CN")
    """Whose national phone numbers are known without a word like "call" near by: ISO 3166-1."""
    private_addresses: bool = False
    """Whether IP addresses that are not routed on the Internet (192.168.0.1) count."""
    reserved: bool = False
    """Whether values that belong to nobody by agreement (example.com, 192.0.2.1) count."""
