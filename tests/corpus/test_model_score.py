"""The seam by which models score documents: factories, thresholds, failures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import pytest

from puna.config import from_dict
from puna.corpus.model_score import ScoreConfig, Scorer, open_scorer
from puna.corpus.schema import Found, make_batch, stat, with_drops
from puna.corpus.step import identity
from puna.errors import InputError


@dataclass
class Lengths:
    """Scores a text by its length, and notes what it was given."""

    factor: float = 1.0
    calls: list[list[str]] = field(default_factory=list)
    unit: str = "characters"

    def score(self, texts: Sequence[str]) -> list[float]:
        self.calls.append(list(texts))
        if "bad" in texts:
            raise RuntimeError("out of memory")
        return [float("nan") if text == "nan" else self.factor * len(text) for text in texts]


class Short(Lengths):
    def score(self, texts: Sequence[str]) -> list[float]:
        return [0.0]


def open_lengths(factor: float = 1.0) -> Lengths:
    return Lengths(factor)


def open_any() -> Scorer:
    return Lengths()


def open_short() -> Short:
    return Short()


def open_broken() -> Lengths:
    raise InputError("the model is not there", where="model.gguf")


def import_module(name: str) -> ModuleType:
    return sys.modules[name]


@pytest.fixture(autouse=True)
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("puna.stubs", "elsewhere.stubs"):
        module = ModuleType(name)
        for thing in (open_lengths, open_any, open_short, open_broken, import_module):
            setattr(module, thing.__name__, thing)
        monkeypatch.setitem(sys.modules, name, module)


def test_scores_become_a_figure_and_drop_by_thresholds() -> None:
    config = ScoreConfig(
        factory="puna.stubs:open_lengths",
        name="length",
        arguments={"factor": 2.0},
        min_score=4,
        max_score=8,
    )
    texts = ["a", "ab", "abcd", "abcde", "gone"]
    batch = make_batch("s", [Found(str(n), text) for n, text in enumerate(texts)])
    done = config.open()(with_drops(batch, {4: "x.y"}))
    assert stat(done, "score_length")[:4].tolist() == [2, 4, 8, 10]
    assert np.isnan(stat(done, "score_length")[4])
    reasons = ["score.length_low", None, None, "score.length_high", "x.y"]
    assert done.column("drop").to_pylist() == reasons


def test_without_thresholds_nothing_is_dropped() -> None:
    done = ScoreConfig(factory="puna.stubs:open_any").open()(make_batch("s", [Found("1", "a")]))
    assert done.column("drop").null_count == 1
    assert stat(done, "score_model").tolist() == [1]


def test_texts_come_in_batches_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Lengths()

    def open_it() -> Lengths:
        return scorer

    monkeypatch.setattr(sys.modules["puna.stubs"], "open_any", open_it)
    config = ScoreConfig(factory="puna.stubs:open_any", batch_documents=2)
    texts = ["four", "a", "xyz", "bc", "b"]
    done = config.open()(make_batch("s", [Found(str(n), text) for n, text in enumerate(texts)]))
    assert scorer.calls == [["a", "b"], ["bc", "xyz"], ["four"]]
    assert stat(done, "score_model").tolist() == [4, 1, 3, 2, 1]


def test_a_text_that_the_model_fails_on_is_put_aside_alone() -> None:
    texts = ["ok", "bad", "nan", "fine"]
    batch = make_batch("s", [Found(str(n), text) for n, text in enumerate(texts)])
    done = ScoreConfig(factory="puna.stubs:open_lengths", min_score=1).open()(batch)
    assert done.column("error").to_pylist() == [
        None,
        "score: RuntimeError: out of memory",
        "score: model is nan",
        None,
    ]
    assert done.column("drop").null_count == 4
    assert stat(done, "score_model")[[0, 3]].tolist() == [2, 4]


def test_too_few_scores_are_a_defect_of_the_scorer() -> None:
    apply = ScoreConfig(factory="puna.stubs:open_short").open()
    with pytest.raises(InputError, match=r"puna\.stubs:open_short: gave 1 scores for 2 texts"):
        apply(make_batch("s", [Found("1", "a"), Found("2", "b")]))


def test_an_empty_batch() -> None:
    done = ScoreConfig(factory="puna.stubs:open_lengths").open()(make_batch("s", []))
    assert done.num_rows == 0
    assert "score_model" in [field.name for field in done.schema.field("stats").type]


def test_a_recipe_alone_cannot_name_other_code() -> None:
    config = ScoreConfig(factory="elsewhere.stubs:open_lengths")
    with pytest.raises(InputError, match="is not puna's"):
        config.open()
    with pytest.raises(InputError, match="is not puna's"):
        open_scorer(config, ["elsewhere.stubs:open_any"])
    assert config.open_with(["elsewhere.stubs:open_lengths"])


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("puna.stubs:open_nothing", "there is no such factory"),
        ("puna.nowhere:open_it", "there is no such factory"),
        ("puna.stubs:import_module", "does not say that it returns a scorer"),
        ("puna.errors:require", "does not say that it returns a scorer"),
        ("puna.stubs:open_broken", "the model is not there"),
        ("punacle.stubs:open_it", "is not puna's"),
    ],
)
def test_what_is_no_factory(factory: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScoreConfig(factory=factory).open()


def test_arguments_that_do_not_fit() -> None:
    config = ScoreConfig(factory="puna.stubs:open_lengths", arguments={"faktor": 2})
    with pytest.raises(InputError, match=r"its arguments do not fit: .*faktor"):
        config.open()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "names no factory"),
        ({"factory": "os.system"}, "names no factory"),
        ({"factory": "puna.x:_hidden"}, "names no factory"),
        ({"factory": "puna.x:f", "name": "A b"}, "cannot be the name of a score"),
        ({"factory": "puna.x:f", "batch_documents": 0}, "must be 1 or more"),
        ({"factory": "puna.x:f", "min_score": 2, "max_score": 1}, "is above max_score"),
    ],
)
def test_wrong_values_are_refused(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScoreConfig(**values)


def test_the_model_is_part_of_the_identity() -> None:
    one, other = (
        ScoreConfig(factory="puna.x:f", arguments={"path": "m"}, model=name) for name in "ab"
    )
    assert identity(one) != identity(other)
    assert from_dict(ScoreConfig, {"factory": "puna.x:f", "step": "score"}).step == "score"
