"""The templates of wikis whose words belong to the sentence that they stand in."""

from __future__ import annotations

from types import MappingProxyType

# Which argument of a template is shown: a number from 1, or -1 for the last one without a name.
_SHOWN = MappingProxyType(
    {
        name: place
        for place, names in (
            (
                1,
                "nowrap|nobr|nobreak|small|smaller|big|larger|resize|huge|em|strong|b|i|bold|italic"
                "|quote|blockquote|cquote|quotation|rquote|kbd|mono|var|mvar|math|sic|not a typo"
                "|typo|abbr|tooltip|transl-1|visible anchor|vanchor|anchored|unbulleted|tq|angbr"
                "|ipa|ipac-en-1|unicode|script|polytonic|hebrew|arabic|big text|no italic|nihongo"
                "|w|sup|sub|smallcaps|sc|overline|underline|center|poemquote|iast|lang-en-1|gaps"
                "|formatnum|le|link-en|tsl-1|internal link helper/en|bd-1|j|ship-1|oldstyledate",
            ),
            (-1, "lang|transl|transliteration|font|color|colour|fontcolor|tsl|translink|langr|red"),
        )
        for name in names.split("|")
    }
)
_FIXED = MappingProxyType(
    {
        "ndash": "–",
        "endash": "–",
        "en dash": "–",
        "mdash": "—",
        "emdash": "—",
        "em dash": "—",
        "spaced ndash": " – ",
        "spaced en dash": " – ",
        "spnd": " – ",
        "snd": " – ",
        "spaces": " ",
        "nbsp": " ",
        "space": " ",
        "=": "=",
        "!": "",
        "'": "'",
        '"': '"',
        "'s": "'s",
        "dot": " · ",
        "·": " · ",
        "bull": " • ",
        "•": " • ",
        "circa": "c.",
        "c.": "c.",
        "break": "\n",
        "br": "\n",
        "pi": "π",
        "minus": "−",
        "times": "×",
        "plusminus": "±",
        "deg": "°",
        "shy": "",
        "zwj": "",
        "zwnj": "",
        "sharp": "♯",
        "flat": "♭",
        "hash": "#",
    }
)
_MEASURES = frozenset(("convert", "cvt", "convinfobox", "val", "unité", "nombre", "unit"))
_JOINING = frozenset(("-", "to", "and", "–", "by", "x", "or"))
_AS_OF = MappingProxyType({"as of": "As of", "since": "Since"})


def template_text(inner: str) -> str:
    """The words of a template, by what stands between its braces; mostly none.

    Args:
        inner: Such as `lang|grc|ἀναρχία`, with nothing in it that nests.
    """
    name, *arguments = inner.split("|")
    name = name.strip().lower().replace("_", " ")
    if name.startswith("formatnum:"):
        return name.partition(":")[2].strip()
    if name in _FIXED:
        return _circa(name, arguments) if _FIXED[name] == "c." else _FIXED[name]
    plain = _plain_arguments(arguments)
    if not plain:
        return ""
    if name in _SHOWN:
        return plain[0 if _SHOWN[name] == 1 else -1]
    if name.startswith("lang-"):
        return plain[0]
    if name in _MEASURES:
        return _measure(plain)
    if name in _AS_OF:
        return f"{_AS_OF[name]} {plain[0]}"
    return _fraction(plain) if name in ("frac", "sfrac", "fraction") else ""


def _plain_arguments(arguments: list[str]) -> list[str]:
    """The arguments that have no name, or a number for one."""
    plain: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name.strip().isdecimal():
            plain.append(value.strip())
        elif not equals or not name.strip().replace("-", "").replace("_", "").isalnum():
            plain.append(argument.strip())
    return [words for words in plain if words]


def _measure(plain: list[str]) -> str:
    """A number with its unit, or two numbers: `5|km`, `5|-|7|km`, `5|and|7|km`."""
    if len(plain) >= 4 and plain[1] in _JOINING:
        joint = f" {plain[1]} " if plain[1].isalpha() else "–"
        return f"{plain[0]}{joint}{plain[2]} {plain[3]}"
    return " ".join(plain[:2])


def _fraction(plain: list[str]) -> str:
    if len(plain) == 1:
        return f"1/{plain[0]}"
    whole = f"{plain[0]} " if len(plain) > 2 else ""
    return f"{whole}{plain[-2]}/{plain[-1]}"


def _circa(name: str, arguments: list[str]) -> str:
    plain = _plain_arguments(arguments)
    return f"c. {plain[0]}" if plain else "c."
