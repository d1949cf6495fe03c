"""What a curation's codes mean: drop reasons, figures, languages and personal data, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_CODE = re.compile(r"[a-z][a-z0-9_]*(?:\.\S+)?")

STEPS: Mapping[str, str] = MappingProxyType(
    {
        "c4": "C4",
        "clean": "cleaning",
        "contaminated": "contaminated",
        "decontaminate": "decontamination",
        "exact_duplicate": "exact duplicate",
        "extract": "extraction of the main text",
        "fineweb": "FineWeb",
        "gopher_quality": "Gopher quality",
        "gopher_repetition": "Gopher repetition",
        "language": "language",
        "near_duplicate": "near-duplicate",
        "pii": "personal data",
        "read": "read",
        "repeated_line": "repeated lines",
        "score": "model score",
        "statistics": "statistics",
    }
)
"""Steps, and reasons that are a step's only one."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "clean.empty": "cleaning: nothing is left of the text",
        "contaminated": "contaminated: shares a long run of words with an evaluation set",
        "exact_duplicate": "exact duplicate of a document that was kept",
        "extract.empty": "extraction: the page yields no main text",
        "language.other": "language: none of those asked for",
        "language.unsure": "language: cannot be told for sure",
        "near_duplicate": "near-duplicate of a document that was kept",
        "repeated_line": "repeated lines: nothing is left without them",
    }
)
"""Reasons that their own name does not explain, with their step."""

LANGUAGES: Mapping[str, str] = MappingProxyType(
    {
        "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
        "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
        "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French",
        "gl": "Galician", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian",
        "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian",
        "lv": "Latvian", "ms": "Malay", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
        "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sl": "Slovenian",
        "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "th": "Thai",
        "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
    }
)  # fmt: skip
"""Names of codes of ISO 639-1."""

PERSONAL: Mapping[str, str] = MappingProxyType(
    {
        "card": "payment card number",
        "email": "e-mail address",
        "handle": "name on a social network",
        "iban": "bank account (IBAN)",
        "ip": "IP address",
        "key": "key or access token",
        "national_id": "national identity number",
        "phone": "telephone number",
    }
)
"""Kinds of personal data."""


def spoken(name: object) -> str:
    """A name of code as words: `few_words` is `few words`."""
    return " ".join(str(name).replace("_", " ").split())


def step_words(name: object) -> str:
    """A step as people call it; `statistics_2` is one that was there before."""
    said = str(name)
    kind, _, times = said.rpartition("_")
    if kind in STEPS and times.isdecimal():
        return f"{STEPS[kind]} ({times})"
    return STEPS.get(said, spoken(said))


def reason_words(reason: object) -> str:
    """Why a document was dropped: `gopher_quality.few_words` is `Gopher quality: few words`.

    Readers and errors give sentences, which stay as they are.
    """
    known, said = REASONS.get(str(reason)), str(reason)
    if known is not None or not _CODE.fullmatch(said):
        return known or said
    step, _, rule = said.partition(".")
    if rule and step == "contaminated":  # the rest is the name of a file
        return f"{step_words(step)}: shares a long run of words with {rule}"
    return f"{step_words(step)}: {spoken(rule)}" if rule else step_words(step)


def language_words(code: object) -> str:
    """A language by its code and name: `zh, Chinese`; no code is one that is not known."""
    known = "" if code is None else str(code)
    if known in ("", "None", "null", "unknown"):
        return "not known"
    name = LANGUAGES.get(known.partition("-")[0])
    return f"{known}, {name}" if name else known


def personal_words(kind: object) -> str:
    """A kind of personal data in words."""
    return PERSONAL.get(str(kind).removeprefix("pii_"), spoken(kind))


def figure_words(name: object) -> str:
    """A figure's name as words: `pii_email` is `e-mail address, count`."""
    known = PERSONAL.get(str(name).removeprefix("pii_")) if str(name).startswith("pii_") else None
    return f"{known}, count" if known else spoken(name)
