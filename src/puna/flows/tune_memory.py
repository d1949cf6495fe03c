"""The memory that a tuning run is predicted to take, and what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from puna.flows.plan_subject import stays_mapped
from puna.model import count
from puna.tokens.batches import plan
from puna.train.footprint import Footprint, Setting, predict

if TYPE_CHECKING:
    from puna.flows.tuning import Workbench

DTYPES = ("float32", "bfloat16")


def tuning_footprint(bench: Workbench) -> Footprint | None:
    """Predicted for the largest batch of the first epoch, before the method is on the base.

    None where nothing is known of it: another device or dtype, or a base that is no plain model.
    """
    recipe, base, device = bench.recipe, bench.base, bench.device.type
    dtype = str(bench.told_model["dtype"])
    tensors = list(base.model.parameters())
    plain = not base.tunings and len({tensor.dtype for tensor in tensors}) == 1
    whole = sum(tensor.numel() for tensor in tensors) == count(base.model.config).parameters
    if device not in ("cpu", "cuda") or dtype not in DTYPES or not (plain and whole):
        return None
    rows, width, documents, trained = _largest(bench)
    return predict(
        Setting(
            base.model.config,
            rows=rows,
            row_tokens=width,
            method=recipe.method,
            trained_tokens=trained,
            documents=documents,
            dtype="bfloat16" if dtype == "bfloat16" else "float32",
            optimizer=recipe.train.optim.kind,
            activation_checkpointing=recipe.train.activation_checkpointing,
            micro_batches=recipe.train.micro_batches,
            device="cpu" if device == "cpu" else "cuda",
            mapped=device == "cpu" and stays_mapped(base.checkpoint, dtype),
        )
    )


def told_memory(
    footprint: Footprint | None, resident_bytes: int, peak_bytes: int | None
) -> dict[str, Any]:
    """Plain data, bytes.

    Args:
        footprint: As predicted; None: it was not.
        resident_bytes: What was held, the base included, before the method was put on it.
        peak_bytes: The highest of the training.
    """
    told: dict[str, Any] = {"resident_bytes": resident_bytes, "peak_bytes": peak_bytes}
    if footprint is not None:
        above = footprint.above(resident_bytes)
        told["predicted"] = above.to_dict()
        if peak_bytes:
            told["sentence"] = above.against(peak_bytes)
    return told


def _largest(bench: Workbench) -> tuple[int, int, int, int]:
    """Of the batch with most tokens, padding counted: rows, their width, documents, targets."""
    recipe, examples = bench.recipe, bench.data.examples["train"]
    lengths = [len(example) for example in examples]
    batches = plan(lengths, recipe.batches, seed=recipe.train.seed, epoch=0)
    sizes = [(len(batch), max(sum(lengths[i] for i in row) for row in batch)) for batch in batches]
    place = max(range(len(sizes)), key=lambda number: sizes[number][0] * sizes[number][1])
    members = [index for row in batches[place] for index in row]
    trained = sum(int(examples[index].trained[1:].sum()) for index in members)
    rows, width = sizes[place]
    return rows, width, len(members), max(trained, 1)
