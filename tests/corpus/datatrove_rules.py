"""datatrove 0.10.1's filters as they stand in its source, with a word splitter of one expression.

Copied from `datatrove/pipeline/filters/` (Apache-2.0) with their default thresholds; changed are
only the word splitter and the counter of sentences.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

from puna.corpus.characters import TERMINAL, character_table

WORDS = re.compile(r"\w+|[^\w\s]")
CITATION_REGEX = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
END_PUNCTUATION = (".", "?", "!", '"', "'")
POLICY_SUBSTRINGS = [
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
]
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
PUNCTUATION = (
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    + "".join(
        map(chr, (x for a, b in ((0, 9), (11, 13), (13, 32), (127, 160)) for x in range(a, b)))
    )
)
TERMINAL_PUNCTUATION = tuple(
    chr(code)
    for code in range(0x110000)
    if not 0xD800 <= code < 0xE000 and character_table("datatrove").of(chr(code))[0] & TERMINAL
)
PUNCTUATION_SET = set(PUNCTUATION).union(TERMINAL_PUNCTUATION)

Verdict = str | None


def find_duplicates(x: list[str]) -> tuple[int, int]:
    unique_x = set()
    duplicate_chars = 0
    duplicate_elements = 0
    for element in x:
        if element in unique_x:
            duplicate_chars += len(element)
            duplicate_elements += 1
        else:
            unique_x.add(element)
    return duplicate_elements, duplicate_chars


def find_top_duplicate(x: list[str]) -> int:
    top_n_gram = Counter(x).most_common(1)[0]
    return len(top_n_gram[0]) * top_n_gram[1]


def find_all_duplicate(words: list[str], n: int) -> int:
    n_words = len(words)
    unique = set()
    repeated_chars, idx = 0, 0
    while idx < n_words - n + 1:
        n_gram = "".join(words[idx : idx + n])
        if n_gram in unique:
            repeated_chars += len(n_gram)
            idx += n
        else:
            unique.add(n_gram)
            idx += 1
    return repeated_chars


def gopher_repetition(text: str) -> Verdict:
    if not text:
        return "empty"
    paragraphs = re.compile(r"\n{2,}").split(text.strip())
    paragraphs_duplicates, char_duplicates = find_duplicates(paragraphs)
    if paragraphs_duplicates / len(paragraphs) > 0.3:
        return "duplicate_paragraph_fraction"
    if char_duplicates / len(text) > 0.2:
        return "duplicate_paragraph_character_fraction"
    lines = re.compile("\n+").split(text)
    line_duplicates, char_duplicates = find_duplicates(lines)
    if line_duplicates / len(lines) > 0.3:
        return "duplicate_line_fraction"
    if char_duplicates / len(text) > 0.2:
        return "duplicate_line_character_fraction"
    words = WORDS.findall(text)
    for n, n_frac in ((2, 0.2), (3, 0.18), (4, 0.16)):
        n_grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        if not n_grams:
            continue
        if find_top_duplicate(n_grams) / len(text) > n_frac:
            return f"top_{n}_gram"
    for n, n_frac in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)):
        if find_all_duplicate(words, n) / len(text) > n_frac:
            return f"duplicated_{n}_gram"
    return None


def gopher_quality(text: str) -> Verdict:
    words = WORDS.findall(text)
    n_words = len(words)
    non_symbol_words = [w for w in words if any(ch not in PUNCTUATION_SET for ch in w)]
    if len(non_symbol_words) < 50:
        return "few_words"
    if len(non_symbol_words) > 100000:
        return "many_words"
    avg_n_words = np.mean([len(w) for w in non_symbol_words])
    if avg_n_words < 3:
        return "short_words"
    if avg_n_words > 10:
        return "long_words"
    if text.count("#") / n_words > 0.1:
        return "hashes"
    if (text.count("...") + text.count("…")) / n_words > 0.1:
        return "ellipses"
    lines = text.splitlines()
    bullets = sum(s.lstrip().startswith("•") or s.lstrip().startswith("-") for s in lines)
    if bullets / len(lines) > 0.9:
        return "bullets"
    ends = sum(s.rstrip().endswith("...") or s.rstrip().endswith("…") for s in lines)
    if ends / len(lines) > 0.3:
        return "ellipsis_lines"
    if sum(any(c.isalpha() for c in w) for w in words) / n_words < 0.8:
        return "few_alphabetic"
    if len(STOP_WORDS.intersection(set(words))) < 2:
        return "few_stop_words"
    return None


def fineweb(text: str) -> Verdict:
    lines = text.split("\n")
    lines = [line for line in lines if line.strip() != ""]
    if len(lines) == 0:
        return "empty"
    if sum(1 for line in lines if line.endswith(TERMINAL_PUNCTUATION)) / len(lines) < 0.12:
        return "unpunctuated_lines"
    if sum(1 for line in lines if len(line) <= 30) / len(lines) > 0.67:
        return "short_lines"
    if find_duplicates(lines)[1] / len(text.replace("\n", "")) > 0.01:
        return "repeated_lines"
    if text.count("\n") / len(WORDS.findall(text)) > 0.3:
        return "list"
    return None


def c4(text: str, sentences: Callable[[str], int]) -> tuple[Verdict, str]:
    num_sentences = 0
    kept_lines = []
    for line in text.splitlines():
        line = line.strip()
        words = line.split()
        if any(len(word) > 1000 for word in words):
            continue
        line = CITATION_REGEX.sub("", line)
        if not line.endswith(END_PUNCTUATION) or line.endswith("..."):
            continue
        if len(words) < 3:
            continue
        line_l = line.lower()
        if "lorem ipsum" in line_l:
            return "lorem_ipsum", text
        if "javascript" in line_l:
            continue
        if "{" in line:
            return "curly_bracket", text
        if any(p in line_l for p in POLICY_SUBSTRINGS):
            continue
        num_sentences += sentences(line)
        kept_lines.append(line)
    if num_sentences < 5:
        return "few_sentences", text
    return None, "\n".join(kept_lines).strip()
