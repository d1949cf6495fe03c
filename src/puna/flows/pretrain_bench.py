"""A pretraining recipe made real: shards, shape, steps, and how the model is judged."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property

import torch
from torch import nn

from puna.flows.opening import resolve_device, resolve_dtype
from puna.flows.pretrain_data import (
    Material,
    held_out_of,
    make_loader,
    mean_context,
    open_material,
    steps_of,
)
from puna.flows.pretrain_recipe import PretrainRecipe
from puna.flows.pretrain_samples import check_prompts
from puna.flows.products import run_identity
from puna.flows.watcher import Watcher
from puna.meter import Meter
from puna.model import LlamaModel, count, init_weights
from puna.scale.world import World
from puna.tokens.shard_loader import HeldOut, ShardLoader
from puna.train import TrainConfig, evaluate_loss
from puna.train.footprint import Footprint, Setting, predict
from puna.train.masters import ComputeDtype
from puna.train.objectives import Embedded, NextToken

# Keys of a recipe that no bit of the weights depends on. The shards count by their content.
UNHASHED = (
    "shards",
    "title",
    "samples",
    "verify",
    "peak_flops_per_second",
    "meter",
    "tensorboard",
    "spread",
)
OPENING = "opening the shards"


class PretrainBench:
    """The first part of every run: everything that can be refused is refused here.

    Args:
        recipe: What is asked.
        meter: Counts what it takes.
        watcher: Is told.
        world: The ranks; by default this process alone.

    Raises:
        InputError: The shards, the shape, the mixture or the length of the run is not right.
    """

    def __init__(
        self, recipe: PretrainRecipe, meter: Meter, watcher: Watcher, world: World | None = None
    ) -> None:
        self.recipe, self.meter, self.watcher = recipe, meter, watcher
        self.world = World.single(resolve_device(recipe.device)) if world is None else world
        self.device = self.world.device
        self.dtype = resolve_dtype(recipe.dtype, self.device) or torch.float32
        with meter.stage(OPENING):
            self.material: Material = open_material(recipe.folders)
            self.config = recipe.shape.config(self.material.vocab_size, recipe.rows.row_tokens)
            check_prompts(self.material.tokenizer, recipe.samples, recipe.rows.row_tokens)
            self.steps = steps_of(recipe, self.material, self.world)
            if recipe.verify and self.world.is_first:
                self.material.verify(watcher.progress)
            self.held_out: dict[str, HeldOut] = held_out_of(recipe, self.material)
        self.counts = count(self.config)
        watcher.lines("data", self.material.lines())
        watcher.lines("the run", self.lines())

    @cached_property
    def identity(self) -> str:
        """Of recipe, shards and vocabulary together."""
        vocabulary = self.material.shards[0].vocabulary_identity
        return run_identity(self.recipe, self.material.identity, vocabulary, UNHASHED)

    @cached_property
    def flops_per_token(self) -> float:
        """Forward and backward: 6 for each parameter that is multiplied, and the attention."""
        rows = self.recipe.rows
        context = mean_context(
            self.material.train.values(), rows.row_tokens, separate=rows.separate_documents
        )
        return self.counts.training_flops(context).model

    @cached_property
    def tokens(self) -> int | None:
        """Of the whole run; None where time alone ends it."""
        if self.steps is None:
            return None
        return sum(read["tokens"] for read in self.loader().consumed(self.steps).values())

    @property
    def compute_dtype(self) -> ComputeDtype | None:
        """What the loop computes in, where that is not the float32 of the weights that learn."""
        return "bfloat16" if self.dtype == torch.bfloat16 else None

    @property
    def in_shards(self) -> bool:
        """Whether each rank has a part of the model only."""
        return self.world.size > 1 and self.recipe.spread.kind == "shards"

    def loader(self) -> ShardLoader:
        """The batches of the run."""
        return make_loader(self.recipe, self.material, self.steps, self.world)

    def train_config(self, loader: ShardLoader) -> TrainConfig:
        """How the loop is run."""
        every = self.recipe.evaluation.every_steps if self.held_out else None
        config = self.recipe.train.bounded(self.steps, loader.micro_batches, every)
        # A model in shards is gathered in the dtype of the computation; it needs no masters.
        dtype = None if self.in_shards else self.compute_dtype
        return dataclasses.replace(config, compute_dtype=dtype)

    def footprint(self) -> Footprint | None:
        """The memory that the run is predicted to take; None for a device that nobody knows."""
        device, train = self.device.type, self.recipe.train
        rows = self.recipe.rows.settled(self.world.size, device)
        documents = self.material.train.values()
        mean = self.material.tokens / max(sum(one.count for one in documents), 1)
        each = max(1, round(rows.row_tokens / mean)) if rows.separate_documents else 1
        if device not in ("cpu", "cuda"):
            return None
        return predict(
            Setting(
                self.config,
                rows=rows.rows_at_once,
                row_tokens=rows.row_tokens,
                documents=rows.rows_at_once * each,
                dtype=self.compute_dtype or "float32",
                optimizer=train.optim.kind,
                activation_checkpointing=train.activation_checkpointing,
                micro_batches=rows.micro_batches(self.world.size),
                ranks=self.world.size,
                device="cpu" if device == "cpu" else "cuda",
            )
        )

    def fresh_model(self) -> LlamaModel:
        """The model before its first step, in float32 on the device."""
        model = init_weights(LlamaModel(self.config), self.recipe.init_seed)
        return model.to(self.device)

    def judge(self, model: LlamaModel) -> dict[str, float]:
        """Losses on the held-out documents: of all, and of each source.

        Returns:
            `validation_loss` (nats per token, over the tokens of all sources), `bits_per_byte`
            (bits per UTF-8 byte of text, which models of other vocabularies can be held against),
            and where there are several sources `loss_SOURCE` and `bits_per_byte_SOURCE`.
        """
        nats = tokens = text_bytes = 0.0
        each: dict[str, float] = {}
        for name, held_out in self.held_out.items():
            found = evaluate_loss(model, NextToken(), held_out.batches, Embedded(model))
            own = found["validation_loss"] * found["validation_tokens"]
            each[f"loss_{name}"] = found["validation_loss"]
            each[f"bits_per_byte_{name}"] = bits_per_byte(own, held_out.text_bytes)
            nats, tokens = nats + own, tokens + found["validation_tokens"]
            text_bytes += held_out.text_bytes
        whole = {"validation_loss": nats / tokens, "bits_per_byte": bits_per_byte(nats, text_bytes)}
        return {**whole, **(each if len(self.held_out) > 1 else {})}

    def _share(self, tokens: int) -> float:
        """So many tokens, over those of the sources that the mixture reads."""
        schedule = self.loader().schedule
        read = [n for n, quota in zip(schedule.names, schedule.quotas, strict=True) if quota]
        return tokens / sum(self.material.train[name].tokens for name in read)

    def lines(self) -> list[str]:
        """What the run is, for a terminal."""
        tokens = self.tokens
        length = "as long as the time allows"
        if tokens is not None and self.steps is not None:
            length = f"{self.steps:,} steps, {tokens:,} tokens, {self._share(tokens):.2f} of what "
            length += "there is of the sources that are read"
        found = [
            f"{self.counts.parameters:,} parameters, {self.counts.matrix_parameters:,} of them "
            "multiplied for each token",
            length,
            f"{self.recipe.step_tokens:,} tokens a step, "
            f"{self.flops_per_token / 1e6:,.1f} million FLOPs a token",
        ]
        if not self.held_out:
            found.append("no document is held out: nothing but the training loss will be known")
        return found


def learning(model: LlamaModel) -> dict[str, nn.Parameter]:
    """What learns, by name: everything, a tied head once."""
    return dict(model.named_parameters())


def bits_per_byte(nats: float, text_bytes: float) -> float:
    """Cross-entropy in nats as bits for each byte of the text; NaN for no text."""
    return nats / math.log(2) / text_bytes if text_bytes else math.nan
