"""Exact duplicates: in what form texts are compared, and which one stays."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.corpus.dedup import (
    Clusters,
    ExactConfig,
    dropping,
    exact_unit,
    find_exact_duplicates,
    signature_twin,
)
from puna.corpus.schema import Found, document_id, make_batch, with_errors
from puna.errors import InputError
from puna.records import normalised


def batch_of(texts: Sequence[str], dates: Sequence[str | None] = ()) -> pa.RecordBatch:
    dates = dates or [None] * len(texts)
    pairs = enumerate(zip(texts, dates, strict=True))
    return make_batch("s", [Found(str(i), text, date=date) for i, (text, date) in pairs])


def found_in(
    place: Path, units: Sequence[Sequence[pa.RecordBatch]], config: ExactConfig
) -> Clusters:
    folders = [place / f"unit-{number}" for number in range(len(units))]
    for folder, batches in zip(folders, units, strict=True):
        exact_unit(batches, folder, config)
    return find_exact_duplicates(folders, config, place)


def groups_of(found: Clusters) -> set[frozenset[bytes]]:
    return {frozenset(found.ids[row].tobytes() for row in rows) for rows in found.members()}


def expected_groups(texts: Sequence[str], keys: Sequence[object]) -> set[frozenset[bytes]]:
    groups = defaultdict(set)
    for number, key in enumerate(keys):
        if key is not None:
            groups[key].add(document_id("s", str(number)))
    assert len(keys) == len(texts)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


SPELLINGS = ["One text", "one  TEXT", "one text!", "One text", "another", "", "...", "  "]


@pytest.mark.parametrize(
    ("form", "groups"),
    [
        ("text", [{0, 3}]),
        ("normalised", [{0, 1, 3}, {5, 7}]),
        ("words", [{0, 1, 2, 3}]),  # what has no word is not compared
    ],
)
def test_the_forms(tmp_path: Path, form: str, groups: list[set[int]]) -> None:
    config = ExactConfig(form=form)  # type: ignore[arg-type]
    found = found_in(tmp_path, [[batch_of(SPELLINGS)]], config)
    assert groups_of(found) == {
        frozenset(document_id("s", str(i)) for i in group) for group in groups
    }
    assert (found.similarity == 1).all()


@settings(max_examples=30)
@given(st.lists(st.text("aAbＢ .é", max_size=3), max_size=30), st.integers(1, 4))
def test_groups_are_those_of_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cuts: int
) -> None:
    batch = batch_of(texts)
    size = len(texts) // cuts + 1
    units = [[batch.slice(start, size)] for start in range(0, len(texts), size)]
    by_form = {
        "text": list(texts),
        "normalised": [normalised(text) for text in texts],
        "words": [tuple(w.hash for w in signature_twin.words_of(t)) or None for t in texts],
    }
    for form, keys in by_form.items():
        place = tmp_path_factory.mktemp("units")
        config = ExactConfig(form=form, memory_bytes=100)  # type: ignore[arg-type]
        assert groups_of(found_in(place, units, config)) == expected_groups(texts, keys)


def test_the_oldest_stays_then_the_longest_then_the_least_id(tmp_path: Path) -> None:
    texts = ["A b", "a  b", "a b", "c", "c ", "d", "d", "d"]
    dates = [None, "2020-01-02", "2019", "2000", "2000", None, None, None]
    batch = batch_of(texts, dates)
    found = found_in(tmp_path, [[batch]], ExactConfig())
    kept = {one.tobytes() for one in found.ids[found.kept]}
    least = min(document_id("s", str(i)) for i in (5, 6, 7))
    assert kept == {document_id("s", "2"), document_id("s", "4"), least}
    reasons = dropping(found)(batch).column("drop").to_pylist()
    assert reasons.count("exact_duplicate") == 5
    assert reasons[2] is reasons[4] is None


def test_the_order_of_units_makes_no_difference(tmp_path: Path) -> None:
    rng = random.Random(0)
    batch = batch_of([rng.choice("abcdefgh") * rng.randrange(1, 4) for _ in range(300)])
    parts = [[batch.slice(start, 20)] for start in range(0, 300, 20)]
    results = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        found = found_in(tmp_path / name, parts, ExactConfig(memory_bytes=4_000))
        results.append((found.ids.tobytes(), found.kept.tobytes()))
        parts.reverse()
    assert results[0] == results[1]


def test_rows_in_error_do_not_count(tmp_path: Path) -> None:
    batch = with_errors(batch_of(["a", "a", "a"]), {0: "could not be read"})
    found = found_in(tmp_path, [[batch]], ExactConfig())
    assert len(found.ids) == 2
    assert dropping(found)(batch).column("drop").to_pylist()[0] is None


def test_several_clusterings_drop_at_once(tmp_path: Path) -> None:
    batch = batch_of(["a", "a", "b", "b"])
    (tmp_path / "x").mkdir()
    first = found_in(tmp_path, [[batch.slice(0, 2)]], ExactConfig())
    second = found_in(tmp_path / "x", [[batch.slice(1, 3)]], ExactConfig())
    assert dropping(first, second)(batch).column("drop").null_count == 2


def test_other_units_are_refused(tmp_path: Path) -> None:
    exact_unit([batch_of(["a"])], tmp_path / "unit", ExactConfig())
    with pytest.raises(InputError, match=r"exact\.json: was made with another configuration"):
        find_exact_duplicates([tmp_path / "unit"], ExactConfig(form="text"), tmp_path)
    with pytest.raises(InputError, match="memory_bytes: expected at least 1"):
        ExactConfig(memory_bytes=0)
