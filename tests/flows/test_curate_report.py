"""The page of a curation: what it shows, and what it says of what is absent."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.flows.curate_report import curate_page
from puna.flows.curate_report_examples import differences
from puna.report import Page, Verdict, render

LLAMA = (
    "The llama is a domesticated South American camelid, widely used as a meat and pack animal by "
    "Andean cultures since the pre-Columbian era. Llamas are social animals and live with others "
    "as a herd. Their wool is soft and contains only a small amount of lanolin."
)
SPAM = "BUY NOW <b>cheap</b> watches! Click here! Click here! Click here! #1 #deal #sale ..."
CHINESE = "羊駝屬於偶蹄目駱駝科,外形有點像綿羊,一般棲息於海拔四千公尺的高原。"


def text_of(page: Page) -> str:
    """Everything that a reader sees, with spaces as one."""
    tree = ElementTree.fromstring(render(page))
    return " ".join(" ".join(tree.itertext()).split())


def counts(documents: float, size: float) -> dict[str, float]:
    return {"documents": documents, "bytes": size}


def example(quantile: float, value: float, said: str, drop: str | None) -> dict[str, Any]:
    where = f"crawl-{round(quantile * 100)}.warc.gz@{round(value * 91)}"
    told = {"quantile": quantile, "value": value, "id": "ab" * 16, "locator": where}
    return told | {"text": said, "drop": drop}


def score(low: float | None, high: float | None, top: float) -> dict[str, Any]:
    sizes = (310, 840, 1900, 3100, 2800, 1700, 900, 420, 160, 60)
    bins = [[n * top / 10, (n + 1) * top / 10, size] for n, size in enumerate(sizes)]
    examples = [
        example(0.05, 0.1 * top, SPAM, "gopher_quality.few_words" if low or high else None),
        example(0.5, 0.4 * top, LLAMA, None),
        example(0.95, 0.8 * top, CHINESE, None),
    ]
    return {"bins": bins, "threshold": {"low": low, "high": high}, "examples": examples}


def cluster(size: int, similarity: float) -> dict[str, Any]:
    other = LLAMA.replace("meat and pack animal", "pack animal").replace("soft", "very soft")
    return {
        "size": size,
        "kept": {"id": "aa" * 16, "locator": "crawl-00.warc.gz@1200", "text": LLAMA},
        "others": [
            {"id": "bb" * 16, "locator": "b@1", "similarity": 1.0, "text": LLAMA},
            {"id": "cc" * 16, "locator": "c@2", "similarity": similarity, "text": other},
        ],
    }


def funnel() -> list[dict[str, Any]]:
    steps = (
        ("read", 12_190, 402_000_000, 41.0),
        ("extract", 11_804, 61_300_000, 96.5),
        ("clean", 11_804, 61_250_000, 4.1),
        ("language", 9_120, 49_900_000, 8.8),
        ("statistics", 9_120, 49_900_000, 1.9),
        ("gopher_quality", 7_405, 44_100_000, 0.2),
        ("pii", 7_405, 44_080_000, 6.0),
        ("near_duplicate", 6_211, 36_400_000, 3.3),
    )
    names = ("step", "documents", "bytes", "seconds")
    return [dict(zip(names, step, strict=True)) for step in steps]


def summary() -> dict[str, Any]:
    return {
        "title": "A crawl and a dump",
        "command": "puna curate recipes/curate-web.yaml --out corpora/web",
        "asked": {
            "sources": {"crawl": {"files": "crawl/*.warc.gz"}, "wiki": {"files": "wiki.xml"}},
            "seed": 7,
            "steps": [{"step": "extract", "mode": "auto"}, {"step": "clean"}],
        },
        "finished": "2026-01-01T14:05:00Z",
        "machine": {"threads": 2, "memory_bytes": 8e9},
        "seconds": 90.0,
        "workers": 2,
        "funnel": funnel(),
        "reasons": {
            "extract.empty": counts(380, 200_000),
            "language.other": counts(2_684, 11_350_000),
            "gopher_quality.few_words": counts(1_500, 5_000_000),
            "gopher_quality.symbol_ratio": counts(215, 800_000),
            "near_duplicate": counts(1_194, 7_680_000),
        },
        "quarantine": {
            "total": 6,
            "counts": {"is not UTF-8": 5, "ends in the middle": 1},
            "samples": [
                {
                    "locator": "crawl-03.warc.gz@88120",
                    "reason": "ends in the middle",
                    "detail": "gzip member 17",
                }
            ],
        },
        "sources": {
            "crawl": {
                "read": counts(11_000, 380_000_000),
                "kept": counts(5_200, 30_000_000),
                "license": "various",
            },
            "wiki": {"read": counts(1_190, 22_000_000), "kept": counts(1_011, 6_400_000)},
        },
        "languages": {"en": counts(6_000, 35_000_000), "zh": counts(211, 1_400_000)},
        "scores": {
            "language_score": score(0.65, None, 1.0),
            "words": score(50, 100_000, 900) | {"meaning": "words, not symbols"},
            "mean_word_length": score(3, 10, 12),
            "symbol_ratio": score(None, 0.1, 0.2),
            "stop_words": score(None, None, 60),
            "lines": score(None, None, 80),
        },
        "clusters": [cluster(3, 0.84), cluster(41, 0.72)],
        "changes": [
            {
                "id": "dd" * 16,
                "locator": "crawl-01.warc.gz@512",
                "step": "extract",
                "pieces": [["Home | About | Login\n", True], [LLAMA, False], ["\nShare!", True]],
            }
        ]
        * 7,
        "personal": {"email": 312, "phone": 41},
        "ledger": {
            "stages": {
                "steps": {"wall_seconds": 80.0, "energy_joules": 2500.0},
                "near_duplicate": {"wall_seconds": 10.0, "energy_joules": 300.0},
            },
            "total": {
                "wall_seconds": 90.0,
                "energy_joules": 2800.0,
                "co2e_grams": 0.37,
                "source": "estimate: x",
            },
            "carbon_grams_per_kwh": 480.0,
        },
        "lineage": [{"kind": "files", "name": "crawl/*.warc.gz", "identity": "cd" * 32}],
        "notes": ["A sample of 200 documents of each source."],
    }


def test_the_page_says_what_was_read_what_is_left_and_why() -> None:
    page = curate_page(summary())
    said = text_of(page)
    assert [section.short for section in page.sections] == [
        "Funnel", "Reasons", "Sources", "Languages", "Scores", "Duplicates", "Changes", "Personal",
        "Quarantine", "Asked", "Cost", "Lineage", "Repeat",
    ]  # fmt: skip
    for expected in (
        "Of the documents that were read, 51.0 % are kept, with 9.1 % of the bytes",
        "The commonest reason to go was language: none of those asked for (2,684 documents).",
        "51.0 % of 12,190 read",
        "4.47 MB/s",
        "in 1 min 30 s, 2 at work",
        "The narrowest place is “language”: 22.7 % of the documents end there.",
        "Gopher quality: few words",
        "no licence given",
        "zh, Chinese",
        "Documents from 50 to 100,000 go on.",
        "Documents with at most 0.1 go on.",
        "words, not symbols",
        "2 clusters to look at, the largest of 41 documents",
        "similarity 0.72",
        "Extraction of the main text in crawl-01.warc.gz@512 · "
        + "dd" * 16
        + ": 28 characters removed",
        "e-mail address",
        "6 records could not be read or worked on",
        "crawl-03.warc.gz@88120 ends in the middle gzip member 17",
        "extract → clean",
        "crawl, wiki",
        "<b>cheap</b> watches",
        "480 g per kWh of electricity",
        "puna curate recipes/curate-web.yaml --out corpora/web",
        "A sample of 200 documents of each source.",
    ):
        assert expected in said, expected
    assert "Tokens" not in said, "a curation has none"
    assert "do not add up" not in said


def test_the_funnel_is_drawn_with_what_every_step_took() -> None:
    written = render(curate_page(summary()))
    assert written.count('class="stage s0"') == written.count('class="stage s1"') == 2 * 8
    said = text_of(curate_page(summary()))
    assert "language: documents 9,120, size of the text 47.6 MiB" in said
    assert "1,715" in said, "what gopher_quality dropped"
    assert "−18.8 %" in said, "of the documents that reached it"


def test_a_loss_without_a_reason_is_said() -> None:
    told = summary()
    told["reasons"]["extract.empty"]["documents"] = 300
    said = text_of(curate_page(told))
    assert "86 documents of those that the funnel lost have no reason" in said
    told["reasons"]["extract.empty"]["documents"] = 1000
    assert "614 documents more than the funnel lost" in text_of(curate_page(told))
    told["reasons"] = {}
    assert "5,979 documents of those that the funnel lost" in text_of(curate_page(told))


@pytest.mark.parametrize(
    ("read", "kept", "tone", "word"),
    [
        (100, 0, "bad", "Nothing kept"),
        (0, 0, "bad", "Nothing read"),
        (None, 5, "even", "Not counted"),
        (10, 10, "plain", "Curated"),
    ],
)
def test_the_verdict_says_no_more_than_is_known(
    read: int | None, kept: int, tone: str, word: str
) -> None:
    steps = [{"step": "read", "documents": read}, {"step": "clean", "documents": kept}]
    opening = curate_page({"funnel": steps}).opening[0]
    assert isinstance(opening, Verdict)
    assert (opening.tone, opening.word) == (tone, word)


def test_nothing_found_is_not_nothing_recorded() -> None:
    empty: dict[str, Any] = {"reasons": {}, "clusters": [], "changes": [], "personal": {}}
    said = text_of(curate_page(empty | {"quarantine": {"total": 0, "counts": {}}}))
    for expected in (
        "No rule dropped a document.",
        "No duplicates were found",
        "No step changed the text",
        "None was found",
        "Every record could be read and worked on.",
    ):
        assert expected in said
        assert expected not in text_of(curate_page({}))
    assert text_of(curate_page({})).count("The run recorded no") == 13


def test_long_lists_are_folded_away() -> None:
    told = summary()
    told["reasons"] = {f"c4.rule_{n}": counts(1 + n, 1.0) for n in range(40)}
    said = text_of(curate_page(told))
    assert "25 more reasons" in said
    assert "The 10 largest; 30 more are in the table." in said
    told["changes"][0]["pieces"] = [["x" * 5000, False], ["gone", True], ["y" * 5000, False]]
    said = text_of(curate_page(told))
    assert "[…4,840 characters…]" in said
    assert len(said) < 60_000


def test_every_step_has_a_change_before_a_step_has_two() -> None:
    told = summary()
    one = told["changes"][0]
    told["changes"] = [one | {"step": step} for step in ("extract", "c4", "c4", "pii")]
    said = text_of(curate_page(told))
    order = [said.index("C4 in"), said.index("Personal data in"), said.rindex("C4 in")]
    assert sorted([*order, said.index("Extraction of")]) == [*order, said.index("Extraction of")]


def test_what_a_copy_has_of_its_own_is_marked() -> None:
    pieces = differences("one two three", "one 2 three four")
    assert [said for said, new in pieces if new] == ["2", " four"]
    assert "".join(said for said, _ in pieces) == "one 2 three four"


@given(st.text(max_size=40), st.text(max_size=40))
def test_differences_lose_nothing(kept: str, other: str) -> None:
    pieces = differences(kept, other)
    assert "".join(said for said, _ in pieces) == other
    assert kept != other or not any(new for _, new in pieces)


@pytest.mark.parametrize("part", summary())
@pytest.mark.parametrize("value", ["absent", None, {}, [], math.nan, "text"])
def test_whatever_is_missing_the_page_stands(part: str, value: Any) -> None:
    told = summary()
    if value == "absent":
        del told[part]
    else:
        told[part] = value
    text_of(curate_page(told))


def paths(told: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value in a summary."""
    if isinstance(told, dict):
        return [above, *(p for key in told for p in paths(told[key], (*above, key)))]
    if isinstance(told, list):
        return [above, *(p for n, one in enumerate(told[:3]) for p in paths(one, (*above, n)))]
    return [above]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, 1e308, -1e308, -5, 5e-324, "\ud800", "\x00</script>"])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*summary(), "documents", "bytes", "read", "kept", "text", "low"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(paths(summary())), JSON), min_size=1, max_size=6))
def test_nothing_that_a_summary_holds_breaks_the_page(
    mangled: list[tuple[tuple[Any, ...], Any]],
) -> None:
    told = summary()
    for path, value in mangled:
        place: Any = told
        try:
            for key in path[:-1]:
                place = place[key]
            if path and isinstance(place, dict | list):
                place[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    text_of(curate_page(told))
