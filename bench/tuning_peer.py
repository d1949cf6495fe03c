"""The peer's side: transformers' Trainer with peft, on the same batches from the same start."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from bench.tuning_spec import Gauge, Spec

Example = dict[str, list[int]]


def main() -> None:
    gauge = Gauge()
    spec = Spec.read(sys.argv[1])
    torch.set_num_threads(2)
    work = json.loads((Path(spec.shared) / "batches.json").read_text())
    base = LlamaForCausalLM.from_pretrained(spec.base, dtype=torch.float32)
    name = "start-all" if spec.layers is None else f"start-{spec.layers}"
    model = PeftModel.from_pretrained(base, Path(spec.shared) / name, is_trainable=True)
    watch = Watch(gauge)
    side = Side(
        model=model,
        args=arguments(spec),
        train_dataset=work["train"],
        eval_dataset=work["validation"],
        data_collator=collate,
        callbacks=[watch],
    )
    side.work, side.gauge, side.losses = work, gauge, []
    side.train()
    pairs = zip(watch.began, watch.ended, strict=True)
    told = {
        "marks": gauge.marks,
        "grown": gauge.grown(),
        "epoch_seconds": [end - begin for begin, end in pairs],
        "losses": side.losses,
    }
    print(json.dumps(told))


def arguments(spec: Spec) -> TrainingArguments:
    """What a user would set to do the same work."""
    return TrainingArguments(
        output_dir=spec.out,
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=16,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def collate(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Rows padded on the right, as every collator for causal models does it."""
    width = max(len(example["ids"]) for example in examples)
    pads = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    batch = {key: torch.full((len(examples), width), pad) for key, pad in pads.items()}
    for row, example in enumerate(examples):
        size = len(example["ids"])
        ids, trained = torch.tensor(example["ids"]), torch.tensor(example["trained"])
        batch["input_ids"][row, :size] = ids
        batch["labels"][row, :size] = torch.where(trained, ids, -100)
        batch["attention_mask"][row, :size] = 1
    return batch


class Planned:
    """The batches of one epoch after the other, as our side has them."""

    def __init__(self, epochs: list[list[list[int]]]) -> None:
        self.epochs, self.epoch = epochs, 0

    def __iter__(self) -> Iterator[list[int]]:
        self.epoch += 1
        return iter(self.epochs[self.epoch - 1])

    def __len__(self) -> int:
        return len(self.epochs[0])


class Side(Trainer):
    """The Trainer on batches that are given."""

    work: dict[str, Any]
    gauge: Gauge
    losses: list[float]

    def get_train_dataloader(self) -> DataLoader[Any]:
        planned: Any = Planned(self.work["epochs"])
        return DataLoader(self.work["train"], batch_sampler=planned, collate_fn=collate)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Per token, as ours: the Trainer's own is a mean of the batches' means."""
        self.model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in self.work["validation_batches"]:
                inputs = collate([self.work["validation"][index] for index in batch])
                trained = int((inputs["labels"][:, 1:] != -100).sum())
                total += float(self.model(**inputs).loss) * trained
                count += trained
        self.model.train()
        self.losses.append(total / count)
        self.gauge.mark()
        return {"eval_loss": self.losses[-1]}


class Watch(TrainerCallback):
    """Notes when epochs begin and end."""

    def __init__(self, gauge: Gauge) -> None:
        self.gauge = gauge
        self.began: list[float] = []
        self.ended: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.gauge.mark_loaded()

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began.append(self.gauge.seconds())

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.ended.append(self.gauge.seconds())


if __name__ == "__main__":
    main()
