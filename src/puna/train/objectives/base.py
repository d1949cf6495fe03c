"""What a training step is made of: terms with their own counts, and the trunk that they stand on.

Shapes: B batch, T tokens, M hidden_size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from puna.model import AttentionSpec, LlamaModel
from puna.tokens.batches import Batch


@dataclass(frozen=True)
class Term:
    """One part of a step's loss: a sum, which the loop divides by its count over the whole step."""

    name: str
    """The key of its count in `Objective.counts`."""
    sum: Tensor
    """A scalar: the sum over what is counted, of this batch alone."""
    unit: str
    """What is counted: `trained tokens`, `sentences` ..."""
    weight: float = 1.0
    """Of the mean in the step's loss."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """What of `sum` only guides the learning, such as a z-loss: scalars outside autograd, by name.
    Gradients are those of `sum`; what is told as the loss is without them, and they are told
    apart."""

    @property
    def own(self) -> Tensor:
        """`sum` without its parts: what is told; a scalar in float32, outside autograd."""
        own = self.sum.detach().float()
        for part in self.parts.values():
            own = own - part
        return own


Backward = Callable[[Term], None]
"""What an objective hands its terms to; the gradient of one is there when the call returns."""


class Trunk(Protocol):
    """The unchanged lower blocks: computed live, read from a cache, or absent."""

    @property
    def start(self) -> int:
        """The first block that is left to run."""

    def hidden(self, batch: Batch) -> Tensor:
        """The hidden states [B, T, M] that enter block `start`."""


class Objective(Protocol):
    """What a step is: pretraining, tuning and distilling runs differ in this alone."""

    @property
    def name(self) -> str:
        """As recipes call it."""

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """The count of each term by its name, known before any forward pass."""

    def step(self, model: LlamaModel, batch: Batch, trunk: Trunk, backward: Backward) -> None:
        """Run the model on a batch and hand each term to `backward`, once or several times.

        A term that is handed over several times in a batch adds up, as its gradient does.
        """


def attention_of(batch: Batch) -> AttentionSpec:
    """Causal attention within the documents of a batch.

    Padding lies on the right, where causal attention never looks: it needs no mask of its own,
    and rows of any length go through the kernel together.
    """
    return AttentionSpec(document_ids=batch.document_ids)


@dataclass(frozen=True)
class Embedded:
    """No trunk at all: the embedding, through which gradients flow where it learns."""

    model: LlamaModel

    @property
    def start(self) -> int:
        """Block 0."""
        return 0

    def hidden(self, batch: Batch) -> Tensor:
        """The embedded ids [B, T, M]."""
        return self.model.embed(batch.ids)


@dataclass(frozen=True)
class FrozenTrunk:
    """The embedding and the blocks before `start`, computed anew for each batch, no gradients."""

    model: LlamaModel
    start: int

    def hidden(self, batch: Batch) -> Tensor:
        """The hidden states [B, T, M] after block `start - 1`."""
        with torch.no_grad():
            embedded = self.model.embed(batch.ids)
            return self.model.run(embedded, 0, self.start, attention_of(batch))
