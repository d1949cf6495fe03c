"""The peer's side: transformers' Trainer, on the same rows from the same fresh weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bench.pretraining_spec import Spec, Steps, tensor


def main() -> None:
    spec, steps = Spec.read(sys.argv[1]), Steps()
    torch.set_num_threads(2)
    # Without the cache of keys and values, which no training needs but the default builds.
    model = LlamaForCausalLM(LlamaConfig.from_dict({**spec.shape(), "use_cache": False}))
    model.load_state_dict(spec.weights())
    side = Side(
        model=model,
        args=arguments(spec),
        train_dataset=Rows(spec),
        data_collator=collate,
        callbacks=[Watch(steps)],
    )
    loss = side.train().training_loss
    print(json.dumps(steps.told(spec, loss, model.state_dict())))


def arguments(spec: Spec) -> TrainingArguments:
    """What a user would set to do the same work; the optimizer is the default, fused AdamW."""
    return TrainingArguments(
        output_dir=str(Path(spec.out) / "trainer"),
        max_steps=spec.steps,
        per_device_train_batch_size=spec.batch_rows,
        gradient_accumulation_steps=spec.micro_batches,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": spec.final_share},
        warmup_steps=spec.warmup_steps,
        adam_beta1=spec.beta1,
        adam_beta2=spec.beta2,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


class Rows(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Rows and their targets."""

    def __init__(self, spec: Spec) -> None:
        self._ids, self._targets = spec.rows()

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._ids[index], self._targets[index]

    def __len__(self) -> int:
        return len(self._ids)


def collate(rows: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Tensor]:
    """Targets are shifted already: the last token of a row predicts the first of the next."""
    ids, targets = (tensor(np.stack(column)) for column in zip(*rows, strict=True))
    return {"input_ids": ids, "labels": targets, "shift_labels": targets}


class Side(Trainer):
    """The Trainer on rows in their order."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            self.train_dataset, batch_size=self.args.train_batch_size, collate_fn=collate
        )


class Watch(TrainerCallback):
    """Notes when the run begins, and when each step is done."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._steps.begin()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._steps.end()


if __name__ == "__main__":
    main()
