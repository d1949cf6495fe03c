"""What stands in for personal data: of the same kind and look, and nobody's.

Every fake is from what standards and operators keep for examples, or has wrong check digits; so a
second pass over the result finds nothing.
"""

from __future__ import annotations

import re
import string

from puna.corpus.pii.contact import reserved_network
from puna.corpus.pii.kinds import Kind

_NAMES = ("alex", "ana", "chen", "eli", "kim", "lee", "li", "maria", "noor", "robin", "sam", "wei")
_DOMAINS = ("example.com", "example.org", "example.net")  # RFC 2606
_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")  # RFC 5737
_AREAS = ("202", "212", "303", "312", "404", "415", "503", "617", "702", "808")
# Published by the networks for tests; no bank gives them out.
_CARDS = (
    "4111111111111111",
    "4242424242424242",
    "4012888888881881",
    "5555555555554444",
    "5105105105105100",
    "2223003122003222",
    "6011111111111117",
    "6011000990139424",
)
_OTHER_TEST_CARDS = ("378282246310005", "371449635398431", "30569309025904", "3530111333300000")
_ALPHABET = string.ascii_uppercase + "234567"
_MARK = "EXAMPLE"
_SHOWN_FROM = 20  # characters that a token has for its first four to be shown
_TAIL_FROM = -3  # of an identity's characters, those that a fake chooses

_RESERVED_HOST = re.compile(
    r"[@.](?:example\.(?:com|org|net)|(?:[a-z0-9-]+\.)*(?:example|invalid|test|localhost))$", re.I
)
# 555-0100 to 555-0199 in North America; what Ofcom keeps for drama in Britain.
_RESERVED_PHONE = re.compile(r"1?\d{3}55501\d\d|55501\d\d|(?:44|0)(?:2079460|7700900)\d{3}")
_RESERVED_IDENTITY = re.compile(r"987-?65-?432\d|078-?05-?1120|219-?09-?9999")


def is_reserved(kind: Kind, value: str) -> bool:
    """Whether a value belongs to nobody by agreement: of documentation, tests and fakes."""
    if kind == "email":
        return _RESERVED_HOST.search(value) is not None
    if kind == "ip":
        return reserved_network(value)
    if kind == "phone":
        digits = re.sub(r"\D", "", re.split(r"x|ext", value)[0])
        return _RESERVED_PHONE.fullmatch(digits) is not None
    if kind == "card":
        return re.sub(r"\D", "", value) in _CARDS + _OTHER_TEST_CARDS
    if kind == "national_id":
        nowhere = not re.sub(r"[\D0]", "", value[:_TAIL_FROM])
        return nowhere or _RESERVED_IDENTITY.fullmatch(value) is not None
    if kind == "iban":
        return value.replace(" ", "")[4:8].upper() == "TEST"
    return _MARK.lower() in value.lower()


def normalise(kind: Kind, value: str) -> str:
    """One spelling of a value, so that it gets the same fake however it is written."""
    if kind in ("phone", "card", "national_id", "iban"):
        return re.sub(r"[\W_]", "", value).upper()
    return value if kind == "key" else value.lower()


def fake(kind: Kind, value: str, number: int) -> str:
    """A value of the same kind and look that belongs to nobody.

    Args:
        kind: What the value is.
        value: The true one, of which the look alone is kept.
        number: 64 bits that choose the fake.
    """
    if kind == "email":
        name = _NAMES[number % len(_NAMES)]
        return f"{name}.{number // 16 % 10000:04}@{_DOMAINS[number // 2**20 % len(_DOMAINS)]}"
    if kind == "ip":
        return _address(value, number)
    if kind == "phone":
        return _phone(value, number)
    if kind == "card":
        return _CARDS[number % len(_CARDS)]
    if kind == "iban":
        return _iban(number)
    if kind == "national_id":
        return _identity(value, number)
    if kind == "handle":
        return f"{'@' if value.startswith('@') else ''}user_{_MARK.lower()}_{number % 10000:04}"
    return _key(value, number)


def _address(value: str, number: int) -> str:
    if ":" in value:
        return f"2001:db8::{number % 0xFFFF + 1:x}:{number // 2**16 % 0xFFFF + 1:x}"
    return f"{_NETWORKS[number % len(_NETWORKS)]}.{number // 8 % 254 + 1}"


def _phone(value: str, number: int) -> str:
    """A number of the exchange 555 that North America keeps for fiction."""
    area, line = _AREAS[number % len(_AREAS)], f"555-01{number // 16 % 100:02}"
    return f"+1-{area}-{line}" if value.startswith(("+", "00")) else f"{area}-{line}"


def _iban(number: int) -> str:
    """A British number of a bank `TEST`, which there is not, with the right check digits."""
    account = f"{number % 10**14:014}"
    moved = "".join(str(int(char, 36)) for char in f"TEST{account}GB00")
    return f"GB{98 - int(moved) % 97:02}TEST{account}"


def _identity(value: str, number: int) -> str:
    """The same look; digits of a US number in advertisements, or of a place that is none."""
    if re.fullmatch(r"\d{3}[- ]?\d{2}[- ]?\d{4}", value):
        return f"987-65-432{number % 10}"
    head = re.sub(r"[^\W\d_]", "X", re.sub(r"\d", "0", value[:_TAIL_FROM]))
    tail = "".join(
        str(number // 10**place % 10) if char.isdigit() else char
        for place, char in enumerate(value[_TAIL_FROM:])
    )
    return head + tail


def _key(value: str, number: int) -> str:
    """What shows the kind of a token, the word EXAMPLE and letters in the place of the rest."""
    if value.startswith("-----BEGIN"):
        head = value.partition("\n")[0].rstrip()
        return f"{head}\n{_MARK}\n{head.replace('BEGIN', 'END', 1)}"
    letters = []
    for _ in range(12):
        number, place = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[place])
    shown = value[:4] if len(value) >= _SHOWN_FROM else ""
    if ":" in value:  # a name and a password in an address
        shown = "user:"
    return f"{shown}{_MARK}{''.join(letters)}"
