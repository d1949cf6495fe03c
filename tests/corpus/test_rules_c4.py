"""C4's line rules: the kernel is its twin, and decides as datatrove's filter does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus import datatrove_rules as datatrove
from corpus.rule_texts import batch_of, real_texts, texts
from puna.corpus.c4 import C4
from puna.corpus.c4_twin import Cleaned, LineRules, clean_text
from puna.corpus.characters import Splitter, character_table
from puna.corpus.schema import content_hash, stat, with_drops
from puna.corpus.text_twin import count_sentences
from puna.errors import InputError

LINES = st.lists(texts, max_size=8).map("\n".join)


def expected(text: str, step: C4) -> Cleaned:
    rules = LineRules(
        split_by_spaces=step.splitter == "datatrove",
        min_words=-1 if step.min_words_per_line is None else int(step.min_words_per_line),
        max_word_characters=-1 if step.max_word_characters is None else 20,
        line_ends=step.require_line_end,
        citations=step.remove_citations,
        javascript=step.drop_javascript_lines,
        policy=step.drop_policy_lines,
        lorem_ipsum=step.drop_lorem_ipsum,
        curly=step.drop_curly_bracket,
    )
    return clean_text(text, character_table(step.splitter), rules)


@settings(max_examples=120)
@given(st.lists(LINES, min_size=1, max_size=6), st.integers(0, 511))
@example([" [1] \x1f One two three.\r\n\u2028 four five six. [edit]"], 0b1111)
def test_the_kernel_is_its_twin(found: list[str], switches: int) -> None:
    on = [bool(switches >> bit & 1) for bit in range(9)]
    step = C4(
        splitter="puna" if on[0] else "datatrove",
        min_words_per_line=3 if on[1] else None,
        max_word_characters=20 if on[2] else None,
        min_sentences=None,
        require_line_end=on[3],
        remove_citations=on[4],
        drop_javascript_lines=on[5],
        drop_policy_lines=on[6],
        drop_lorem_ipsum=on[7],
        drop_curly_bracket=on[8],
    )
    done = step.open()(batch_of(found))
    for row, text in enumerate(found):
        want = expected(text, step)
        reason = None if want.reason is None else f"c4.{want.reason}"
        assert done.column("drop")[row].as_py() == reason, text
        after = text if want.reason else want.text
        assert done.column("text")[row].as_py() == after
        assert done.column("content_hash")[row].as_py() == content_hash(after)
        counts = [stat(done, f"c4_{name}")[row] for name in ("sentences", "lines_kept", "lines")]
        assert counts == [want.sentences, want.kept, want.lines], text


@settings(max_examples=150)
@given(st.lists(LINES, min_size=1, max_size=6))
def test_decisions_and_texts_are_datatroves(found: list[str]) -> None:
    assert_datatrove(found)


@pytest.mark.data
def test_decisions_and_texts_are_datatroves_on_real_text(shared_data: Path) -> None:
    assert_datatrove(real_texts(shared_data, 60))


def assert_datatrove(found: list[str]) -> None:
    table = character_table("datatrove")
    done = C4(splitter="datatrove", per_language={}).open()(batch_of(found))
    kept = list[str | None]()
    for text, drop, after in zip(
        found, done.column("drop").to_pylist(), done.column("text").to_pylist(), strict=True
    ):
        reason, want = datatrove.c4(text, lambda line: count_sentences(line, table))
        assert (drop, after) == (reason and f"c4.{reason}", want), text[:200]
        kept.append(reason)


PROSE = "The high grassland lies above the valleys. Llamas graze there all year. "


@pytest.mark.parametrize(
    ("splitter", "text", "left"),
    [
        ("puna", f"Home\n{PROSE * 3}\nRead more...\n", (PROSE * 3).strip()),
        ("puna", f"{PROSE * 3}\nPlease enable JavaScript to see this.", (PROSE * 3).strip()),
        ("puna", f"{PROSE * 3}\nSee our Privacy Policy for that.", (PROSE * 3).strip()),
        ("puna", f"{PROSE * 3}\nIt rains[2][citation needed].", PROSE * 3 + "\nIt rains."),
        ("puna", "首页\n" + "高原上有许多羊驼。" * 6, "高原上有许多羊驼。" * 6),
        ("puna", "他说：“羊驼很可爱。”" * 6, "他说：“羊驼很可爱。”" * 6),
    ],
)
def test_lines_that_are_no_sentences_go(splitter: Splitter, text: str, left: str) -> None:
    done = C4(splitter=splitter).open()(batch_of([text]))
    assert done.column("drop")[0].as_py() is None
    assert done.column("text")[0].as_py().replace(" \n", "\n") == left.replace(" \n", "\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, "few_sentences"),
        (f"{PROSE * 3}\nLorem Ipsum dolor sit amet.", "lorem_ipsum"),
        (f"{PROSE * 3}\nint main() {{ return 'x'; }} .", "curly_bracket"),
        ("", "few_sentences"),
    ],
)
def test_texts_are_dropped_and_stay_as_they_were(text: str, reason: str) -> None:
    done = C4().open()(batch_of([text]))
    assert done.column("drop")[0].as_py() == f"c4.{reason}"
    assert done.column("text")[0].as_py() == text


def test_other_rows_are_not_touched() -> None:
    batch = with_drops(batch_of(["Home", f"Home\n{PROSE * 3}", "Home"]), {0: "x.y"}).slice(0, 2)
    done = C4().open()(batch)
    assert done.column("text").to_pylist() == ["Home", (PROSE * 3).strip()]
    assert done.column("drop").to_pylist() == ["x.y", None]
    assert np.isnan(stat(done, "c4_lines")[0])
    assert done.column("id").to_pylist() == batch.column("id").to_pylist()


def test_thresholds_differ_by_language() -> None:
    step = C4(per_language={"de": {"min_sentences": 2}})
    done = step.open()(batch_of([PROSE, PROSE], ["de", "en"]))
    assert done.column("drop").to_pylist() == [None, "c4.few_sentences"]
    with pytest.raises(InputError, match="no threshold 'min_sentence'"):
        C4(per_language={"de": {"min_sentence": 2}})
