"""Cross-entropy of the next token: of a whole text, or of what the model should say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from puna.model import LlamaModel
from puna.tokens.batches import Batch
from puna.train.objectives.base import Backward, Term, Trunk, attention_of


@dataclass(frozen=True)
class NextToken:
    """The sum of cross-entropies in nats over the targets that the batch says are trained."""

    name: str = "next_token"
    """Of the objective and of its one term."""

    def counts(self, batch: Batch) -> Mapping[str, int]:
        """The trained tokens."""
        return {self.name: batch.trained}

    def step(self, model: LlamaModel, batch: Batch, trunk: Trunk, backward: Backward) -> None:
        """One pass through the blocks above the trunk; logits of trained positions alone."""
        hidden = model.run(trunk.hidden(batch), trunk.start, attention=attention_of(batch))
        backward(Term(self.name, model.head_loss(hidden, batch.targets), "trained tokens"))


@dataclass(frozen=True)
class MaskedTurns(NextToken):
    """The same of an assistant's turns: which tokens are its own stands in the batch's targets."""

    name: str = "instruction"
    """Of the objective and of its one term."""
