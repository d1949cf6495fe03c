"""What a tuning recipe says: a model, data, a method, how long, and how it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from puna.errors import InputError
from puna.evaluate import MEASURES, EvaluationConfig, measure
from puna.meter import MeterConfig
from puna.records import Columns, Format, Shape, Splits, Wording
from puna.tokens.batches import BatchConfig
from puna.tokens.examples import ExampleConfig
from puna.train import TrainConfig
from puna.tune import LoraConfig, MethodConfig
from puna.tune.trunk_cache import TrunkCacheConfig

Files = str | tuple[str, ...]
DtypeName = Literal["auto", "file", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class DataConfig:
    """Where examples are, what they look like, and which of them are held out."""

    train: Files
    """Files to learn from: a path, a glob, a folder, package:NAME or hub:OWNER/NAME; or several."""
    train_targets: str | None = None
    """A file whose lines are the translations of those of `train`."""
    validation: Files | None = None
    """Files held out to judge the training; null: a part of `train`, see `splits`."""
    validation_targets: str | None = None
    """A file whose lines are the translations of those of `validation`."""
    test: Files | None = None
    """Files held out to judge the result; null: a part of `train`, see `splits`."""
    test_targets: str | None = None
    """A file whose lines are the translations of those of `test`."""
    splits: Splits = field(default_factory=Splits)
    """What is held out of `train` where no files are named for it."""
    format: Format | Literal["auto"] = "auto"
    """Of the files; auto goes by their suffixes."""
    header: bool = True
    """Whether the first line of a csv or tsv file names its columns."""
    shape: Shape | Literal["auto"] = "auto"
    """Of the rows; auto recognises it and says why."""
    columns: Columns = field(default_factory=Columns)
    """Columns whose names are not the shape's own."""
    max_examples: int | None = None
    """Learn from at most so many examples, chosen by a hash of their content; null: all."""
    max_test: int | None = None
    """The same for the test examples, and for those of validation."""

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            files, targets = getattr(self, name), getattr(self, f"{name}_targets")
            if targets is not None and not isinstance(files, str):
                raise InputError(
                    f"{name}_targets goes with one file of sources",
                    fix=f"name that file in {name}, or put both sides into one file",
                )
        for name in ("max_examples", "max_test"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class WatchConfig:
    """What is found at each evaluation while the training runs, beside the validation loss."""

    metrics: tuple[str, ...] = ()
    """Of bleu, chrf, ter, exact_match, token_accuracy ...; `train.best_metric` may name one."""
    max_examples: int = 64
    """Validation examples that are judged so; always the same ones."""

    def __post_init__(self) -> None:
        for name in self.metrics:
            measure(name)
        if self.max_examples < 1:
            raise InputError(f"max_examples must be at least 1, not {self.max_examples}")


@dataclass(frozen=True)
class Variant:
    """A method with settings of its own, for `puna tune --compare`."""

    method: MethodConfig
    """What learns."""
    optim: dict[str, float | None] = field(default_factory=dict)
    """Keys of `train.optim` that are other ones for it, such as `learning_rate: 2e-5`; what makes
    one method learn well makes another diverge, or stand still."""


@dataclass(frozen=True)
class TuneRecipe:
    """One tuning run, from a base model and raw examples to a judged product."""

    data: DataConfig
    """The examples."""
    model: str = "llama-base"
    """The base: a path, an alias, a packaged model, or owner/name on the Hugging Face hub."""
    title: str | None = None
    """What the report is called."""
    template: str | None = None
    """How turns are written: chatml, llama3 ... plain, or a template's text; null: the model's."""
    wording: Wording = field(default_factory=Wording)
    """What of a row the user says, and what the model answers."""
    objective: Literal["instruction", "next_token"] = "instruction"
    """`instruction`: learn what the model should say. `next_token`: learn every token."""
    method: MethodConfig = field(default_factory=LoraConfig)
    """What learns."""
    method_seed: int = 0
    """Of the starting values of what the method adds."""
    compare: dict[str, Variant] = field(default_factory=dict)
    """Methods for `puna tune --compare`, by a name such as lora_top6. Those that it names and that
    are not here have the settings of `method` where both know them (rank, layers ...), and the
    learning rate of `train.optim`; `full` and `top_layers`, which move the model's own weights, a
    tenth of what suits a method that adds some."""
    examples: ExampleConfig = field(default_factory=ExampleConfig)
    """How long an example may be."""
    batches: BatchConfig = field(
        default_factory=lambda: BatchConfig(
            batch_tokens=None, batch_examples=16, packing=True, row_tokens=4096
        )
    )
    """How many examples make a step."""
    trunk_cache: TrunkCacheConfig = field(default_factory=TrunkCacheConfig)
    """Where the output of the unchanged lower blocks is kept."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How long and how fast."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """What is found while it runs."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """How base and result are judged on the test examples."""
    meter: MeterConfig = field(default_factory=MeterConfig)
    """How energy and carbon are found."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: DtypeName = "auto"
    """Of the base in memory; auto is float32 on CPU and bfloat16 on GPU."""
    threads: int | None = None
    """CPU threads; torch's own choice when null."""
    tensorboard: bool = False
    """Also write TensorBoard events (extra `tensorboard`)."""

    def __post_init__(self) -> None:
        best, higher = self.train.best_metric, {"validation_loss": False}
        for name in self.watch.metrics:
            higher[f"validation_{name}"] = measure(name).higher_is_better
        if best not in higher:
            name = best.removeprefix("validation_")
            known = name in [metric.name for metric in MEASURES]
            raise InputError(
                f"train.best_metric names {best}, which is not found while training",
                fix=f"add {name} to watch.metrics, and name it validation_{name}"
                if known
                else f"it can be {', '.join(higher)}, or validation_ and a metric of watch.metrics",
            )
        right = "highest" if higher[best] else "lowest"
        if self.train.best_is != right:
            raise InputError(
                f"train.best_is is {self.train.best_is}, which is the worst of {best}",
                fix=f"set train.best_is: {right}",
            )

    def named(self, path: Path) -> str:
        """The title, or what stands for it."""
        return self.title or path.name.replace("-", " ")
