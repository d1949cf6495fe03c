"""Batches, loaders and jobs that are small enough to look through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.reference import TINY, tiny_model
from puna.model import LlamaModel
from puna.model.llama import IGNORED
from puna.scale.world import World
from puna.tokens import loader as tokens
from puna.tokens.batches import Batch, BatchConfig
from puna.tokens.examples import TokenExample
from puna.train import FitResult, Job, Silent, TrainConfig, fit
from puna.train.objectives import Embedded, NextToken

SINGLE = World.single()
CONFIG = TrainConfig(epochs=2)


def example(index: int, tokens: int | None = None) -> tuple[Tensor, Tensor]:
    """(ids, targets) of one example; lengths and trained parts are uneven."""
    own = torch.Generator().manual_seed(1000 + index)
    length = 4 + index * 5 % 7 if tokens is None else tokens
    ids = torch.randint(TINY.vocab_size, (length,), generator=own)
    targets = torch.cat([ids[1:], torch.tensor([IGNORED])])
    targets[: index * 3 % (length - 1)] = IGNORED
    return ids, targets


def batch(members: list[int]) -> Batch:
    """One example per row, padded on the right."""
    pairs = [example(index) for index in members]
    ids, targets = (
        nn.utils.rnn.pad_sequence(list(column), batch_first=True, padding_value=value)
        for column, value in zip(zip(*pairs, strict=True), (0, IGNORED), strict=True)
    )
    lengths = torch.tensor([len(pair[0]) for pair in pairs])
    return Batch(
        ids=ids,
        targets=targets,
        valid=torch.arange(ids.shape[1]) < lengths[:, None],
        document_ids=None,
        members=tuple((index,) for index in members),
        tokens=int(lengths.sum()),
        trained=int((targets != IGNORED).sum()),
    )


class Loader:
    """Examples 0 to `examples - 1` in batches of `size`, in another order in each epoch."""

    def __init__(
        self, examples: int = 8, size: int = 2, rank: int = 0, ranks: int = 1, shuffle: bool = True
    ):
        self.examples, self.size, self.rank, self.ranks = examples, size, rank, ranks
        self.shuffle = shuffle
        self.epoch = self.batch = 0

    def plan(self, epoch: int) -> list[list[int]]:
        order = torch.arange(self.examples)
        if self.shuffle:
            own = torch.Generator().manual_seed(epoch)
            order = torch.randperm(self.examples, generator=own)
        parts = [part.tolist() for part in order.split(self.size) if len(part)]
        return parts[self.rank :: self.ranks]

    def batches_in_epoch(self, epoch: int) -> int:
        return len(self.plan(epoch))

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        while True:
            plan = self.plan(self.epoch)
            while self.batch < len(plan):
                self.batch += 1
                yield self.epoch, batch(plan[self.batch - 1])
            self.epoch, self.batch = self.epoch + 1, 0


def real_loader(epochs: int | None) -> tokens.Loader:
    """The same ids in batches of the loader that flows use, packed."""
    examples = [
        TokenExample(
            id=str(index),
            locator=str(index),
            ids=example(index)[0].numpy().astype(np.int32),
            trained=np.arange(len(example(index)[0])) > index % 3,
            prompt_tokens=0,
            ends=0,
            root=str(index),
        )
        for index in range(12)
    ]
    config = BatchConfig(batch_tokens=20, row_tokens=20, packing=True)
    return tokens.Loader(examples, config, seed=0, pad_id=0, epochs=epochs)


class Dropped(nn.Module):
    """Dropout on what a module gives, if it is switched on."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base, self.on = base, False

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.base(x), 0.2, self.on)


def learner(dropout: bool = False) -> tuple[LlamaModel, dict[str, nn.Parameter]]:
    """A tiny model whose last block and norm learn, and what learns."""
    model = tiny_model(seed=3).requires_grad_(False)
    learning = {
        name: parameter.requires_grad_()
        for name, parameter in model.named_parameters()
        if "layers.1." in name or name == "model.norm.weight"
    }
    if dropout:
        model.model.layers[1].mlp.down_proj = Dropped(model.model.layers[1].mlp.down_proj)
    return model, learning


def job(loader: Any = None, *, dropout: bool = False, trunk: Any = Embedded, **changes: Any) -> Job:
    model, learning = learner(dropout)

    def set_train(on: bool) -> None:
        for module in model.modules():
            if isinstance(module, Dropped):
                module.on = on

    made = Job(
        model=model,
        parameters=learning,
        objective=NextToken(),
        loader=Loader() if loader is None else loader,
        trunk=trunk(model),
        identity="a recipe",
        set_train=set_train,
    )
    return replace(made, **changes)


class Heard(Silent):
    """Remembers what a run tells; `at[step]` is called after that step."""

    def __init__(self, at: Mapping[int, Callable[[], None]] | None = None):
        self.at = {} if at is None else at
        self.steps: list[Any] = []
        self.evaluations: list[Any] = []
        self.notes: list[str] = []
        self.began: list[tuple[int, int]] = []
        self.ended = 0

    def begin(self, step: int, total: int) -> None:
        self.began.append((step, total))

    def step(self, metrics: Any) -> None:
        self.steps.append(metrics)
        self.at.get(metrics.step, lambda: None)()

    def evaluated(self, step: int, metrics: Mapping[str, float], best: bool) -> None:
        self.evaluations.append((step, dict(metrics), best))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def end(self) -> None:
        self.ended += 1


def train(
    made: Job, folder: Path, config: TrainConfig = CONFIG, report: Silent | None = None
) -> FitResult:
    return fit(made, config, folder, world=SINGLE, report=report or Silent())


def values(made: Job) -> dict[str, Tensor]:
    """A copy of what learns."""
    return {name: p.detach().clone() for name, p in made.parameters.items()}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same bits."""
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        assert torch.equal(tensor, expected[name]), name
