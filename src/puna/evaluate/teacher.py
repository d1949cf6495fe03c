"""What a model says of the reference answers: their loss, and whether it would have chosen them.

Each token is predicted from the true ones before it (teacher forcing). Logits exist for a few
hundred answer tokens at a time, and for no others.

Shapes: N cases, B batch, T tokens, M hidden_size, P predicted tokens of a batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from puna.errors import InputError
from puna.evaluate.cases import Case
from puna.evaluate.intervals import Floats
from puna.model import AttentionSpec, LlamaModel

HEAD_TOKENS = 256  # answer tokens whose logits exist at a time


def score_answers(
    model: LlamaModel,
    cases: Sequence[Case],
    *,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Per case, [N, 3]: nats of its predicted tokens, how many the model ranks first, and all.

    Args:
        model: On any device; put into evaluation mode meanwhile.
        cases: The test set.
        batch_tokens: Tokens of a forward pass, padding included.
        progress: Told how many cases are done, and of how many.

    Raises:
        InputError: The loss of a case is not a number.
    """
    found = np.zeros((len(cases), 3))
    done = 0
    with evaluating(model), torch.inference_mode():
        for members in _batches(cases, batch_tokens):
            found[members] = _score_batch(model, [cases[index] for index in members])
            done += len(members)
            if progress is not None:
                progress(done, len(cases))
    strange = np.flatnonzero(~np.isfinite(found).all(1))
    if len(strange):
        raise InputError(
            "the model's loss is not a number",
            where=f"case {cases[strange[0]].id}",
            fix="its weights are damaged, or training went astray: lower the learning rate",
        )
    return found


@contextlib.contextmanager
def evaluating(model: LlamaModel) -> Iterator[None]:
    """Without dropout; afterwards every module is in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _batches(cases: Sequence[Case], batch_tokens: int) -> Iterator[list[int]]:
    """Cases of like length together; those with nothing to predict are in none."""
    lengths = [max(case.predicted(), default=0) for case in cases]
    batch: list[int] = []
    for index in sorted((i for i in range(len(cases)) if lengths[i]), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _score_batch(model: LlamaModel, cases: list[Case]) -> Floats:
    device = next(model.parameters()).device
    places = [case.predicted() for case in cases]
    lengths = torch.tensor([own[-1] for own in places])  # the last token predicts nothing
    ids = torch.zeros(len(cases), int(lengths.max()), dtype=torch.long)  # [B, T]
    for row, (case, length) in enumerate(zip(cases, lengths.tolist(), strict=True)):
        ids[row, :length] = torch.as_tensor(np.asarray(case.ids[:length], dtype=np.int64))
    valid = (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)
    spec = AttentionSpec(valid=None if bool(valid.all()) else valid)
    hidden = model.run(model.embed(ids.to(device)), attention=spec)  # [B, T, M]
    rows = [row for row, own in enumerate(places) for _ in own]
    columns = [place - 1 for own in places for place in own]
    wanted = [
        int(case.ids[place]) for case, own in zip(cases, places, strict=True) for place in own
    ]
    nats, hits = _predictions(model, hidden[rows, columns], torch.tensor(wanted, device=device))
    found = np.zeros((len(cases), 3))
    np.add.at(found, rows, np.stack([nats, hits, np.ones(len(rows))], 1))
    return found


def _predictions(model: LlamaModel, hidden: Tensor, wanted: Tensor) -> tuple[Floats, Floats]:
    """Of [P, M] and [P]: the loss of each token in nats, and 1 where it is the likeliest."""
    nats, hits = [], []
    for start in range(0, len(wanted), HEAD_TOKENS):
        targets = wanted[start : start + HEAD_TOKENS]
        logits = model.head(hidden[start : start + HEAD_TOKENS]).float()
        nats.append(F.cross_entropy(logits, targets, reduction="none").double().cpu().numpy())
        hits.append((logits.argmax(-1) == targets).double().cpu().numpy())
    return np.concatenate(nats), np.concatenate(hits)
