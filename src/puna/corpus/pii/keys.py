"""Keys, tokens and passwords: what opens an account or a machine.

Known forms are those that their makers document; the last resort is a long value of high entropy
that something named `api_key`, `secret` or the like is set to.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import Counter

from puna.corpus.pii.kinds import Places, Rules

_FORMS = (
    r"(?:AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA)[A-Z2-7]{16}",  # Amazon
    r"gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{22,244}",
    r"glpat-[A-Za-z0-9_-]{20,64}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",  # Slack
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,247}",  # Stripe
    r"sk-(?:[a-z]{3,8}-)?[A-Za-z0-9_-]{20,200}",  # model services
    r"hf_[A-Za-z0-9]{34,40}",
    r"npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,250}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",  # SendGrid
    r"eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{8,2048}",  # JWT
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9_-])(?:{'|'.join(_FORMS)})(?![A-Za-z0-9_])")
_WEBHOOK = re.compile(r"hooks\.slack\.com/services/(T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/\w{16,32})")
_BLOCK_START = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_END = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_BODY = re.compile(
    r"(?:\s{1,3}[A-Za-z0-9+/=]{40,128}(?=\s)){0,400}(?:\s{1,2}[A-Za-z0-9+/]{1,127}={0,2}$)?",
    re.MULTILINE,
)
_BLOCK_CHARS = 32768
_IN_URL = re.compile(
    r"(?<![A-Za-z])[a-z][a-z0-9+.-]{1,15}://([^\s:/@\"'<>]{1,64}:[^\s:/@\"'<>]{1,128})@"
)
_SET = re.compile(
    r"(?:api[_-]?key|secret|token|passw(?:or)?d|access[_-]?key|auth[_-]?key|private[_-]?key)"
    r"[\"']?\s{0,3}(?::|=>?|:=)\s{0,3}[\"']?([A-Za-z0-9+/_=.~-]{16,256}+)(?![A-Za-z0-9+/_=.~-])",
    re.IGNORECASE,
)
_ENTROPY_BITS = 3.5

KEY_FILTER = (
    r"PRIVATE KEY|AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|gh[pousr]_|github_pat_|glpat-"
    r"|xox[abeoprs]-|AIza|[rs]k_live_|[rs]k_test_|sk-[A-Za-z0-9]|hf_[A-Za-z0-9]|npm_[A-Za-z0-9]"
    r"|pypi-[A-Za-z0-9]"
    r"|SG\.[A-Za-z0-9]|eyJ[A-Za-z0-9]|hooks\.slack|://[^\s:/@]+:[^\s:/@]+@"
    r"|(?i:key|secret|token|passwd|password)[\"']?\s{0,3}(?::|=)"
)
"""For RE2: every text that holds a key matches."""


def find_keys(text: str, rules: Rules) -> Places:
    """Keys and tokens; of a setting or an address the secret part alone."""
    yield from _find_blocks(text)
    for match in _TOKEN.finditer(text):
        yield match.span()
    for pattern in (_WEBHOOK, _IN_URL):
        for match in pattern.finditer(text):
            yield match.span(1)
    for match in _SET.finditer(text):
        if _looks_random(match.group(1)):
            yield match.span(1)


def entropy_bits(value: str) -> float:
    """Shannon entropy of the characters of a value, bits per character."""
    counts = Counter(value).values()
    return -math.fsum(n / len(value) * math.log2(n / len(value)) for n in counts)


def _looks_random(value: str) -> bool:
    """Letters and digits of high entropy: neither a path nor a name in code nor a placeholder."""
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return (
        mixed and entropy_bits(value) >= _ENTROPY_BITS and value.count(".") + value.count("/") < 4
    )


def _find_blocks(text: str) -> Places:
    """Private keys; those whose end is missing with what looks like their body."""
    ends = [match.end() for match in _BLOCK_END.finditer(text)]
    for match in _BLOCK_START.finditer(text):
        place = bisect.bisect_right(ends, match.end())
        if place < len(ends) and ends[place] - match.end() <= _BLOCK_CHARS:
            yield match.start(), ends[place]
        else:
            body = _BLOCK_BODY.match(text, match.end())
            yield match.start(), body.end() if body else match.end()
