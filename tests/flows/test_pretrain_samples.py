"""Samples are kept whole, forgotten where a run goes back, and cost the training nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flows.tuned import opened
from puna.errors import InputError
from puna.flows.pretrain_recipe import SamplesConfig
from puna.flows.pretrain_samples import Samples, check_prompts
from puna.train import StepMetrics


def step(number: int) -> StepMetrics:
    return StepMetrics(number, 0.0, 1.0, {}, 1e-3, 1.0, 8, 8, 100.0, 1.0, 1, False)


@pytest.fixture
def make(tmp_path: Path, tiny_base: Path):
    """Makes reporters over one folder."""
    found = opened(tiny_base)

    def made(**changes: object) -> Samples:
        config = SamplesConfig(**{"prompts": ("Once",), "every_steps": 2, **changes})
        return Samples(found.model, found.tokenizer, config, tmp_path)

    return made


def steps_of(samples: Samples) -> list[int]:
    return [row["step"] for row in samples.rows()]


def test_samples_are_taken_when_they_are_due_and_at_the_end(make) -> None:
    samples = make(max_new_tokens=3)
    samples.begin(0, 5)
    for number in range(1, 6):
        samples.step(step(number))
    assert steps_of(samples) == [2, 4, 5]
    assert samples.last_step() == 5
    assert all(0 < row["tokens"] <= 3 for row in samples.rows())


def test_what_came_after_the_checkpoint_is_forgotten(make) -> None:
    samples = make(max_new_tokens=2)
    samples.begin(0, 8)
    for number in (2, 4, 6):
        samples.step(step(number))
    again = make(max_new_tokens=2)
    again.begin(3, 8)
    assert steps_of(again) == [2]
    again.step(step(4))
    again.take(4)
    assert steps_of(again) == [2, 4], "once for each step"


def test_a_run_that_goes_back_leaves_no_later_samples(make) -> None:
    samples = make(max_new_tokens=2)
    samples.begin(0, 8)
    for number in (2, 4, 6, 4):
        samples.step(step(number))
    assert steps_of(samples) == [2, 4]


def test_without_prompts_nothing_is_written(make, tmp_path: Path) -> None:
    samples = make(prompts=())
    samples.begin(0, 2)
    samples.step(step(2))
    assert samples.last_step() is None
    assert list(tmp_path.iterdir()) == []


def test_the_random_numbers_of_the_training_are_not_touched(make) -> None:
    samples = make(temperature=1.0, max_new_tokens=3)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    samples.take(1)
    assert torch.equal(torch.rand(3), expected)
    first = samples.rows()
    samples.take(1)
    assert samples.rows() == first, "the same model writes the same"


@pytest.mark.parametrize("text", ["{", "[]\n", '{"step": "2"}\n', "\udcff"])
def test_a_damaged_file_is_named(make, tmp_path: Path, text: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"samples\.jsonl: is damaged") as told:
        make().rows()
    assert told.value.fix == "remove it; the samples begin anew"


def test_texts_are_kept_as_they_are(make, tmp_path: Path) -> None:
    samples = make(prompts=("é\n\u2028llama",), max_new_tokens=2)
    samples.take(3)
    assert samples.rows()[0]["prompt"] == "é\n\u2028llama"
    assert json.loads((tmp_path / "samples.jsonl").read_bytes())["step"] == 3


def test_an_empty_prompt_begins_as_a_document_does(tiny_base: Path) -> None:
    tokenizer = opened(tiny_base).tokenizer
    found = check_prompts(tokenizer, SamplesConfig(prompts=("",)), 64)
    first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    assert found == [[first]]
