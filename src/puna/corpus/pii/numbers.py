"""Numbers with check digits: payment cards, bank accounts, national identities."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from puna.corpus.pii.kinds import Places, Rules
from puna.errors import require

_CARD = re.compile(
    r"(?<![\w.+-])(?:\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?"
    r"|\d{4}([ -])\d{6}\2\d{4,5})(?![\w-]|[.,]\d)",
    re.ASCII,
)
_CARD_WORDS = re.compile(
    r"\b(?:card|visa|master ?card|maestro|amex|credit|debit|cc|pan)\b"
    r"|卡号|信用卡|银行卡|储蓄卡|借记卡",
    re.IGNORECASE,
)
CARD_FILTER = r"\d{12}|\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}|\d{4}[ -]\d{6}[ -]\d{4}"
"""For RE2: every text that holds a card number matches."""

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}")
_IBAN_FORMS = (  # country and length, from SWIFT's registry
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
    "DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 "
    "IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 "
    "MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
    "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30 "
)
_IBAN_LENGTHS = MappingProxyType({form[:2]: int(form[2:]) for form in _IBAN_FORMS.split()})
IBAN_FILTER = r"[A-Za-z]{2}\d{2} ?[A-Za-z0-9]{4}"
"""For RE2: every text that holds an IBAN matches."""


@dataclass(frozen=True)
class _Identity:
    """One country's number."""

    pattern: re.Pattern[str]
    module: str  # of python-stdnum, whose `is_valid` decides
    words: re.Pattern[str] | None  # of which one must stand near, where the form says too little


def _identity(pattern: str, module: str, words: str | None = None) -> _Identity:
    near = re.compile(words, re.IGNORECASE) if words else None
    # ASCII: a number may stand between Chinese characters.
    around = re.compile(rf"(?<![\w.-])(?:{pattern})(?![\w-]|\.\d)", re.ASCII)
    return _Identity(around, module, near)


_SSN_WORDS = r"\bssn\b|social security"
_IDENTITIES = (
    _identity(r"[1-9]\d{5}(?:19|20)\d{9}[\dXx]", "cn.ric"),
    _identity(r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    _identity(r"\d{9}|\d{3} \d{2} \d{4}", "us.ssn", _SSN_WORDS),
    _identity(r"[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]", "gb.nino", r"\bnino\b|national insurance"),
    _identity(r"[XYZ]\d{7}[A-Z]", "es.nie"),
    _identity(r"\d{8}-?[A-HJ-NP-TV-Z]", "es.dni"),
    _identity(r"[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    _identity(r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?\d{2} ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    _identity(r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    _identity(r"[2-9]\d{3} \d{4} \d{4}", "in_.aadhaar"),
    _identity(r"[2-9]\d{11}", "in_.aadhaar", r"aadhaa?r"),
    _identity(
        r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr", r"steuer-?(?:id|nummer|identifikation)|idnr"
    ),
    _identity(r"\d{11}", "pl.pesel", r"pesel"),
    _identity(r"\d{9}", "nl.bsn", r"\bbsn\b|burgerservicenummer"),
    _identity(r"(?:19|20)?\d{6}[-+]\d{4}", "se.personnummer", r"person-?n(?:umme)?r"),
    _identity(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]", "fi.hetu"),
    _identity(r"\d{3}[ -]\d{3}[ -]\d{3}", "ca.sin", r"\bsin\b|social insurance"),
    _identity(r"\d{6}-[1-8]\d{6}", "kr.rrn"),
)
NATIONAL_ID_FILTER = (
    r"\d{9}|\d{3}[ -]\d{2}[ -]\d{4}|[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]|[XYZ]\d{7}|\d{8}-?[A-Z]"
    r"|[A-Z]{6}\d{2}[A-Z]|[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3}|\d{3}[ .-]\d{3}[ .-]\d{3}"
    r"|\d{4} \d{4} \d{4}|\d{2} ?\d{3} ?\d{3} ?\d{3}|\d{6}[-+A-Z]\d{3}"
)
"""For RE2: every text that holds a national identity matches."""

_BEFORE, _AFTER = 60, 40  # characters in which a word that says what a number is counts


def find_cards(text: str, rules: Rules) -> Places:
    """Numbers of payment cards, by Luhn's check digit and the ranges of the networks."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        certain = network_knows(digits)
        if certain is None or not luhn_holds(digits):
            continue
        if certain or _near(text, match.span(), _CARD_WORDS):
            yield match.span()


def find_ibans(text: str, rules: Rules) -> Places:
    """International bank account numbers, in one piece or in groups (ISO 13616)."""
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(text[match.start() : match.start() + 2].upper())
        stop = _after_characters(text, match.start(), match.end(), length or 0)
        if stop is None or text[stop : stop + 1].isalnum():
            continue
        if iban_holds(text[match.start() : stop].replace(" ", "")):
            yield match.start(), stop


def find_national_ids(text: str, rules: Rules) -> Places:
    """Numbers that states give to persons, as far as their check digits or their form tell.

    Chinese, US, British, Spanish, Italian, French, Brazilian, Indian, German, Polish, Dutch,
    Swedish, Finnish, Canadian and Korean ones; python-stdnum has the rules.
    """
    for identity in _IDENTITIES:
        check: Any = None
        for match in identity.pattern.finditer(text):
            if identity.words is not None and not _near(text, match.span(), identity.words):
                continue
            check = check or require(
                f"stdnum.{identity.module}", extra="corpus", purpose="finding national identities"
            )
            if check.is_valid(match.group()):
                yield match.span()


def luhn_holds(digits: str) -> bool:
    """Whether the last digit is Luhn's check digit (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_holds(value: str) -> bool:
    """Whether the length is the country's and the check digits are right (ISO 7064, 97-10)."""
    if _IBAN_LENGTHS.get(value[:2].upper()) != len(value) or not value.isascii():
        return False
    moved = value[4:] + value[:4]
    return int("".join(str(int(char, 36)) for char in moved)) % 97 == 1


def network_knows(digits: str) -> bool | None:
    """Whether a card network gives out such numbers: surely, perhaps (False) or not (None)."""
    length, four = len(digits), int(digits[:4])
    visa = digits[0] == "4"
    master = 5100 <= four < 5600 or 2221 <= four < 2721
    discover = four == 6011 or 6440 <= four < 6600
    jcb = 3528 <= four < 3590
    diners = 3000 <= four < 3060 or four // 100 in (36, 38, 39)
    american = four // 100 in (34, 37)
    union = four // 100 == 62
    if length == 16 and (visa or master or discover or jcb or union):
        return True
    if (length == 15 and american) or (length == 14 and diners):
        return True
    old_jcb = length == 15 and four in (2131, 1800)
    maestro = four // 100 == 50 or 5600 <= four < 7000
    return False if old_jcb or four // 100 == 35 or maestro or visa or diners else None


def _near(text: str, span: tuple[int, int], words: re.Pattern[str]) -> bool:
    before = text[max(0, span[0] - _BEFORE) : span[0]]
    return bool(words.search(before) or words.search(text[span[1] : span[1] + _AFTER]))


def _after_characters(text: str, start: int, stop: int, count: int) -> int | None:
    """The place after `count` characters that are no spaces; None where there are fewer."""
    for place in range(start, stop):
        count -= text[place] != " "
        if count == 0:
            return place + 1
    return None
