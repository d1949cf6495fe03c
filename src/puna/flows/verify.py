"""Are two checkpoints the same model? Compared on fixed prompts, block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from puna.errors import InputError
from puna.flows.opening import read_config
from puna.model import AttentionSpec, LlamaConfig
from puna.model.streamed import Stage, forward_by_block
from puna.store import Checkpoint
from puna.tokens import Tokenizer

PROMPTS = (
    "The llama is a domesticated South American camelid, widely used as a meat and pack animal.",
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n",
    "大羊驼是南美洲的一种驯养动物,  用来驮运货物。 12345.678 €  naïve 🦙",
)
MAX_PROMPT_TOKENS = 48

KL_BOUNDS = {"exact": 0.0, "float32": 1e-6, "float16": 1e-4, "bfloat16": 5e-3, "q8_0": 2e-2}
"""Mean Kullback-Leibler divergence per token, nats, that each kind of rounding may cost."""


@dataclass(frozen=True)
class Verdict:
    """What the comparison found."""

    rounding: str  # exact, float32, float16, bfloat16 or q8_0: what the conversion may cost
    prompts: int
    tokens: int
    tokenizer: str  # same, or why it was not compared
    largest_difference: float  # of the logits
    mean_kl: float  # nats per token, from source to product
    same_choice: float  # share of tokens whose likeliest successor is the same, 0 to 1

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """What was found, for people."""
        tokens = f"{self.tokens} tokens of {self.prompts} prompts"
        tokenizer = f"tokenizer: {self.tokenizer}"
        if self.rounding == "exact":
            return f"compared with its source: equal bit for bit over {tokens}; {tokenizer}"
        return (
            f"compared with its source: mean KL {self.mean_kl:.2g} nats over {tokens}, "
            f"{self.same_choice:.1%} the same next token; {tokenizer}"
        )


def verify(
    source: Checkpoint,
    product: Checkpoint,
    *,
    tokenizers: tuple[Tokenizer | None, Tokenizer | None],
    rounding: str,
    tick: Callable[[], None],
) -> Verdict:
    """Run both over the same prompts, one block of weights in memory at a time.

    Args:
        source: What was converted.
        product: What came out.
        tokenizers: Of source and product.
        rounding: A key of KL_BOUNDS. `exact` demands equal hidden states after every block.
        tick: Called after each part of each model.

    Raises:
        InputError: They differ; the message names the first part that does, and by how much.
    """
    told = _compare_tokenizers(tokenizers, product)
    config = read_config(source)
    _compare_configs(config, read_config(product), product)
    ids, valid = prompt_ids(tokenizers[0], config.vocab_size)
    spec = AttentionSpec(valid=valid)
    ours = forward_by_block(config, _reader(source), ids, spec)
    theirs = forward_by_block(read_config(product), _reader(product), ids, spec)
    last: tuple[Stage, Stage] | None = None
    while (before := next(ours, None)) is not None:
        tick()
        after = next(theirs)
        tick()
        if rounding == "exact" and not torch.equal(before.values[valid], after.values[valid]):
            gap = (before.values - after.values)[valid].abs().max().item()
            raise _differs(product, f"the output of {before.name} by {gap:.3g}")
        last = (before, after)
    assert last is not None
    before, after = last
    apart = distance(before.values[valid], after.values[valid])
    if not apart.mean_kl <= KL_BOUNDS[rounding]:
        raise _differs(
            product,
            f"the logits by a mean KL of {apart.mean_kl:.3g} nats; "
            f"{KL_BOUNDS[rounding]:g} is allowed",
        )
    return Verdict(rounding, len(ids), int(valid.sum()), told, *apart)


class Distance(NamedTuple):
    """How far the logits of two models lie apart."""

    largest_difference: float
    mean_kl: float  # nats per token
    same_choice: float  # share of tokens


def distance(a: Tensor, b: Tensor) -> Distance:
    """From logits [N, V] to others; a few tokens at a time, since a vocabulary can be large."""
    gap, kl, same = 0.0, 0.0, 0
    for p, q in zip(torch.split(a, 8), torch.split(b, 8), strict=True):
        logp, logq = p.log_softmax(-1), q.log_softmax(-1)
        gap = max(gap, (p - q).abs().max().item())
        kl += (logp.exp() * (logp - logq)).sum().item()
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
    return Distance(gap, max(kl / len(a), 0.0), same / len(a))


def _reader(checkpoint: Checkpoint) -> Callable[[str], Tensor]:
    """Load tensors by name, telling the system to let the previous one's pages go."""
    previous: list[str] = []

    def load(name: str) -> Tensor:
        for old in previous:
            checkpoint.tensors[old].release()
        previous[:] = [name]
        return checkpoint.tensors[name].load()

    return load


def prompt_ids(tokenizer: Tokenizer | None, vocab_size: int) -> tuple[Tensor, Tensor]:
    """What models are compared on: ids [B, T], and which of them are no padding [B, T]."""
    if tokenizer is None:  # any ids will do for a comparison
        drawn = torch.randint(vocab_size, (3, 32), generator=torch.Generator().manual_seed(0))
        return drawn, torch.ones_like(drawn, dtype=torch.bool)
    rows = [row[:MAX_PROMPT_TOKENS] for row in tokenizer.encode_batch(list(PROMPTS))]
    rows = [row for row in rows if row]
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(longest) < lengths[:, None]


def _compare_configs(ours: LlamaConfig, theirs: LlamaConfig, product: Checkpoint) -> None:
    """Refuse a product of another shape, by the first field: short prompts cannot see them all."""
    for (name, before), (_, after) in zip(_shape(ours), _shape(theirs), strict=False):
        if before != after:
            raise _differs(product, f"its config: {name} is {after}, not {before}")


def _shape(config: LlamaConfig) -> list[tuple[str, Any]]:
    """What decides what a model computes; floats as float32, since GGUF stores them so."""
    scaling = config.rope_scaling
    stretched = {
        "default": ("kind",),
        "linear": ("kind", "factor"),
        "llama3": tuple(field.name for field in fields(scaling)),
    }[scaling.kind]
    unseen = ("rope_scaling", "initializer_range")  # the second is for fresh weights only
    plain = [(f.name, getattr(config, f.name)) for f in fields(config) if f.name not in unseen]
    scaled = [(f"rope_scaling.{name}", getattr(scaling, name)) for name in stretched]
    return [
        (name, torch.tensor(value).item() if isinstance(value, float) else value)
        for name, value in plain + scaled
    ]


def _compare_tokenizers(
    tokenizers: tuple[Tokenizer | None, Tokenizer | None], product: Checkpoint
) -> str:
    before, after = tokenizers
    if before is None:
        return "the source has none"
    if after is None:
        raise _differs(product, "the tokenizer, which is gone")
    for text in PROMPTS:
        if before.encode(text) != after.encode(text):
            raise _differs(product, f"the token ids of {text!r}")
        ids = before.encode(text)
        if before.decode(ids) != after.decode(ids):
            raise _differs(product, f"the decoded text of {text!r}")
    if before.chat_template != after.chat_template:
        raise _differs(product, "the chat template")
    if before.stop_ids != after.stop_ids:
        raise _differs(
            product, f"the stop tokens: {sorted(before.stop_ids)} and {sorted(after.stop_ids)}"
        )
    return "same"


def _differs(product: Checkpoint, what: str) -> InputError:
    return InputError(
        f"the product differs from its source in {what}",
        where=product.path.name,
        fix="nothing was written; this is a defect of the conversion, please report it "
        "(--no-verify writes the product all the same)",
    )
