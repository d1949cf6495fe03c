"""The validation loss: over everything at once, however it is cut into batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from model.reference import tiny_model
from puna.errors import InputError
from puna.model import LlamaModel
from puna.model.llama import IGNORED
from puna.tokens.batches import Batch
from puna.train.evaluation import evaluate_loss
from puna.train.objectives import Backward, Embedded, NextToken, Term, Trunk
from train.stub import batch, real_loader


@dataclass(frozen=True)
class Two(NextToken):
    """Cross-entropy, and another term with another count."""

    def counts(self, batch: Batch) -> dict[str, int]:
        return {self.name: batch.trained, "rows": len(batch.ids)}

    def step(self, model: LlamaModel, batch: Batch, trunk: Trunk, backward: Backward) -> None:
        super().step(model, batch, trunk, backward)
        backward(Term("rows", torch.tensor(3.0 * len(batch.ids)), "rows", 0.5))


def test_the_cut_does_not_matter() -> None:
    model = tiny_model()
    trunk = Embedded(model)
    whole = evaluate_loss(model, NextToken(), [batch([0, 1, 2, 3, 4])], trunk)
    parts = evaluate_loss(model, NextToken(), [batch([0]), batch([1, 2, 3]), batch([4])], trunk)
    assert (
        whole["validation_tokens"] == parts["validation_tokens"] == batch([0, 1, 2, 3, 4]).trained
    )
    assert parts["validation_loss"] == pytest.approx(whole["validation_loss"], rel=1e-6)
    assert set(whole) == {"validation_loss", "validation_tokens"}


def test_each_term_has_its_own_mean() -> None:
    model = tiny_model()
    parts = [batch([0]), batch([1, 2, 3])]
    plain = evaluate_loss(model, NextToken(), parts, Embedded(model))["validation_loss"]
    found = evaluate_loss(model, Two(), parts, Embedded(model))
    assert found["validation_rows"] == 3.0
    assert found["validation_next_token"] == plain
    assert found["validation_loss"] == plain + 1.5


def test_a_loader_begins_at_its_start_each_time() -> None:
    model, given = tiny_model(), real_loader(1)
    first = evaluate_loss(model, NextToken(), given, Embedded(model))
    assert evaluate_loss(model, NextToken(), given, Embedded(model)) == first
    with pytest.raises(InputError, match="a loader for validation has one epoch, not None"):
        evaluate_loss(model, NextToken(), real_loader(None), Embedded(model))


def test_nothing_to_predict_is_an_error() -> None:
    model = tiny_model()
    given = batch([0])
    empty = replace(given, targets=torch.full_like(given.targets, IGNORED), trained=0)
    for batches in ([], [empty]):
        with pytest.raises(InputError, match="have nothing to predict"):
            evaluate_loss(model, NextToken(), batches, Embedded(model))
