"""The unchanged lower blocks of a tuning run, for its training and its validation examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from puna.model import LlamaModel
from puna.tokens.batches import Batch
from puna.tokens.examples import TokenExample
from puna.train.objectives import Embedded, FrozenTrunk, Trunk
from puna.tune import Tuned
from puna.tune.trunk_cache import TrunkCache, TrunkCacheConfig


@dataclass(frozen=True)
class CachedTrunk:
    """Reads what blocks [0, start) made of each example."""

    cache: TrunkCache
    offset: int  # of the first example of these batches among the cache's sequences

    @property
    def start(self) -> int:
        """The first block that is left to run."""
        return self.cache.start

    def hidden(self, batch: Batch) -> Tensor:
        """The hidden states [B, T, M] that enter block `start`."""
        members = [[index + self.offset for index in row] for row in batch.members]
        return self.cache.gather(members, batch.ids.shape[1])


@dataclass(frozen=True)
class Trunks:
    """One trunk for each set of examples, and the cache behind them, if there is one."""

    of: dict[str, Trunk]
    cache: TrunkCache | None


def make_trunks(
    model: LlamaModel,
    tuned: Tuned,
    examples: dict[str, list[TokenExample]],
    config: TrunkCacheConfig,
) -> Trunks:
    """Choose how each batch comes by the hidden states that its first learning block needs.

    Args:
        model: The model.
        tuned: What is tuned of it.
        examples: By set; all sets share one cache.
        config: Whether there is to be one.
    """
    names = list(examples)
    if not tuned.has_trunk or tuned.start == 0:  # an embedding is no more to compute than to read
        return Trunks(dict.fromkeys(names, Embedded(model)), None)
    if not config.enabled:
        return Trunks(dict.fromkeys(names, FrozenTrunk(model, tuned.start)), None)
    sequences = [example.ids for name in names for example in examples[name]]
    cache = TrunkCache(model, tuned.start, sequences, config)
    offsets = _offsets([examples[name] for name in names])
    pairs = zip(names, offsets, strict=True)
    return Trunks({name: CachedTrunk(cache, offset) for name, offset in pairs}, cache)


def _offsets(sets: Sequence[Sequence[TokenExample]]) -> list[int]:
    sizes = [len(examples) for examples in sets]
    return [sum(sizes[:number]) for number in range(len(sizes))]
