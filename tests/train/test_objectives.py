"""What a step is made of: the terms, their counts, and the trunk below."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.reference import tiny_model
from model.tolerances import assert_close
from puna.errors import InputError
from puna.model.llama import IGNORED
from puna.tokens.batches import Batch
from puna.train.objectives import Embedded, FrozenTrunk, Term, objective
from train.stub import batch, example


def terms_of(name: str, given: Batch, start: int | None = None) -> list[Term]:
    model = tiny_model()
    trunk = Embedded(model) if start is None else FrozenTrunk(model, start)
    found: list[Term] = []
    objective(name).step(model, given, trunk, found.append)
    return found


@pytest.mark.parametrize("name", ["next_token", "instruction"])
def test_the_sum_is_that_of_each_example_alone(name: str) -> None:
    model = tiny_model()
    expected = torch.zeros(())
    for index in (0, 1, 2, 5):
        ids, targets = example(index)
        expected += F.cross_entropy(
            model(ids[None])[0], targets, ignore_index=IGNORED, reduction="sum"
        )
    for start in (None, 1, 2):
        (term,) = terms_of(name, batch([0, 1, 2, 5]), start)
        assert (term.name, term.unit, term.weight) == (name, "trained tokens", 1.0)
        assert_close(term.sum, expected, "loss")


def test_packed_rows_give_the_same() -> None:
    pairs = [example(index) for index in (3, 4, 6)]
    ids, targets = (torch.cat(column)[None] for column in zip(*pairs, strict=True))
    documents = torch.cat([torch.full((len(p[0]),), n) for n, p in enumerate(pairs)])[None]
    members, trained = ((3, 4, 6),), int((targets != IGNORED).sum())
    packed = Batch(ids, targets, None, documents, members, ids.numel(), trained)
    for start in (None, 1):
        (term,) = terms_of("next_token", packed, start)
        (wanted,) = terms_of("next_token", batch([3, 4, 6]), start)
        assert_close(term.sum, wanted.sum, "loss")


def test_counts_are_known_before() -> None:
    given = batch([1, 2])
    assert objective("instruction").counts(given) == {"instruction": given.trained}


def test_no_gradient_reaches_a_frozen_trunk() -> None:
    model = tiny_model()
    hidden = FrozenTrunk(model, 1).hidden(batch([0]))
    assert not hidden.requires_grad
    assert Embedded(model).hidden(batch([0])).requires_grad


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(InputError, match="no objective 'denoise'") as caught:
        objective("denoise")
    assert caught.value.fix == "known objectives: next_token, instruction"
