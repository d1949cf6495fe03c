"""What a step is made of: the terms, their counts, and the trunk below."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model.reference import tiny_model
from model.tolerances import assert_close
from puna.errors import InputError
from puna.model.llama import IGNORED
from puna.tokens.batches import Batch
from puna.train import TrainConfig, evaluate_loss
from puna.train.objectives import Embedded, FrozenTrunk, NextToken, Term, objective
from train.stub import Heard, Loader, batch, example, job, train, values


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


# --- z-loss -------------------------------------------------------------------------------------

Z = 0.03


def test_a_z_loss_guides_but_is_not_told_as_the_loss() -> None:
    model, given = tiny_model(), batch([0, 1, 2, 5])
    found: list[Term] = []
    NextToken(z_loss=Z).step(model, given, Embedded(model), found.append)
    (term,), (plain,) = found, terms_of("next_token", given)
    logits = model(given.ids)[given.targets != IGNORED]
    wanted = Z * logits.exp().sum(1).log().square().sum()
    assert term.parts.keys() == {"z_loss"}
    assert_close(term.parts["z_loss"], wanted, "loss")
    assert_close(term.sum, plain.sum + wanted, "loss")
    assert_close(term.own, plain.sum, "loss")
    assert not term.own.requires_grad
    assert torch.equal(plain.own, plain.sum.detach())


def test_a_run_tells_the_z_loss_apart(tmp_path: Path) -> None:
    """Two micro-batches; the loss of the first step is that of the run without it."""
    config = TrainConfig(epochs=1, micro_batches=2)
    told, ends = {}, {}
    for z_loss in (0.0, Z):
        folder = tmp_path / str(z_loss)
        folder.mkdir()
        made, heard = job(Loader(8, 2), objective=NextToken(z_loss=z_loss)), Heard()
        train(made, folder, config, heard)
        told[z_loss], ends[z_loss] = heard.steps, values(made)
    first, plain = told[Z][0], told[0.0][0]
    assert first.loss == pytest.approx(plain.loss, rel=1e-6)
    assert first.terms["next_token"] == pytest.approx(first.loss, rel=1e-6)
    assert first.terms["z_loss"] == pytest.approx(Z * 4.1**2, rel=0.2)  # the logarithm of 61 is 4.1
    assert plain.terms.keys() == {"next_token"}
    assert first.grad_norm != pytest.approx(plain.grad_norm, rel=1e-3)
    assert any(not torch.equal(ends[Z][name], value) for name, value in ends[0.0].items())


def test_an_evaluation_is_without_it() -> None:
    model, given = tiny_model(), [batch([0, 1]), batch([5])]
    found = evaluate_loss(model, NextToken(z_loss=Z), given, Embedded(model))
    assert found == pytest.approx(evaluate_loss(model, NextToken(), given, Embedded(model)))


@pytest.mark.parametrize("z_loss", [-1.0, float("nan")])
def test_a_negative_z_loss_is_refused(z_loss: float) -> None:
    with pytest.raises(InputError, match="z_loss must not be negative, found"):
        NextToken(z_loss=z_loss)
