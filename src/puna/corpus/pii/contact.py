"""E-mail addresses, IP addresses and names in social media.

No expression here goes over the same characters more than a bounded number of times: a run of
letters is entered at its start alone, and what repeats has an upper bound.
"""

from __future__ import annotations

import ipaddress
import re

from puna.corpus.pii.kinds import Places, Rules

_LOCAL = "A-Za-z0-9._%+'\u00c0-\u024f-"
_NAME = r"[A-Za-z0-9-]{1,63}"
_EMAIL = re.compile(
    rf"(?<![{_LOCAL}@])[{_LOCAL}]{{1,64}}@(?:{_NAME}\.){{1,8}}[A-Za-z]{{2,24}}(?![A-Za-z0-9@])"
)
_AT = r"\s?[\[({]\s?(?:at|AT)\s?[\])}]\s?"
_DOT = r"(?:\.|\s?[\[({]\s?(?:dot|DOT)\s?[\])}]\s?)"
_SPELT_EMAIL = re.compile(rf"(?<![{_LOCAL}])[{_LOCAL}]{{1,64}}{_AT}{_NAME}(?:{_DOT}{_NAME}){{1,4}}")
# `icon@2x.png` and `package@1.2.tgz` are files.
_EXTENSIONS = (
    " bz2 css gif gz html ico jar jpeg jpg js json md mp3 mp4 pdf png py svg tar tgz ts txt webp "
    "whl xml xz yaml yml zip "
)
EMAIL_FILTER = r"@(?:[A-Za-z0-9-]+\.)+[A-Za-z]|[\[({]\s?(?:at|AT)\s?[\])}]"
"""For RE2: every text that holds an e-mail address matches."""

_IPV4 = re.compile(r"\d(?<![\w.-].)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\d)", re.ASCII)
_TWO_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6 = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f:]{2,39}(?:(?<=:)\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])",
    re.ASCII,
)
_HEXADECIMAL = tuple("0123456789ABCDEFabcdef")
_GROUP_CHARS = 4
_GROUP, _GROUPS = re.compile("[0-9A-Fa-f]+"), 3
_LONG_GROUP = re.compile("[0-9A-Fa-f]{3,4}")
_LONG_GROUPS = 5  # of an IPv6 address, that make it one beyond doubt: fingerprints have short ones
_VERSION = re.compile(
    r"(?:\bver(?:sion)?|\brelease|\bsection|\brev|\bv|§|版本|[<>=~^!]=|[<>~^])[.:]?[ \t]{0,2}$",
    re.I,
)
IP_FILTER = r"\d\.\d{1,3}\.\d{1,3}\.\d|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]"
"""For RE2: every text that holds an IP address matches."""

_AT_HANDLE = re.compile(
    r"(?<![\w@/.+\x00-])@(?:"  # NUL: where something was found before
    r"[A-Za-z_](?:[.-]?[A-Za-z0-9_]){1,29}+(?![A-Za-z0-9_(=])"
    rf"(?:@(?:{_NAME}\.){{1,4}}[A-Za-z]{{2,24}})?(?![@\w])"  # @name@server, in the Fediverse
    r"|[\u4e00-\u9fff][\w-]{1,7}(?![\w@-]))"
)
_SITES = (
    r"(?:twitter|x|instagram|facebook|github|gitlab|t|tiktok|threads|medium|weibo)\.(?:com|me|net)"
)
_SITE_HANDLE = re.compile(
    rf"(?<![\w.-])(?:https?://)?(?:www\.)?{_SITES}/@?([A-Za-z0-9_.]{{3,30}})(?![\w.]|/?\.)"
)
# Marks of documentation generators and of languages; they stand in prose about code too.
_NOT_HANDLES = (
    " abstractmethod after author autowired bean before brief charset classmethod code component "
    "dataclass deprecated desc details end endif entity example exception extend file font "
    "fixture id if ifdef import include inheritdoc injectable inline interface internal keyframes "
    "link media method mixin namespace note nullable nonnull override package page param private "
    "property protected public pytest ref return returns route safevarargs see service since "
    "staticmethod subsection summary supports suppresswarnings table test throws todo type "
    "typedef util value version warning web "
)
HANDLE_FILTER = rf"@[A-Za-z_\p{{Han}}]|{_SITES}/"
"""For RE2: every text that holds a handle matches."""


def find_emails(text: str, rules: Rules) -> Places:
    """E-mail addresses, also those written `name [at] host [dot] org`."""
    for match in _EMAIL.finditer(text):
        local, _, host = match.group().rpartition("@")
        lead = len(local) - len(local.lstrip(".'%-"))
        if lead == len(local) or f" {host.rpartition('.')[2].lower()} " in _EXTENSIONS:
            continue
        if local == "git":  # the address of a repository
            continue
        yield match.start() + lead, match.end()
    for match in _SPELT_EMAIL.finditer(text):
        yield match.span()


def find_addresses(text: str, rules: Rules) -> Places:
    """IPv4 and IPv6 addresses; those of private networks where the rules say so."""
    for quad in _IPV4.finditer(text):
        before = text[max(0, quad.start() - 12) : quad.start()]
        if _counts(quad.group(), rules) and not _VERSION.search(before):
            yield quad.span()
    for colons in _TWO_COLONS.finditer(text):
        start = colons.start()
        while colons.start() - start < _GROUP_CHARS and text[start - 1 : start] in _HEXADECIMAL:
            start -= 1
        match = _IPV6.match(text, start)
        if match is None:
            continue
        value = match.group()
        cut = value.endswith(":") and not value.endswith("::")
        value = value[:-1] if cut else value
        if _counts(value, rules):
            yield match.start(), match.start() + len(value)


def find_handles(text: str, rules: Rules) -> Places:
    """`@name`, and the name in addresses of profile pages."""
    for match in _AT_HANDLE.finditer(text):
        line = text[max(0, match.start() - 80) : match.start()].rpartition("\n")[2]
        word = re.split(r"[.:-]", match.group()[1:], maxsplit=1)[0].lower()
        decorates = not line.strip() and _ends_line(text, match.end())
        if f" {word} " not in _NOT_HANDLES and not decorates:
            yield match.span()
    for match in _SITE_HANDLE.finditer(text):
        yield match.span(1)


def _ends_line(text: str, place: int) -> bool:
    return text[place : place + 1] in ("", "\n", "\r", "(")


def _counts(value: str, rules: Rules) -> bool:
    """Whether it is an address that may lead to a person."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if address.is_unspecified or address.is_multicast:
        return False
    if address.version == 6:
        first = int(address) >> 112
        if first >= 0xFC00 or int(address) == 1:
            return rules.private_addresses
        # All that is assigned on the Internet so far; `2004::` alone is more often code.
        unicast = 0x2000 <= first < 0x4000 and len(_GROUP.findall(value)) >= _GROUPS
        return unicast or len(_LONG_GROUP.findall(value)) >= _LONG_GROUPS
    if reserved_network(value):
        return True  # whether it counts is for `rules.reserved` to say
    return address.is_global or rules.private_addresses


def reserved_network(value: str) -> bool:
    """Whether an address is of a network for documentation (RFC 5737, RFC 3849)."""
    return value.startswith(("192.0.2.", "198.51.100.", "203.0.113.")) or value.lower().startswith(
        "2001:db8:"
    )
