"""What a pretraining recipe says: shards, a shape, how much is read of what, and how it is run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from puna.errors import InputError
from puna.generate import Sampling
from puna.meter import MeterConfig
from puna.model import LlamaConfig, preset
from puna.scale.spread import SpreadConfig
from puna.tokens.mixture import MixtureConfig
from puna.tokens.shard_loader import RowConfig
from puna.train import OptimConfig, ScheduleConfig, TrainConfig
from puna.train.guard import GuardConfig

_INNER_MULTIPLE = 64  # the width inside the SwiGLU is rounded up to it


@dataclass(frozen=True)
class ModelShape:
    """The shape of the model; the vocabulary is that of the shards.

    What is null is that of the preset, or follows from the rest where no preset is named.
    """

    preset: str | None = None
    """A published shape or one for laptops, such as laptop-10m; see `puna.model.PRESETS`."""
    hidden_size: int | None = None
    """Width of the residual stream."""
    layers: int | None = None
    """Blocks."""
    heads: int | None = None
    """Query heads."""
    kv_heads: int | None = None
    """Key/value heads; without a preset as many as `heads`."""
    head_dim: int | None = None
    """Scalars per head; without a preset `hidden_size / heads`."""
    intermediate_size: int | None = None
    """Width inside the SwiGLU; without a preset 8/3 of `hidden_size`, rounded up to 64."""
    tie_embeddings: bool | None = None
    """Whether the head is the embedding; without a preset no, as in LLaMA."""
    context_tokens: int | None = None
    """The context that the model claims, tokens; null: the length of a row, which it is trained
    on."""
    rope_theta: float | None = None
    """Base of the rotary frequencies; without a preset 10000."""
    norm_eps: float | None = None
    """Added to the mean square; without a preset 1e-5."""
    initializer_range: float | None = None
    """Standard deviation of fresh weights; without a preset 0.02."""

    def __post_init__(self) -> None:
        if self.preset is not None:
            preset(self.preset)
            return
        missing = [key for key in ("hidden_size", "layers", "heads") if getattr(self, key) is None]
        if missing:
            raise InputError(
                f"the shape lacks {', '.join(missing)}",
                fix="name a preset such as laptop-10m, or give hidden_size, layers and heads",
            )

    def config(self, vocab_size: int, row_tokens: int) -> LlamaConfig:
        """The shape as the model takes it.

        Args:
            vocab_size: Rows of the embedding.
            row_tokens: Tokens of the rows to train on.

        Raises:
            InputError: The parts do not fit one another, or rows are longer than the context.
        """
        start = self._plain(vocab_size) if self.preset is None else preset(self.preset)
        given = {name: getattr(self, key) for key, name in _NAMES.items()}
        given = {name: value for name, value in given.items() if value is not None}
        if self.head_dim is None and {"hidden_size", "num_attention_heads"} & given.keys():
            width = given.get("hidden_size", start.hidden_size)
            given["head_dim"] = _divided(
                width, given.get("num_attention_heads", start.num_attention_heads)
            )
        context = row_tokens if self.context_tokens is None else self.context_tokens
        if context < row_tokens:
            raise InputError(
                f"rows of {row_tokens} tokens do not fit a context of {context}",
                fix="lower rows.row_tokens, or raise model.context_tokens",
            )
        return dataclasses.replace(
            start, vocab_size=vocab_size, max_position_embeddings=context, **given
        )

    def _plain(self, vocab_size: int) -> LlamaConfig:
        """A shape without a preset, but for its head_dim."""
        width, layers, heads = self.hidden_size, self.layers, self.heads
        assert width is not None and layers is not None and heads is not None, "checked at once"
        inner = -(-8 * width // (3 * _INNER_MULTIPLE)) * _INNER_MULTIPLE
        return LlamaConfig(vocab_size, width, inner, layers, heads, self.kv_heads or heads, 2)


_NAMES = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate_size": "intermediate_size",
    "tie_embeddings": "tie_word_embeddings",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
    "initializer_range": "initializer_range",
}


def _divided(width: int, heads: int) -> int:
    if heads < 1 or width % heads:
        raise InputError(
            f"hidden_size ({width}) is not a multiple of heads ({heads})",
            fix="give a multiple, or head_dim",
        )
    return width // heads


@dataclass(frozen=True)
class PretrainOptim(OptimConfig):
    """The optimizer, with LLaMA's figures as defaults (arXiv 2302.13971, section 2.2)."""

    learning_rate: float = 3e-4
    """At its highest; the schedule scales it."""
    beta2: float = 0.95
    """Decay of the mean of squared gradients, per step."""
    weight_decay: float = 0.1
    """Per step and unit of learning rate; on matrices only, never on norms and biases."""


