"""Held-out documents: whole, each token a target once, and the bytes that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generate.tiny import VOCAB, reference, twin
from puna.errors import InputError
from puna.model import AttentionSpec
from puna.tokens.batches import Batch
from puna.tokens.held_out import held_out_batches
from puna.tokens.row_batches import RowConfig
from tokens.fake_documents import FakeDocuments, told

BOS, EOS = 1, 2


def framed(lengths: list[int], text_bytes: int = 5) -> FakeDocuments:
    """Documents with so many tokens of text between a bos and an eos, of so many bytes each."""
    random = np.random.default_rng(1)
    texts = [random.integers(3, VOCAB, n).tolist() for n in lengths]
    documents = FakeDocuments([[BOS, *text, EOS] for text in texts])
    documents.text_bytes = np.array(lengths, dtype=np.int64) * text_bytes
    return documents


def content(batch: Batch) -> list[list[list[int]]]:
    assert batch.document_ids is not None
    return [tensor.tolist() for tensor in (batch.ids, batch.targets, batch.document_ids)]


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 30), st.integers(1, 4))
def test_every_token_but_the_first_of_a_document_is_a_target_once(
    lengths: list[int], row_tokens: int, batch_rows: int
) -> None:
    documents = framed(lengths)
    config = RowConfig(row_tokens=row_tokens, step_rows=batch_rows, batch_rows=batch_rows)
    held = held_out_batches(documents, config, max_tokens=None, bos_id=BOS, eos_id=EOS)
    found, text_bytes = held
    assert text_bytes == held.text_bytes == sum(documents.text_bytes)
    assert sum(batch.tokens for batch in found) == documents.tokens
    wanted: list[int] = []
    for number in range(documents.count):
        wanted += documents.read(number, 1, int(documents.lengths[number])).tolist()
    targets = [token for batch in found for token in batch.targets.flatten().tolist()]
    assert [token for token in targets if token != -100] == wanted
    assert sum(batch.trained for batch in found) == len(wanted)
    assert all(batch.tokens == batch_rows * row_tokens for batch in found[:-1])


def test_the_loss_of_held_out_rows_is_that_of_each_document_alone() -> None:
    model, documents = twin(reference()), framed([5, 1, 17, 9, 3, 0])
    config = RowConfig(row_tokens=64, step_rows=2, batch_rows=2, separate_documents=False)
    total, alone = 0.0, 0.0
    with torch.no_grad():
        held = held_out_batches(documents, config, max_tokens=None, bos_id=BOS, eos_id=EOS)
        for batch in held.batches:
            seen = AttentionSpec(document_ids=batch.document_ids, valid=batch.valid)
            hidden = model.run(model.embed(batch.ids), attention=seen)
            total += float(model.head_loss(hidden, batch.targets))
        for number, length in enumerate(documents.lengths.tolist()):
            ids = torch.from_numpy(documents.read(number, 0, length).astype(np.int64))[None]
            logits = model.head(model.run(model.embed(ids[:, :-1])))
            alone += float(
                torch.nn.functional.cross_entropy(logits[0], ids[0, 1:], reduction="sum")
            )
    assert total == pytest.approx(alone, rel=1e-5)


def test_documents_are_taken_whole_up_to_the_bound_and_the_same_ones_each_time() -> None:
    documents = framed([6] * 30)  # of 8 tokens each
    config = RowConfig(row_tokens=16, step_rows=4, batch_rows=4)
    held = held_out_batches(documents, config, max_tokens=100, bos_id=BOS, eos_id=EOS)
    again = held_out_batches(documents, config, max_tokens=100, bos_id=BOS, eos_id=EOS)
    assert list(map(content, held.batches)) == list(map(content, again.batches))
    assert sum(batch.tokens for batch in held.batches) == 96 and held.text_bytes == 12 * 30
    assert [batch.tokens for batch in held.batches] == [64, 32]
    chosen = sorted({document for document, _, _ in documents.reads})
    assert len(chosen) == 12 and chosen != list(range(12))  # from all over the source


def test_a_long_document_is_passed_over_or_cut_where_there_is_no_other() -> None:
    config = RowConfig(row_tokens=16, step_rows=4, batch_rows=4)
    mixed = framed([500, 6, 6])
    held = held_out_batches(mixed, config, max_tokens=50, bos_id=BOS, eos_id=EOS)
    assert sum(batch.tokens for batch in held.batches) == 16 and held.text_bytes == 60
    held = held_out_batches(framed([500]), config, max_tokens=51, bos_id=BOS, eos_id=EOS)
    assert sum(batch.tokens for batch in held.batches) == 51
    assert sum(batch.trained for batch in held.batches) == 50 and held.text_bytes == 250


def test_bytes_of_a_first_token_that_is_not_predicted_do_not_count() -> None:
    config = RowConfig(row_tokens=16, step_rows=4, batch_rows=4)
    plain = FakeDocuments([[7, 8, 9, 10, EOS]])
    plain.text_bytes = np.array([40])
    held = held_out_batches(plain, config, max_tokens=None, eos_id=EOS)
    assert held.text_bytes == 30
    assert sum(batch.trained for batch in held.batches) == 4
    lone = FakeDocuments([[EOS]])
    assert held_out_batches(lone, config, max_tokens=None, eos_id=EOS).text_bytes == 0


def test_nothing_held_out_gives_nothing_and_a_bound_is_positive() -> None:
    config = RowConfig()
    assert held_out_batches(told([]), config, max_tokens=5) == ([], 0)
    with pytest.raises(InputError, match="max_tokens must be at least 1, not 0"):
        held_out_batches(told([3]), config, max_tokens=0)
