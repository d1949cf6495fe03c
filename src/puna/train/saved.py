"""What the backward pass of a block keeps of its forward pass, tensor by tensor.

Written from `puna.model` and `puna.tune`, with every tensor counted once that several operations
share; `tests/train/test_saved.py` holds it against what autograd really keeps.

Shapes: N tokens of a micro-batch, M hidden_size, F intermediate_size, H query heads, D head_dim,
Q = H x D, R rank, S width of a bottleneck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from puna.model import Block, LlamaConfig
from puna.model.linear import Linear
from puna.tune.bottleneck import AfterAttention, AfterMLP, BesideMLP, Bottleneck
from puna.tune.dora import DoraLinear
from puna.tune.lora import LoraLinear
from puna.tune.top import Master

FLOAT32_BYTES = 4
INDEX_BYTES = 8
SUBLAYERS = (AfterAttention, AfterMLP, BesideMLP)


@dataclass(frozen=True)
class Scale:
    """How much goes through a block at once, and by which kernels."""

    rows: int
    """Of a micro-batch."""
    row_tokens: int
    """Tokens of a row."""
    documents: int
    """Of all rows together; as many as rows where a row attends as a whole."""
    itemsize: int
    """Bytes of a scalar of the computation."""
    cuda: bool
    """Whether norms and dropout are the fused kernels of a GPU."""

    @property
    def fused(self) -> bool:
        """Whether the model has functions of its own for norms and gated products."""
        return not self.cuda and self.itemsize == FLOAT32_BYTES

    @property
    def tokens(self) -> int:
        """Of the micro-batch."""
        return self.rows * self.row_tokens

    @property
    def separate(self) -> bool:
        """Whether rows hold documents that do not see one another."""
        return self.documents > self.rows


@dataclass
class Kept:
    """Bytes by tensor."""

    scale: Scale
    tensors: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, width: float, itemsize: int | None = None) -> None:
        """A tensor of `width` scalars per token; the computation's dtype by default."""
        size = self.scale.itemsize if itemsize is None else itemsize
        self.tensors[name] = round(self.scale.tokens * width * size)

    def add_whole(self, name: str, nbytes: int) -> None:
        """A tensor whose size does not depend on the tokens."""
        if nbytes:
            self.tensors[name] = nbytes


def kept_of_block(
    block: Block, config: LlamaConfig, scale: Scale, *, first: bool = False
) -> Mapping[str, int]:
    """Bytes that autograd keeps of one block's forward pass, by tensor.

    Parameters are not counted, nor the angles of the rotations, which all blocks share.

    Args:
        block: As it is trained, with what a method has put in it; the meta device is enough.
        config: Of the model.
        scale: Of the micro-batch.
        first: No gradient is wanted of the block's input.
    """
    kept, stream = Kept(scale), not first  # whether gradients go through the residual stream
    norm = block.input_layernorm
    tracked = _norm(kept, "input_layernorm", norm, config, tracked=stream)
    attention = _inside(block.self_attn, SUBLAYERS)
    tracked = _attention(kept, attention, config, tracked=tracked)
    stream |= _bottleneck(kept, "after attention", block.self_attn, tracked=tracked) or tracked
    norm = block.post_attention_layernorm
    given = _norm(kept, "post_attention_layernorm", norm, config, tracked=stream)
    tracked = _mlp(kept, _inside(block.mlp, SUBLAYERS), config, tracked=given)
    beside = isinstance(block.mlp, BesideMLP)
    shared = beside and "input of gate_proj and up_proj" in kept.tensors
    tracked = given if beside else tracked
    _bottleneck(kept, "of the MLP", block.mlp, tracked=tracked, shares_input=shared)
    return kept.tensors


def _norm(kept: Kept, name: str, norm: nn.Module, config: LlamaConfig, *, tracked: bool) -> bool:
    """Of a norm: its input and one number per token; composed, also the normalised values.

    `tracked` is, here and below, whether the input has a gradient; returns whether the result has.
    """
    width, learns = config.hidden_size, _learns(norm)
    if kept.scale.cuda or kept.scale.fused:
        if tracked or learns:
            kept.add(f"{name}: input", width)
            kept.add(f"{name}: root mean square", 1, FLOAT32_BYTES)
        return tracked or learns
    if tracked:  # a composite of small operations, in float32 whatever the dtype is
        kept.add(f"{name}: input", width, FLOAT32_BYTES)
        kept.add(f"{name}: root mean square", 1, FLOAT32_BYTES)
    if learns:
        kept.add(f"{name}: normalised", width, FLOAT32_BYTES)
    return tracked or learns


def _attention(kept: Kept, attention: nn.Module, config: LlamaConfig, *, tracked: bool) -> bool:
    names = ("q_proj", "k_proj", "v_proj")
    if _linears(kept, attention, names, tracked=tracked):
        kept.add("input of q_proj, k_proj and v_proj", config.hidden_size)
    learning = sum(tracked or _learning(attention.get_submodule(name)) for name in names)
    out = attention.get_submodule("o_proj")
    needs_input = _linear(kept, "o_proj", out, tracked=learning > 0)
    if learning:
        _attended(kept, config, learning, joined=needs_input)
    elif needs_input:
        kept.add("attended", config.num_attention_heads * config.head_dim)
    return learning > 0 or _learning(out)


