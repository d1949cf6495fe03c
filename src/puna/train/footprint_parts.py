"""The sizes of a training step: what is there always, and what is there at each moment.

Shapes: N tokens of a micro-batch, M hidden_size, F intermediate_size, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from puna.errors import InputError
from puna.model import Block, LlamaConfig, LlamaModel
from puna.model.linear import Linear
from puna.model.llama import HEAD_CHUNK_TOKENS
from puna.model.loss import chunk_rows
from puna.train.saved import FLOAT32_BYTES, Scale, kept_of_block
from puna.tune import MethodConfig, attach

# glibc serves what is smaller than this from its heap, once one of that size has been freed
# (malloc's M_MMAP_THRESHOLD rises up to it), and the heap keeps gaps. Their sizes are measured:
# runs of `bench.memory` as they are, less the same runs without a heap for tensors (docs/plan.md).
HEAP_LIMIT_BYTES = 32 << 20
HEAP_GAPS = 0.3  # of activations that lie in the heap; the median of eight runs, 0.1 to 0.6
# Recomputed blocks leave results behind among the room of what they made and let go, which is too
# small for the next block's; three runs.
RECOMPUTED_GAPS = 11.0  # of the inputs that are kept; seen: 8.4, 9.2 and 14.6
_MUON_BYTES = 10  # per scalar of a matrix: its step in float32, and three of it in bfloat16

Dtype = Literal["float32", "bfloat16"]
_ITEMSIZE: Mapping[str, int] = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Setting:
    """All that the memory of a training run depends on."""

    config: LlamaConfig
    """The shape of the model."""
    rows: int = 1
    """Of a micro-batch on one rank."""
    row_tokens: int = 2048
    """Tokens of a row."""
    method: MethodConfig | None = None
    """What learns; None: everything, from fresh weights (pretraining)."""
    trained_tokens: int | None = None
    """Of a micro-batch that are learnt to be predicted; None: all."""
    documents: int | None = None
    """Of a micro-batch, that do not see one another; None: each row is one."""
    dtype: Dtype = "float32"
    """Of the computation, and of the base that is tuned."""
    optimizer: str = "adamw"
    """adamw, lamb or muon."""
    activation_checkpointing: bool = False
    """Whether blocks keep their inputs only."""
    micro_batches: int = 1
    """Of an optimizer step on one rank."""
    ranks: int = 1
    """Processes, one per device."""
    sharded: bool = False
    """Whether weights, gradients and the optimizer's state are split over the ranks (FSDP2)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where: resident memory of the process is predicted for a CPU, that of tensors for a GPU."""
    mapped: bool = False
    """Whether the base is mapped from a file of the same dtype: it then stays in memory beside
    what replaces it."""

    def __post_init__(self) -> None:
        for name in ("rows", "row_tokens", "micro_batches", "ranks"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.dtype not in _ITEMSIZE:
            raise InputError(f"dtype {self.dtype!r} is not known", fix="float32 or bfloat16")
        if self.optimizer not in ("adamw", "lamb", "muon"):
            raise InputError(
                f"optimizer {self.optimizer!r} is not known", fix="known: adamw, lamb, muon"
            )
        if self.sharded and self.ranks > 1 and self.optimizer != "adamw":
            raise InputError(
                f"{self.optimizer} takes each matrix as a whole, and the model is spread over the "
                "ranks",
                fix="take adamw, or keep the model whole on each rank",
            )

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.rows * self.row_tokens


@dataclass(frozen=True)
class Moment:
    """What there is at one moment, beside what is always there."""

    name: str
    gradients: int = 0
    activations: int = 0
    logits: int = 0
    buffers: int = 0

    @property
    def total(self) -> int:
        """All of it, bytes."""
        return self.gradients + self.activations + self.logits + self.buffers


def surgery(
    config: LlamaConfig, method: MethodConfig | None, dtype: Dtype = "float32"
) -> tuple[LlamaModel, int, int]:
    """The model on the meta device as it is trained, how much learns, and from which block on.

    Raises:
        InputError: The method does not fit the model.
    """
    with torch.device("meta"):
        model = LlamaModel(config)
    if method is None:
        return model.requires_grad_(True), sum(p.numel() for p in model.parameters()), 0
    tuned = attach(model.to(getattr(torch, dtype)), method)
    return model, tuned.trainable_count(), tuned.start if tuned.has_trunk else 0


class Parts:
    """The sizes that moments are made of, bytes."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.config = setting, setting.config
        self.model, self.learning, self.start = surgery(
            setting.config, setting.method, setting.dtype
        )
        self.itemsize = _ITEMSIZE[setting.dtype]
        documents = setting.rows if setting.documents is None else setting.documents
        cuda = setting.device == "cuda"
        # Pretraining joins rows of several documents into one: `tokens.row_batches.row_batch`.
        joined = setting.method is None and documents > setting.rows
        rows = 1 if joined else setting.rows
        self.scale = Scale(rows, setting.tokens // rows, documents, self.itemsize, cuda)
        trained = setting.tokens if setting.trained_tokens is None else setting.trained_tokens
        self.trained = min(trained, setting.tokens)

    # --- what is always there ---------------------------------------------------------------------

    @cached_property
    def share(self) -> float:
        """Of what is split over the ranks."""
        return 1 / self.setting.ranks if self.setting.sharded else 1.0

    @cached_property
    def base(self) -> int:
        """The weights that a tuning begins with; nothing where they are fresh."""
        if self.setting.method is None:
            return 0
        with torch.device("meta"):
            plain = LlamaModel(self.config)
        return sum(p.numel() for p in plain.parameters()) * self.itemsize

    @cached_property
    def weights(self) -> int:
        """Those that compute and those that learn; masters in float32 beside narrower ones."""
        method = self.setting.method
        if method is None:
            # Spread over ranks, blocks are cast as they are gathered; else the cast model stays.
            cast = 0 if self.setting.sharded or self.itemsize == FLOAT32_BYTES else self.itemsize
            return round(self.learning * (FLOAT32_BYTES + cast) * self.share)
        replaced = method.method == "full" and not self.setting.mapped
        return round(((0 if replaced else self.base) + self.learning * FLOAT32_BYTES) * self.share)

    @cached_property
    def optimizer(self) -> int:
        """Two numbers for each that learns; Muon has one for those in matrices of blocks."""
        moments = 2 * self.learning
        if self.setting.optimizer == "muon":
            moments -= sum(p.numel() for p in self._learning_matrices())
        return round(moments * FLOAT32_BYTES * self.share)

    @cached_property
    def angles(self) -> int:
        """Of the rotations, and the batch itself: ids, targets and documents."""
        rows = self.scale.rows if self.scale.separate else 1
        turned = 2 * rows * self.scale.row_tokens * self.config.head_dim * self.itemsize
        return turned + 3 * 8 * self.scale.tokens

    @cached_property
    def gathered(self) -> int:
        """What a rank holds of the others' weights: the ends of the model and two blocks."""
        if not self.setting.sharded or self.setting.ranks == 1:
            return 0
        blocks = self.model.model.layers
        block = sum(p.numel() for p in blocks[-1].parameters())
        ends = sum(p.numel() for p in self.model.parameters()) - block * len(blocks)
        return (ends + 2 * min(len(blocks), 2) * block) * self.itemsize  # with their gradients

    # --- activations ------------------------------------------------------------------------------

    @cached_property
    def kept(self) -> list[Mapping[str, int]]:
        """Of each block with gradients: what it keeps."""
        learns = any(p.requires_grad for p in self.model.model.embed_tokens.parameters())
        return [
            kept_of_block(block, self.config, self.scale, first=position == 0 and not learns)
            for position, block in enumerate(self._blocks())
        ]

    @cached_property
    def hidden(self) -> int:
        """Hidden states, N x M."""
        return self.scale.tokens * self.config.hidden_size * self.itemsize

    @cached_property
    def kept_forward(self) -> int:
        """What all blocks keep until the backward pass."""
        if self.setting.activation_checkpointing:
            return self.hidden * len(self.kept)
        return sum(sum(block.values()) for block in self.kept)

    @cached_property
    def kept_by_one(self) -> int:
        """What one block keeps."""
        return max((sum(block.values()) for block in self.kept), default=0)

    @cached_property
    def head_rows(self) -> int:
        """Kept of the rows that the head is asked for: themselves, and what their norm keeps."""
        learns = any(p.requires_grad for p in self.model.model.norm.parameters())
        row = self.config.hidden_size * self.itemsize
        composed = learns and not self._cuda and not self.scale.fused
        normalised = self.config.hidden_size * FLOAT32_BYTES if composed else 0
        return self.trained * (row + normalised)

    @property
    def recomputes(self) -> bool:
        """Whether something is recomputed: blocks, or a head that surgery has changed."""
        plain = isinstance(self.model.lm_head, Linear)
        return self.setting.activation_checkpointing or not plain

    @cached_property
    def gaps(self) -> int:
        """What glibc's heap holds and nobody uses."""
        if self.setting.activation_checkpointing:
            share, sizes = RECOMPUTED_GAPS, [self.hidden] * len(self.kept)
        else:
            share, sizes = HEAP_GAPS, [size for block in self.kept for size in block.values()]
        return round(share * sum(size for size in sizes if size < HEAP_LIMIT_BYTES))

    # --- moments ----------------------------------------------------------------------------------

    def moments(self) -> list[Moment]:
        """At which a step could be at its highest."""
        found = [self._in_head(), self._before_backward(), self._in_optimizer()]
        if self.kept:
            found.append(self._in_last_block())
            found.append(self._in_first_block())
        if self._embedding_learns:
            found.append(self._at_embedding())
        if self.start:
            buffers = self._block_results() + 2 * self.hidden
            found.append(Moment("the blocks that do not learn", self.before, buffers=buffers))
        return found

    @cached_property
    def gradients(self) -> int:
        """Of all that learns, in float32: those of masters are cast as soon as they are there."""
        return round(self.learning * FLOAT32_BYTES * self.share)

    @cached_property
    def before(self) -> int:
        """Gradients of earlier micro-batches."""
        return self.gradients if self.setting.micro_batches > 1 else 0

    @cached_property
    def head_scalars(self) -> int:
        """Of the head's own matrix; 0 where it does not learn."""
        weight = next((p for p in self.model.lm_head.parameters() if p.requires_grad), None)
        return 0 if weight is None else weight.numel()

    def _in_head(self) -> Moment:
        rows = self.trained * self.config.hidden_size * self.itemsize
        chunk = self._chunk_bytes()
        many = chunk < self.trained * self.config.vocab_size * FLOAT32_BYTES
        # Logits become their softmax in place on a CPU. Old and new chunks meet; in another dtype
        # a product has the size of the head.
        chunks = (2 if many else 1) * chunk if not self._cuda else (3 if many else 2) * chunk
        if self.head_scalars:
            chunks += self.head_scalars * FLOAT32_BYTES
            if self.itemsize != FLOAT32_BYTES:
                chunks += self.head_scalars * self.itemsize
        if self.itemsize != FLOAT32_BYTES:
            chunks += chunk  # the logits, and their slope, in the computation's dtype
        return Moment(
            "in the head",
            self.before,
            self.kept_forward + self.hidden + self.head_rows,
            logits=2 * rows + chunks,
        )

    def _before_backward(self) -> Moment:
        """The head's gradients are scaled into new tensors."""
        rows = self.trained * self.config.hidden_size * self.itemsize
        kept = self.kept_forward + self.hidden + self.head_rows
        return Moment(
            "at the head's gradients",
            self.before,
            kept,
            logits=2 * (self.head_scalars * self.itemsize + rows),
        )

    def _in_last_block(self) -> Moment:
        kept = self.kept_forward
        if self.setting.activation_checkpointing:
            kept += self.kept_by_one
        head = round(self.head_scalars * FLOAT32_BYTES * self.share)
        # A tied head's waits for the embedding's; others are added to what there is at once.
        gradients = self.before + head if self._tied else max(self.before, head)
        buffers = self._slopes(self.kept[-1])
        return Moment(
            "in the last block's gradients", gradients, kept + self.hidden, buffers=buffers
        )

    def _in_first_block(self) -> Moment:
        kept = self.kept_by_one + self.hidden
        waiting = self.head_scalars * self.itemsize if self._tied and self.before else 0
        return Moment(
            "in the first block's gradients",
            self.gradients + waiting,
            kept,
            buffers=self._slopes(self.kept[0]),
        )

    def _at_embedding(self) -> Moment:
        # Its own, the head's that waits for it where they are tied, and the sum so far.
        together = 1 + self._tied + bool(self.before)
        matrix = self.config.vocab_size * self.config.hidden_size * self.itemsize
        return Moment(
            "at the embedding's gradient",
            self.gradients,
            2 * self.hidden,
            buffers=(together - 1) * matrix,  # one of them is among the gradients
        )

    def _in_optimizer(self) -> Moment:
        """Muon turns one matrix after the other, in bfloat16; the others need no room."""
        matrices = [p.numel() for p in self._learning_matrices()]
        muon = self.setting.optimizer == "muon"
        buffers = _MUON_BYTES * max(matrices, default=0) if muon else 0
        return Moment("in the optimizer", self.gradients, buffers=buffers)

    # --- small parts ------------------------------------------------------------------------------

    @property
    def _cuda(self) -> bool:
        return self.scale.cuda

    @cached_property
    def _embedding_learns(self) -> bool:
        return any(p.requires_grad for p in self.model.model.embed_tokens.parameters())

    @property
    def _tied(self) -> bool:
        """Whether the head's matrix learns as the embedding's."""
        return self.config.tie_word_embeddings and self.head_scalars > 0

    def _blocks(self) -> list[Block]:
        """Those that gradients go through."""
        blocks = list(self.model.model.layers)[self.start :]
        return [block for block in blocks if isinstance(block, Block)]

    def _learning_matrices(self) -> list[nn.Parameter]:
        """Those of the blocks."""
        return [
            p
            for block in self.model.model.layers
            for p in block.parameters()
            if p.requires_grad and p.dim() == 2
        ]

    def _chunk_bytes(self) -> int:
        """Of the logits that exist at a time, in float32."""
        plain = isinstance(self.model.lm_head, Linear)
        most = chunk_rows(self.config.vocab_size) if plain else HEAD_CHUNK_TOKENS
        return min(self.trained, most) * self.config.vocab_size * FLOAT32_BYTES

    def _block_results(self) -> int:
        """Of a block's forward pass, where nothing is kept: two streams and the MLP's insides."""
        width = 2 * self.config.hidden_size + 3 * self.config.intermediate_size
        return self.scale.tokens * width * self.itemsize

    def _slopes(self, kept: Mapping[str, int]) -> int:
        """Gradients on their way through an MLP, less what has been let go by then."""
        inner = 3 * self.config.intermediate_size + 3 * self.config.hidden_size
        made = self.scale.tokens * inner * self.itemsize
        return max(made - kept.get("input of down_proj", 0), 0)
