from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.config import from_dict, to_dict
from puna.errors import InputError
from puna.records import Item, Quarantine, Splits, separate, split, without_duplicates
from records.reading import rows_of, shaped


def pair(source: str, target: str = "t", root: str | None = None) -> dict[str, str | None]:
    return {"source": source, "target": target, "root_id": root}


def items_of(*pairs: dict[str, str | None]) -> list[Item]:
    return shaped(rows_of(*pairs))[0] if pairs else []


def numbered(count: int) -> list[Item]:
    return items_of(*(pair(f"sentence {number}") for number in range(count)))


def parts_of(items: list[Item], splits: Splits) -> dict[str, list[Item]]:
    return split(items, splits, quarantine=Quarantine())


def place_of(parts: dict[str, list[Item]]) -> dict[str, str]:
    return {item.source: name for name, part in parts.items() for item in part}


def test_shares_and_numbers() -> None:
    parts = parts_of(numbered(2000), Splits(0.1, 0.2))
    sizes = {name: len(part) for name, part in parts.items()}
    assert sum(sizes.values()) == 2000
    assert sizes["validation"] == pytest.approx(200, abs=45)
    assert sizes["test"] == pytest.approx(400, abs=60)
    exact = parts_of(numbered(100), Splits(validation=7, test=11))
    assert {name: len(part) for name, part in exact.items()} == {
        "train": 82,
        "validation": 7,
        "test": 11,
    }
    none = parts_of(numbered(10), Splits(validation=0, test=0.0))
    assert len(none["train"]) == 10
    mixed = parts_of(numbered(1000), Splits(validation=50, test=0.1))
    assert len(mixed["validation"]) == 50
    assert mixed["test"] == parts_of(numbered(1000), Splits(0.1, 0.1))["test"]


def test_the_seed_matters() -> None:
    items = numbered(100)
    first, other = (parts_of(items, Splits(seed=seed))["test"] for seed in (0, 1))
    assert first != other


def test_a_share_is_never_nothing() -> None:
    for count in (3, 5, 20):
        parts = parts_of(numbered(count), Splits(0.01, 0.01))
        assert [len(parts[name]) for name in ("validation", "test")] == [1, 1]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=60),
    st.lists(st.integers(31, 60), max_size=20),
    st.randoms(use_true_random=False),
)
def test_stable_under_order_and_additions(
    rows: list[tuple[int, int]], added: list[int], chance: random.Random
) -> None:
    base = [*((f"s{a}", f"t{b}") for a, b in rows), *((f"u{n}", "t") for n in range(100))]
    more = [*base, *((f"s{n}", "t") for n in added)]
    chance.shuffle(more)
    splits = Splits(0.2, 0.2)
    first = place_of(parts_of(items_of(*(pair(*p) for p in base)), splits))
    second = place_of(parts_of(items_of(*(pair(*p) for p in more)), splits))
    assert first.items() <= second.items()


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3), st.none() | st.integers(0, 8))))
def test_nothing_straddles_and_nothing_is_lost(
    rows: list[tuple[int, int, int | None]],
) -> None:
    pairs = [pair(f"S {a}", f"t{b}", None if r is None else str(r)) for a, b, r in rows]
    pairs += [pair(f"more {n}") for n in range(100)]
    items = items_of(*pairs)
    quarantine = Quarantine()
    parts = split(items, Splits(0.2, 0.2), quarantine=quarantine)
    assert sum(map(len, parts.values())) + quarantine.counts["duplicate"] == len(items)
    for key in ("source", "root_id"):
        held = [{getattr(item, key) for item in part} - {None} for part in parts.values()]
        assert Counter(k for keys in held for k in keys).total() == len(set().union(*held))


def test_variants_of_one_question_stay_together_and_copies_go() -> None:
    rows = [pair("A  Dog.", "eins"), pair("a dog.", "zwei"), pair("Ａ dog.", "eins")]
    items = items_of(*rows, *(pair(f"x{n}") for n in range(50)))
    quarantine = Quarantine()
    parts = split(items, Splits(), quarantine=quarantine)
    assert quarantine.samples == []  # the turns differ, if only in case
    holding = [name for name, part in parts.items() if any(i.source == "a dog." for i in part)]
    assert len(holding) == 1
    copies = items_of(pair("a"), pair("b"), pair("a"))
    kept = without_duplicates(copies, quarantine)
    assert [item.locator for item in kept] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert quarantine.samples == [("rows.jsonl:3", "duplicate: of rows.jsonl:1")]


def test_splits_that_are_files() -> None:
    train = items_of(pair("a"), pair("B", "x"), pair("c"), pair("d", root="r"), pair("a"))
    validation = items_of(pair("b"), pair("e"), pair("f"))
    test = items_of(pair("E"), pair("g", root="r"))
    quarantine = Quarantine()
    parts = separate(
        {"train": train, "validation": validation, "test": test}, quarantine=quarantine
    )
    assert list(parts) == ["train", "validation", "test"]
    assert [[i.source for i in part] for part in parts.values()] == [
        ["a", "c"],
        ["b", "f"],
        ["e", "g"],
    ]
    assert quarantine.counts == {
        "is in the test split too": 2,
        "is in the validation split too": 1,
        "duplicate": 1,
    }
    assert separate({"train": train[:1]}, quarantine=quarantine)["test"] == []
    with pytest.raises(InputError, match="no split 'dev'"):
        separate({"dev": []}, quarantine=quarantine)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"validation": 1.0}, "validation is 1.0; it must be a share"),
        ({"test": -1}, "test is -1"),
        ({"test": float("nan")}, "test is nan"),
        ({"validation": 0.5, "test": 0.5}, "leave nothing to train on"),
    ],
)
def test_splits_that_make_no_sense(values: dict[str, float], told: str) -> None:
    with pytest.raises(InputError, match=told):
        from_dict(Splits, values)


def test_too_few_questions() -> None:
    with pytest.raises(InputError, match="2 examples of 2 different questions are too few"):
        parts_of(numbered(2), Splits())
    with pytest.raises(InputError, match="9 examples were to be held out, but there are only 3"):
        parts_of(numbered(3), Splits(validation=9, test=0))
    with pytest.raises(InputError, match="too few to hold out 2 for validation and 2 for test"):
        parts_of(numbered(3), Splits(validation=2, test=2))
    assert parts_of([], Splits()) == {"train": [], "validation": [], "test": []}


def test_a_number_and_a_share_survive_a_recipe() -> None:
    splits = from_dict(Splits, {"validation": 20, "test": 0.25})
    assert from_dict(Splits, to_dict(splits)) == splits == Splits(20, 0.25)
    assert isinstance(splits.validation, int)