def _attended(kept: Kept, config: LlamaConfig, learning: int, *, joined: bool) -> None:
    """Of the attention itself, where `learning` of its three inputs have a gradient."""
    scale, queries = kept.scale, config.num_attention_heads * config.head_dim
    # Keys and values are repeated to the number of query heads before they are attended to.
    wide = {"queries": 1.0, "keys": 1.0, "values": 1.0}
    if scale.separate and scale.rows > 1 and not scale.cuda:
        # Each document takes copies of its whole row.
        copies = scale.documents / scale.rows
        repeated = config.num_attention_heads > config.num_key_value_heads
        wide = {"queries": copies, "keys": 1.0 if repeated else copies}
        wide["values"] = wide["keys"]
        # The number of its row, wherever that is sliced from or put into.
        kept.add_whole("rows of documents", scale.documents * (learning + 1) * INDEX_BYTES)
    for name, share in wide.items():
        kept.add(name, queries * share)
    kept.add("attended", queries)
    kept.add("log of the softmax's sum", config.num_attention_heads, FLOAT32_BYTES)
    if scale.separate and joined and not scale.cuda:
        kept.add("attended, joined", queries)


def _mlp(kept: Kept, mlp: nn.Module, config: LlamaConfig, *, tracked: bool) -> bool:
    inner, names = config.intermediate_size, ("gate_proj", "up_proj")
    if _linears(kept, mlp, names, tracked=tracked):
        kept.add("input of gate_proj and up_proj", config.hidden_size)
    tracked = tracked or any(_learning(mlp.get_submodule(name)) for name in names)
    if tracked:
        kept.add("gate", inner)
        kept.add("up", inner)
    out = mlp.get_submodule("down_proj")
    formed_again = kept.scale.fused and type(out) is Linear
    if _linear(kept, "down_proj", out, tracked=tracked) and not formed_again:
        kept.add("input of down_proj", inner)
    return tracked or _learning(out)


def _linears(kept: Kept, parent: nn.Module, names: tuple[str, ...], *, tracked: bool) -> bool:
    """The same of layers that share an input: whether one of them keeps it."""
    keeps = [_linear(kept, name, parent.get_submodule(name), tracked=tracked) for name in names]
    return any(keeps)


def _linear(kept: Kept, name: str, layer: nn.Module, *, tracked: bool) -> bool:
    """Add what a linear layer keeps beside its input; returns whether it keeps the input."""
    if not isinstance(layer, LoraLinear):
        if isinstance(layer, Master):
            kept.add_whole(f"{name}: weight, cast", _cast_bytes(layer, kept.scale))
        return _learns(layer)
    rank, ins = layer.lora_A.shape
    kept.add(f"{name}: low", rank)
    if kept.scale.itemsize != FLOAT32_BYTES:
        cast = (layer.lora_A.numel() + layer.lora_B.numel()) * kept.scale.itemsize
        kept.add_whole(f"{name}: factors, cast", cast)
    if isinstance(layer, DoraLinear):
        outs = layer.lora_B.shape[0]
        kept.add(f"{name}: before its lengths", outs)
        kept.add_whole(f"{name}: lengths", outs * (FLOAT32_BYTES + kept.scale.itemsize))
    if not layer.numbers.dropout:
        return True
    kept.add(f"{name}: dropped input", ins)
    if tracked:
        kept.add(f"{name}: what was dropped", ins, 1 if kept.scale.cuda else None)
    return False


def _bottleneck(
    kept: Kept, name: str, sublayer: nn.Module, *, tracked: bool, shares_input: bool = False
) -> bool:
    """Add what a bottleneck keeps; returns whether there is one."""
    if not isinstance(sublayer, SUBLAYERS):
        return False
    adapter: Bottleneck = sublayer.adapter
    size, width = adapter.down_weight.shape
    if adapter.config.dropout:
        kept.add(f"bottleneck {name}: dropped input", width)
        if tracked:
            kept.add(f"bottleneck {name}: what was dropped", width, 1 if kept.scale.cuda else None)
    elif not shares_input:
        kept.add(f"bottleneck {name}: input", width)
    kept.add(f"bottleneck {name}: inside", size)
    if adapter.config.activation != "relu":  # relu's result is all that relu keeps
        kept.add(f"bottleneck {name}: before its activation", size)
    if kept.scale.itemsize != FLOAT32_BYTES:
        cast = sum(p.numel() for p in (adapter.down_weight, adapter.up_weight))
        kept.add_whole(f"bottleneck {name}: weights, cast", cast * kept.scale.itemsize)
    return True


def _learning(layer: nn.Module) -> bool:
    """Whether a linear layer gives its result a gradient whatever it is given."""
    return isinstance(layer, LoraLinear) or _learns(layer)


def _learns(layer: nn.Module) -> bool:
    """Whether the weight of a single layer learns."""
    weight = (layer.inner if isinstance(layer, Master) else layer).weight
    assert isinstance(weight, nn.Parameter)
    return weight.requires_grad


def _cast_bytes(layer: Master, scale: Scale) -> int:
    return sum(p.numel() for p in layer.inner.parameters() if p.dim() > 1) * scale.itemsize


def _inside(module: nn.Module, wrappers: tuple[type[nn.Module], ...]) -> nn.Module:
    if not isinstance(module, wrappers):
        return module
    base = module.base
    assert isinstance(base, nn.Module)
    return base