@dataclass(frozen=True)
class PretrainSchedule(ScheduleConfig):
    """The course of the learning rate: a cosine down to a tenth, as LLaMA's."""

    warmup_share: float = 0.02
    """Warmup as a share of all steps, rounded up."""
    final_share: float = 0.1
    """The rate at the end, as a share of the full one."""


@dataclass(frozen=True)
class PretrainGuard(GuardConfig):
    """What is done about steps that would do harm: spikes count, and the run may go back."""

    spike_factor: float | None = 10.0
    """A loss is a spike if it lies more than so many deviations above the median of the last good
    steps; see `puna.train.guard`. null: no loss is one."""
    max_rollbacks: int = 3
    """How often the run may go back to an earlier checkpoint, and pass over the data that follow
    it; 0: it gives up at once."""


@dataclass(frozen=True)
class PretrainTrain(TrainConfig):
    """How the run goes. How long it is stands in `tokens`, or here in max_steps, max_seconds."""

    epochs: int | None = None
    """Stays null: rows are counted, not passes; see `mixture.epochs`."""
    checkpoint_every_steps: int | None = 250
    """Optimizer steps between checkpoints; null: at the end and at each best only."""
    guard: PretrainGuard = field(default_factory=PretrainGuard)
    """What is done about steps that would do harm."""
    background_checkpoints: bool = True
    """Take a copy in main memory and write it while steps go on, rather than wait; the copy is as
    large as what learns and its optimizer's state."""
    optim: PretrainOptim = field(default_factory=PretrainOptim)
    """The optimizer."""
    schedule: PretrainSchedule = field(default_factory=PretrainSchedule)
    """The course of the learning rate."""

    def __post_init__(self) -> None:
        elsewhere = (
            ("epochs", None, "set tokens, or mixture.epochs"),
            ("micro_batches", 1, "set rows.step_rows and rows.batch_rows"),
            ("evaluate_every_steps", None, "set evaluation.every_steps"),
            ("compute_dtype", None, "set dtype"),
        )
        for key, default, fix in elsewhere:
            if getattr(self, key) != default:
                raise InputError(f"{key} is not for pretraining", fix=fix)
        # The steps are not known yet; all else is checked now.
        self.bounded(1 if self.max_steps is None else self.max_steps, 1, None)

    def bounded(
        self, steps: int | None, micro_batches: int, evaluate_every_steps: int | None
    ) -> TrainConfig:
        """The same as the loop takes it.

        Args:
            steps: Optimizer steps of the run; None where time alone ends it.
            micro_batches: Batches of each step.
            evaluate_every_steps: Optimizer steps between evaluations.

        Raises:
            InputError: A value is out of its range.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(TrainConfig)}
        values |= {"max_steps": steps, "micro_batches": micro_batches}
        values |= {"evaluate_every_steps": evaluate_every_steps}
        return TrainConfig(**values)


@dataclass(frozen=True)
class HeldOutConfig:
    """When the model is judged on the documents that were held out, and on how much of them."""

    every_steps: int = 250
    """Optimizer steps between evaluations; the end is always judged."""
    max_tokens: int = 65_536
    """Tokens of each source, the same ones each time."""

    def __post_init__(self) -> None:
        for key in ("every_steps", "max_tokens"):
            if getattr(self, key) < 1:
                raise InputError(f"{key} must be at least 1, not {getattr(self, key)}")


@dataclass(frozen=True)
class SamplesConfig:
    """What the model is let write while it learns."""

    prompts: tuple[str, ...] = ()
    """Beginnings that it continues; an empty one lets it begin by itself; none: no samples."""
    every_steps: int = 250
    """Optimizer steps between samples; the end is always sampled."""
    max_new_tokens: int = 64
    """Of each sample."""
    temperature: float = 0.8
    """0 takes the likeliest token each time."""
    top_p: float = 0.95
    """Keep the likeliest tokens that reach this probability together."""
    seed: int = 0
    """Of the choices; the same at every step, so that only the model makes the difference."""

    def __post_init__(self) -> None:
        if self.every_steps < 1:
            raise InputError(f"every_steps must be at least 1, not {self.every_steps}")
        self.sampling()

    def sampling(self) -> Sampling:
        """How tokens are chosen.

        Raises:
            InputError: A value is out of its range.
        """
        return Sampling(
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
        )


@dataclass(frozen=True)
class PretrainRecipe:
    """One pretraining run, from shards of tokens to a base model."""

    shards: str | tuple[str, ...]
    """Folders that `puna tokenize` made, with one and the same vocabulary."""
    model: str | ModelShape = "laptop-10m"
    """A preset by its name, or a shape."""
    title: str | None = None
    """What the report is called."""
    init_seed: int = 0
    """Of the fresh weights."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """How much comes from which source."""
    rows: RowConfig = field(default_factory=RowConfig)
    """How long a row is, and how many make a step."""
    tokens: int | None = None
    """Tokens to train on, rounded up to whole steps; null: what the mixture holds, or as
    `train.max_steps` and `train.max_seconds` say."""
    train: PretrainTrain = field(default_factory=PretrainTrain)
    """How fast, and what is kept."""
    z_loss: float = 0.0
    """Weight of the squared logarithm of the softmax's denominator (Chowdhery et al. 2022, PaLM:
    1e-4); 0: without."""
    evaluation: HeldOutConfig = field(default_factory=HeldOutConfig)
    """How it is judged on held-out documents."""
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """What it is let write."""
    verify: bool = True
    """Read every shard before the first step: its digest, and that all ids are in the
    vocabulary."""
    peak_flops_per_second: float | None = None
    """What the device could do at best, for the utilisation; null: its rate of multiplying
    matrices is measured, once."""
    meter: MeterConfig = field(default_factory=MeterConfig)
    """How energy and carbon are found."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; auto is float32 on CPU and bfloat16 on GPU. The weights that learn, and
    those that are published, are float32."""
    threads: int | None = None
    """CPU threads; torch's own choice when null."""
    spread: SpreadConfig = field(default_factory=SpreadConfig)
    """How the ranks of `torchrun` share the model. A run may go on with any number of them."""
    tensorboard: bool = False
    """Also write TensorBoard events (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise InputError("shards names no folder", fix="give what puna tokenize made")
        if isinstance(self.model, str):
            preset(self.model)
        if self.tokens is not None and self.tokens < 1:
            raise InputError(f"tokens must be at least 1, not {self.tokens}")
        if self.tokens is not None and self.train.max_steps is not None:
            raise InputError(
                "tokens and train.max_steps both say how long the run is", fix="set one of them"
            )
        if not self.z_loss >= 0:
            raise InputError(f"z_loss must not be negative, found {self.z_loss}")
        peak = self.peak_flops_per_second
        if peak is not None and not peak > 0:
            raise InputError(f"peak_flops_per_second must be positive, found {peak}")

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of shards."""
        names = (self.shards,) if isinstance(self.shards, str) else self.shards
        return tuple(Path(name).expanduser() for name in names)

    @property
    def shape(self) -> ModelShape:
        """The model's shape."""
        return ModelShape(preset=self.model) if isinstance(self.model, str) else self.model

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimizer step, over all ranks."""
        return self.rows.row_tokens * self.rows.step_rows

    def named(self, path: Path) -> str:
        """The title, or what stands for it."""
        return self.title or path.name.replace("-", " ")
