"""A LLaMA as a judge of documents, through the seam of the step `score`."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

import puna
from flows.test_curating import documents, recipe, run
from generate.tiny import reference, save_folder
from puna.corpus.model_score import ScoreConfig, open_scorer
from puna.errors import InputError
from puna.flows.curate_scorer import judging_identity, open_likelihood
from puna.flows.curating import LIKELIHOOD

TEXTS = ["Once upon a time there was a llama.", "q" * 9, "她在高原上。" * 30]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("judge") / "model")


def test_bits_per_byte_are_those_of_the_model(base: Path) -> None:
    scorer = open_scorer(ScoreConfig(factory=LIKELIHOOD, arguments={"model": str(base)}))
    assert scorer.unit == "bits per byte"
    llama = puna.load(str(base), device="cpu", dtype="float32")
    for text, found in zip(TEXTS, scorer.score(TEXTS), strict=True):
        ids = llama.tokenizer.encode(text)[:512]
        logits = reference_logprobs(base, ids)
        size = sum(len(llama.tokenizer.token_bytes(token)) for token in ids[1:])
        assert found == pytest.approx(-logits / math.log(2) / size, rel=1e-4)
        assert found == scorer.score([text])[0], "whatever stands beside it"


def reference_logprobs(base: Path, ids: list[int]) -> float:
    """By transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    row = torch.tensor([ids])
    with torch.inference_mode():
        return -float(model(row, labels=row).loss) * (len(ids) - 1)


def test_only_the_beginning_is_judged(base: Path) -> None:
    scorer = open_likelihood(str(base), max_tokens=12)
    assert scorer.score(["a b c d e f g h i j k l" * 9]) == scorer.score(
        ["a b c d e f g h i j k l" * 20]
    )
    assert math.isnan(scorer.score([""])[0])
    with pytest.raises(InputError, match="at least 2"):
        open_likelihood(str(base), max_tokens=1)


def test_a_recipe_judges_by_a_model(base: Path, tmp_path: Path) -> None:
    told = recipe(tmp_path, count=4)
    judge = {"step": "score", "factory": LIKELIHOOD, "arguments": {"model": str(base)}}
    told["steps"] = [{"step": "clean"}, {**judge, "name": "surprise"}]
    done = run(tmp_path / "all", told)
    scores = {row["id"]: row["stats"]["score_surprise"] for row in documents(done.path)}
    limit = sorted(scores.values())[1]
    told["steps"][1]["max_score"] = limit
    few = run(tmp_path / "few", told)
    assert {row["id"] for row in documents(few.path)} == {
        k for k, v in scores.items() if v <= limit
    }
    assert few.summary["scores"]["score_surprise"]["threshold"]["high"] == limit
    gone = {row["id"] for row in documents(few.path, "dropped") if row["drop"].startswith("score")}
    assert gone >= {k for k, v in scores.items() if v > limit}


def test_another_model_is_another_corpus(base: Path, tmp_path: Path) -> None:
    one = judging_identity({"model": str(base)})
    other = tmp_path / "other"
    reference(1).save_pretrained(other)
    assert one != judging_identity({"model": str(other)})
    assert one == judging_identity({"model": os.path.relpath(base)})
