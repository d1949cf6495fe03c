"""What a model writes while it learns: the same beginnings, continued every so many steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from puna.artifact import writing_file
from puna.errors import InputError
from puna.flows.pretrain_recipe import SamplesConfig
from puna.flows.run_place import SAMPLES
from puna.generate import complete
from puna.model import LlamaModel
from puna.tokens import Tokenizer
from puna.train import Silent, StepMetrics
from puna.train.blocks import as_written


class Samples(Silent):
    """A reporter that lets the model continue the prompts, and keeps what it wrote.

    A line of `samples.jsonl` is one continuation: `step`, `prompt`, `text`, `tokens`. The file is
    always whole; a run that goes on from an earlier step forgets what came after it. The random
    numbers of the training are not touched.

    Args:
        model: As it stands at each step.
        tokenizer: Its vocabulary.
        config: The prompts, and how they are continued.
        workspace: The folder of the run.
        writes: Whether to keep them; ranks that share a model all let it write, and one keeps it.

    Raises:
        InputError: A prompt fills the model's context.
    """

    def __init__(
        self,
        model: LlamaModel,
        tokenizer: Tokenizer,
        config: SamplesConfig,
        workspace: Path,
        *,
        writes: bool = True,
    ) -> None:
        self._writes = writes
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._path = workspace / SAMPLES
        self._prompts = check_prompts(tokenizer, config, model.config.max_position_embeddings)
        self._total: int | None = None

    def begin(self, step: int, total: int | None) -> None:
        """Forget what was written after `step`."""
        self._total = total
        rows = self.rows()
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            self._write(kept)

    def step(self, metrics: StepMetrics) -> None:
        """Write samples where they are due."""
        if metrics.step % self._config.every_steps == 0 or metrics.step == self._total:
            self.take(metrics.step)

    def take(self, step: int) -> None:
        """Let the model as it stands continue every prompt; what was kept of this step goes."""
        if not self._prompts:
            return
        with as_written(self._model.model.layers):  # generation would compile them anew
            made = complete(
                self._model,
                self._tokenizer,
                self._prompts,
                self._config.sampling(),
                kernels=False,  # they would be packed anew for weights that move
            )
        fresh = [
            {"step": step, "prompt": prompt, "text": one.text, "tokens": len(one.ids)}
            for prompt, one in zip(self._config.prompts, made, strict=True)
        ]
        self._write([*(row for row in self.rows() if row["step"] < step), *fresh])

    def last_step(self) -> int | None:
        """The step of the newest samples; None where there are none."""
        return max((row["step"] for row in self.rows()), default=None)

    def rows(self) -> list[dict[str, Any]]:
        """Everything that is kept, the oldest first.

        Raises:
            InputError: The file was damaged.
        """
        if not self._path.is_file():
            return []
        try:
            lines = self._path.read_text(encoding="utf-8").split("\n")  # texts have other ends
            return [_row(json.loads(line)) for line in lines if line]
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"is damaged: {error}", where=self._path, fix="remove it; the samples begin anew"
            ) from error

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        if not self._writes:
            return
        with writing_file(self._path, force=True) as temporary:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            temporary.write_text("".join(lines), encoding="utf-8")


def check_prompts(
    tokenizer: Tokenizer, config: SamplesConfig, context_tokens: int
) -> list[list[int]]:
    """The ids of the prompts.

    Args:
        tokenizer: The vocabulary.
        config: The prompts.
        context_tokens: What the model takes.

    Raises:
        InputError: A prompt is as long as the context, or is empty and there is no token for a
            document's beginning.
    """
    found = []
    for number, prompt in enumerate(config.prompts):
        where = f"samples.prompts.{number}"
        ids = tokenizer.encode(prompt, eos=False) or _beginning(tokenizer, where)
        if len(ids) >= context_tokens:
            raise InputError(
                f"has {len(ids)} tokens; the model's context is {context_tokens}",
                where=where,
                fix="shorten the prompt",
            )
        found.append(list(ids))
    return found


def _beginning(tokenizer: Tokenizer, where: str) -> Sequence[int]:
    """What stands before a document in the shards: its first token, or the end of another one."""
    first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    if first is None:
        raise InputError(
            "is empty, and the vocabulary has no token that begins a document",
            where=where,
            fix="give it a word",
        )
    return [first]


def _row(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict) or type(told.get("step")) is not int:
        raise ValueError("a line is no sample")
    return told
