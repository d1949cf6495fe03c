"""Cross-entropy of the next token: of a whole text, or of what the model should say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from puna.errors import InputError
from puna.model import LlamaModel
from puna.tokens.batches import Batch
from puna.train.objectives.base import Backward, Term, Trunk, attention_of


@dataclass(frozen=True)
class NextToken:
    """The sum of cross-entropies in nats over the targets that the batch says are trained."""

    name: str = "next_token"
    """Of the objective and of its one term."""
    z_loss: float = 0.0
    """Weight of the squared logarithm of the softmax's denominator, which keeps logits from
    drifting (Chowdhery et al. 2022, PaLM, arXiv 2204.02311, section 5: 1e-4); 0: without. It is
    told as `z_loss`, with its weight, and is no part of the loss that is told."""

    def __post_init__(self) -> None:
        if not self.z_loss >= 0:
            raise InputError(f"z_loss must not be negative, found {self.z_loss}")

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """The trained tokens."""
        return {self.name: batch.trained}

    def step(self, model: LlamaModel, batch: Batch, trunk: Trunk, backward: Backward) -> None:
        """One pass through the blocks above the trunk; logits of trained positions alone."""
        hidden = model.run(trunk.hidden(batch), trunk.start, attention=attention_of(batch))
        if not self.z_loss:
            backward(Term(self.name, model.head_loss(hidden, batch.targets), "trained tokens"))
            return
        total, z_loss = model.head_losses(hidden, batch.targets, self.z_loss)
        backward(Term(self.name, total, "trained tokens", parts={"z_loss": z_loss}))


@dataclass(frozen=True)
class MaskedTurns(NextToken):
    """The same of an assistant's turns: which tokens are its own stands in the batch's targets."""

    name: str = "instruction"
    """Of the objective and of its one term."""
