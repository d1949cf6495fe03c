"""From files to items, examples and cases: nothing leaks, nothing is dropped without a word."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.tuning_setup import pairs, run, write_rows
from puna.config import from_dict
from puna.errors import InputError
from puna.flows.tune_data import RawData, encode, make_cases, read_items
from puna.flows.tune_recipe import DataConfig
from puna.records import Wording, normalised
from puna.store import open_checkpoint
from puna.tokens import Tokenizer, open_tokenizer
from puna.tokens.examples import ExampleConfig
from puna.tokens.rendering import Renderer

Recipe = Callable[..., dict[str, Any]]


def read(**config: Any) -> RawData:
    return read_items(from_dict(DataConfig, config, "data"), Wording())


def sources(raw: RawData) -> dict[str, list[str]]:
    return {name: [item.source for item in items] for name, items in raw.items.items()}


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Tokenizer:
    checkpoint = open_checkpoint(tiny_base)
    return open_tokenizer(
        checkpoint.tokenizer,
        where=tiny_base,
        vocab_size=open_checkpoint(tiny_base).config["vocab_size"],
    )


# --- splits -----------------------------------------------------------------------------------


def test_shares_and_numbers(pairs_file: Path) -> None:
    for splits, sizes in (
        ({"validation": 6, "test": 5}, (29, 6, 5)),
        ({"validation": 0, "test": 0}, (40, 0, 0)),
        ({"validation": 0, "test": 40 - 1}, (1, 0, 39)),
    ):
        raw = read(train=str(pairs_file), splits=splits)
        assert tuple(map(len, raw.items.values())) == sizes
        assert raw.quarantine.total == 0, "what is held out is not left out"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.booleans()), min_size=60),
    st.sampled_from(("none", "validation", "test", "both")),
    st.integers(0, 5),
)
def test_splits_leak_nothing(
    tmp_path: Path, rows: list[tuple[int, int, bool]], own: str, seed: int
) -> None:
    told = [
        {"source": f"  Llama {n} " if loud else f"llama {n}", "target": f"answer {answer}"}
        for n, answer, loud in rows
    ]
    config: dict[str, Any] = {"train": str(write_rows(tmp_path / "train.jsonl", told))}
    config["splits"] = {"seed": seed}
    for name in ("validation", "test"):
        if own in (name, "both"):
            held = told[:5] + pairs(3, begin=100 if name == "test" else 0)
            config[name] = str(write_rows(tmp_path / f"{name}.jsonl", held))
    try:
        raw = read(**config)
    except InputError as error:
        assert "are too few" in error.what or "no example is left" in error.what
        return
    found = {name: {normalised(s) for s in listed} for name, listed in sources(raw).items()}
    assert not found["train"] & found["validation"]
    assert not found["train"] & found["test"]
    assert not found["validation"] & found["test"]
    kept = sum(map(len, raw.items.values()))
    given_rows = len(told) + 8 * {"none": 0, "both": 2}.get(own, 1)
    assert kept + raw.quarantine.total == given_rows, "each row is kept or counted once"


def test_files_of_their_own(tmp_path: Path, pairs_file: Path) -> None:
    validation = write_rows(tmp_path / "v.jsonl", [*pairs(3), *pairs(4, begin=90)])
    raw = read(train=str(pairs_file), validation=str(validation), splits={"test": 4})
    assert tuple(map(len, raw.items.values())) == (
        40 - 4 - 3 + len(shared(raw)),
        7 - len(shared(raw)),
        4,
    )
    assert sum(raw.quarantine.counts.values()) == 3


def shared(raw: RawData) -> list[str]:
    """Reasons of the validation rows that the test split has."""
    return [why for _, why in raw.quarantine.samples if why == "is in the test split too"]


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_split_without_a_good_row_is_refused(tmp_path: Path, pairs_file: Path, name: str) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"source": "a", "target": ""}\n{"source": "b", "target": 3}\n{"source\n')
    with pytest.raises(InputError) as told:
        read(train=str(pairs_file), **{name: str(bad)})
    text = str(told.value)
    assert f"{bad}:1: no row fits the shape 'parallel'; this one " in text
    bad.write_text('{"source\\n')
    with pytest.raises(InputError) as told:
        read(train=str(pairs_file), **{name: str(bad)})
    text = str(told.value)
    assert f"{bad}: no example is left for the {name} split" in text
    assert f"(the first: {bad}:1)" in text


def test_a_split_that_another_one_has_is_refused(tmp_path: Path, pairs_file: Path) -> None:
    held = str(write_rows(tmp_path / "held.jsonl", pairs(4, begin=90)))
    with pytest.raises(InputError, match="no example is left for the validation split") as told:
        read(train=str(pairs_file), validation=held, test=held)
    assert "4 x is in the test split too (the first: " in str(told.value.fix)


def test_at_most_so_many(pairs_file: Path, tmp_path: Path) -> None:
    raw = read(train=str(pairs_file), max_examples=7, max_test=2)
    assert tuple(map(len, raw.items.values())) == (7, 2, 2)
    rows = [json.loads(line) for line in pairs_file.read_text().splitlines()]
    turned = write_rows(tmp_path / "turned.jsonl", rows[::-1])
    again = read(train=str(turned), max_examples=7, max_test=2)
    assert {k: sorted(v) for k, v in sources(again).items()} == {
        k: sorted(v) for k, v in sources(raw).items()
    }
    assert again.identity != raw.identity, "the order is part of a run"


# --- files ------------------------------------------------------------------------------------


def test_parallel_files(tmp_path: Path) -> None:
    (tmp_path / "en").write_text("".join(f"sea {n}\n" for n in range(20)))
    with gzip.open(tmp_path / "de.gz", "wt") as file:
        file.write("".join(f"Meer {n}\n" for n in range(20)))
    raw = read(train=str(tmp_path / "en"), train_targets=str(tmp_path / "de.gz"))
    assert raw.shape == "parallel"
    told = {i.source: i.messages[-1]["content"] for items in raw.items.values() for i in items}
    assert told == {f"sea {n}": f"Meer {n}" for n in range(20)}
    (tmp_path / "de").write_text("Meer\n")
    with pytest.raises(InputError, match=r"en: has 20 lines, but .*/de has 1: they are not line"):
        read(train=str(tmp_path / "en"), train_targets=str(tmp_path / "de"))
    with pytest.raises(InputError, match="train is 2 files and train_targets 1: they go in pairs"):
        read(train=str(tmp_path / "*e*[n.g]*"), train_targets=str(tmp_path / "de"))
    with pytest.raises(InputError, match="validation_targets goes with one file of sources"):
        read(train=str(tmp_path / "en"), validation_targets=str(tmp_path / "de"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}\n', r"bad.jsonl:1: these columns are of no known shape: 'a'"),
        ("", r"bad.jsonl: no example is left for the train split"),
        ('{"source": \n[1]\n', r"the first: .*bad.jsonl:1\)"),
        ('{"source": "a", "target": null}\n', r"bad.jsonl:1: no row fits .* no column 'target'"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(InputError, match=expected):
        read(train=str(tmp_path / "bad.jsonl"))


def test_a_missing_file_and_a_missing_column(tmp_path: Path, pairs_file: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.jsonl.*"):
        read(train=str(tmp_path / "nothing.jsonl"))
    with pytest.raises(InputError, match=r"columns.source names 'sauce', which is not there"):
        read(train=str(pairs_file), columns={"source": "sauce"})
    with pytest.raises(InputError, match="max_examples must be at least 1, not 0"):
        read(train=str(pairs_file), max_examples=0)


def test_some_bad_rows_are_told_with_their_place(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "p.jsonl", pairs())
    with path.open("a") as file:
        file.write('{"source": "x", "target": ""}\n{"source": "y", "target": " "}\nnot json\n')
        file.write(json.dumps(pairs(1)[0]) + "\n")
    lines = read(train=str(path)).lines()
    assert lines[1].startswith("shape     parallel: columns 'source', 'target'")
    left_out = [line for line in lines if line.startswith("left out  ")]
    assert len(left_out) == 3
    for number in (41, 43, 44):
        assert any(f"p.jsonl:{number}" in line for line in left_out)


# --- tokens -----------------------------------------------------------------------------------

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is the sea?"},
    {"role": "assistant", "content": "There."},
    {"role": "user", "content": "Where is the land?"},
    {"role": "assistant", "content": "Here."},
]


def cases_of(
    tmp_path: Path, tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]], **config: Any
) -> list[Any]:
    raw = read(
        train=str(write_rows(tmp_path / "c.jsonl", rows)), splits={"validation": 0, "test": 0}
    )
    return make_cases(raw.items["train"], Renderer(tokenizer), ExampleConfig(**config))


def test_of_a_conversation_the_last_answer_is_judged(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (case,) = cases_of(tmp_path, tokenizer, [{"messages": TURNS}])
    assert (case.question, case.reference) == ("Where is the land?", "Here.")
    assert case.prompt_ids == Renderer(tokenizer).prompt(TURNS[:-1])
    assert case.ids[: len(case.prompt_ids)] == case.prompt_ids
    told = [id_ for id_, on in zip(case.ids, case.trained, strict=True) if on]
    assert tokenizer.decode(told, skip_special=False) == "Here.<|im_end|>"


def test_a_question_that_is_cut_is_asked_as_it_was_cut(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [{"prompt": "grass " * 60 + "and the sea", "completion": "there it is"}]
    (case,) = cases_of(tmp_path, tokenizer, rows, max_tokens=60, too_long="cut_prompt")
    assert len(case.ids) <= 60
    assert case.ids[: len(case.prompt_ids)] == case.prompt_ids
    told = [id_ for id_, on in zip(case.ids, case.trained, strict=True) if on]
    assert told == case.ids[len(case.prompt_ids) :]
    assert tokenizer.decode(told, skip_special=False) == "there it is<|im_end|>"
    asked = tokenizer.decode(case.prompt_ids, skip_special=False)
    assert asked.endswith("and the sea<|im_end|>\n<|im_start|>assistant\n")


def test_what_is_too_long_is_not_judged_and_that_is_told(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [
        {"prompt": "grass " * 60, "completion": "there"},
        *({"prompt": f"sea {n}", "completion": "here"} for n in range(20)),
    ]
    assert len(cases_of(tmp_path, tokenizer, rows, max_tokens=60)) == 20
    raw = read(
        train=str(write_rows(tmp_path / "t.jsonl", rows[1:])),
        test=str(write_rows(tmp_path / "u.jsonl", [rows[0], *rows[1:3]])),
    )
    data = encode(raw, Renderer(tokenizer), ExampleConfig(max_tokens=60), everything=False)
    assert len(data.cases["test"]) == 2
    assert data.masks["test"].dropped == {"longer than max_tokens": 1}
    assert set(data.examples) == {"train", "validation"}
    raw = read(
        train=str(write_rows(tmp_path / "t.jsonl", rows[1:])),
        test=str(write_rows(tmp_path / "u.jsonl", [rows[0]])),
    )
    with pytest.raises(InputError, match="the test examples: no token is trained: 0 examples"):
        encode(raw, Renderer(tokenizer), ExampleConfig(max_tokens=60), everything=False)


def test_texts_are_judged_window_by_window(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"text": "Once upon a time there was a llama in the high grassland."}]
    cases = cases_of(tmp_path, tokenizer, rows, max_tokens=8)
    assert len({case.id for case in cases}) == len(cases) == 2
    assert all(list(case.prompt_ids) == [] for case in cases)
    assert "".join(case.reference for case in cases) == rows[0]["text"].removeprefix("Once")


def test_training_is_refused_where_it_makes_no_sense(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(InputError, match=r"the train examples: no token is trained: 0") as told:
        run(tmp_path / "run", recipe(examples={"max_tokens": 8}))
    assert str(told.value.fix).startswith("raise max_tokens from 8 (the longest example has ")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="no chat template 'nosuch'"):
        run(tmp_path / "run", recipe(template="nosuch"))
    with pytest.raises(InputError, match="sauce"):
        run(tmp_path / "run", recipe(wording={"prompt": "Say: {sauce}"}))
