"""Phone numbers: what has the form of one, and is either valid somewhere or told to be one.

A validating matcher finds half of the numbers that people write: many are local, or were made up.
So a loose form counts where a word like "call" or "fax" stands by it.
"""

from __future__ import annotations

import re

from puna.corpus.pii.kinds import Places, Rules
from puna.errors import require

_BETWEEN = r"[ .\-\u00a0\u2010-\u2015/()]{0,2}"
_CANDIDATE = re.compile(
    # What stands before is looked at after the first character: a set of those is searched fast.
    r"[+(\d](?<![\w.@/#$€£¥=+-].)(?<!\d[,:].)(?:(?<=\()\+?\d|(?<=\+)\d|(?<=\d))"
    rf"(?:{_BETWEEN}\d){{6,17}}"
    r"(?:\s?(?:x|ext\.?)\s?\d{1,6})?(?!\w|[.,]\d|%)",
    re.ASCII,  # a number may stand between Chinese characters
)
_EXTENSION = re.compile(r"\s?(?:x|ext\.?)\s?\d{1,6}$")
PHONE_FILTER = (
    r"\d[ .\-\x{a0}\x{2010}-\x{2015}/()]{0,2}\d(?:[ .\-\x{a0}\x{2010}-\x{2015}/()]{0,2}\d){5}"
)
"""For RE2: every text that holds a phone number matches."""

_WORDS = re.compile(
    r"\b(?:(?:tele)?phones?|tel|mobile|mob|cell(?:phone)?|fax|call(?:ed|ing)?|dial|ring|hotline"
    r"|whats ?app|wechat|sms|text(?:ed|ing)?|contact|answering|messages? to|helpline"
    r"|telefon|telefono|t[ée]l[ée]phone|t[ée]l|tel[ée]fono|m[óo]vil|handy|rufnummer|телефон|тел)\b"
    r"|\b(?:desk|office|work|home)\s?:|电话|電話|手机|手機|联系方式|热线|传真|座机|拨打|致电|携帯",
    re.IGNORECASE,
)
_OTHER_WORDS = re.compile(
    r"\b(?:card|account|order|isbn|issn|zip|passport|iban|licen[cs]e|invoice|serial|pmid|doi|ssn"
    r"|version|id|part|model|patent|ticket|tracking|bytes|population|date|year)s?\b"
    r"|卡号|账号|帐号|订单|身份证|邮编|编号|日期",
    re.IGNORECASE,
)
_WORD_AFTER = re.compile(
    r"\s?[-–(,]?\s?(?:fax|mobile|office|home|cell|desk|work|phone|tel)\b", re.IGNORECASE
)
_WINDOW = 48  # characters before a number in which a word counts

_DATE = re.compile(
    r"(?:(?:1[5-9]|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:1[5-9]|20)?\d\d)(?:[ (]|$)"
)
_OTHER_FORMS = re.compile(
    r"(?:1[5-9]|20)\d\d\s?[-\u2010-\u2015/]\s?(?:1[5-9]|20)\d\d"  # years
    r"|\d+\.\d+"  # a fraction
    r"|(?:\d{1,3}\.){3}\d{1,3}"  # an IP address
    r"|\d{1,3}(?: \d{3})+"  # a number in groups of three, as the SI writes it
    r"|97[89][- ]?\d[- \d]{8,14}"  # a book's number
    r"|\d{3}-\d{2}-\d{4}"  # a US social security number
)
_SI = re.compile(r"\d{1,3}(?: \d{3})+")
_AMERICAN = re.compile(r"(?:\+?1[-. ])?(?:\([2-9]\d{2}\)[-. ]?|[2-9]\d{2}[-. ])\d{3}[-. ]\d{4}")
_TRUNK_ZERO = re.compile(r"\(0\)")  # +46 (0)8 ...: dialled within the country alone
_CHINESE = re.compile(r"1[3-9]\d([- ]?)\d{4}\1\d{4}")


def find_phones(text: str, rules: Rules) -> Places:
    """Phone numbers, with the extension where there is one."""
    for match in _CANDIDATE.finditer(text):
        start, stop = match.span()
        if match.group().startswith("(") and ")" not in match.group():
            start += 1
        number = _EXTENSION.sub("", text[start:stop])
        digits = re.sub(r"\D", "", number)
        if not 7 <= len(digits) <= 15 or len(set(digits)) == 1:
            continue
        if _is_phone(number, digits, rules) or _is_told(text, (start, stop), number, digits):
            yield start, stop


def _is_phone(number: str, digits: str, rules: Rules) -> bool:
    """Whether the number alone says that it is one."""
    if number.lstrip("(").startswith("+"):
        apart = len(digits) >= 10 and not number.lstrip("(+").isdigit()
        return apart or _valid(_TRUNK_ZERO.sub("", number).lstrip("("), (None,))
    if _is_other(number):
        return False
    if "US" in rules.regions and _AMERICAN.fullmatch(number):
        return True
    if "CN" in rules.regions and _CHINESE.fullmatch(number):
        return True
    if digits.startswith("00") and len(digits) >= 11:
        return _valid(f"+{digits[2:]}", (None,))
    groups = re.findall(r"\d+", number)
    if digits[0] == "0" and len(digits) >= 9 and 2 <= len(groups) <= len(digits) / 1.7:
        return _valid(number, rules.regions)
    return False


def _is_told(text: str, span: tuple[int, int], number: str, digits: str) -> bool:
    """Whether what stands by the number says that it is one."""
    groups = len(re.findall(r"\d+", number))
    if groups > len(digits) / 1.7 or (_is_other(number) and not _SI.fullmatch(number)):
        return False
    if _WORD_AFTER.match(text, span[1]):
        return True
    before = text[max(0, span[0] - _WINDOW) : span[0]]
    told = [match.start() for match in _WORDS.finditer(before)]
    other = [match.start() for match in _OTHER_WORDS.finditer(before)]
    return bool(told) and (not other or other[-1] < told[-1])


def _is_other(number: str) -> bool:
    return bool(_DATE.match(number) or _OTHER_FORMS.fullmatch(number))


def _valid(number: str, regions: tuple[str | None, ...]) -> bool:
    library = require("phonenumbers", extra="corpus", purpose="finding phone numbers")
    for region in regions:
        try:
            if library.is_valid_number(library.parse(number, region)):
                return True
        except library.NumberParseException:
            continue
    return False
