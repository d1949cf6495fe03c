"""How one token per sequence is computed: by the model itself, or by compiled kernels on CPU.

Shapes: B batch, V vocab_size.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from puna.model import ContiguousCache, LlamaConfig, LlamaModel
from puna.model.linear import Embedding, Linear
from puna.model.llama import MLP, Attention, Block, Trunk
from puna.model.norm import RMSNorm

MAX_KERNEL_BATCH = 12  # beyond it, matrix products win over one pass per row
_PLAIN = (LlamaModel, Trunk, Block, Attention, MLP, RMSNorm, Linear, Embedding, nn.ModuleList)
_LOCK = threading.Lock()  # one of Numba's thread pools must not be entered twice


class Stepper(Protocol):
    """Computes the next logits."""

    def __call__(self, tokens: Tensor, cache: ContiguousCache) -> Tensor:
        """Token ids [B], one new one per sequence of the cache, to logits [B, V]."""
        ...


class ModelStep:
    """The model's own forward pass: any device, dtype and module."""

    def __init__(self, model: LlamaModel) -> None:
        self.model = model

    def __call__(self, tokens: Tensor, cache: ContiguousCache) -> Tensor:
        """Token ids [B] to logits [B, V]."""
        logits: Tensor = self.model(tokens[:, None], cache=cache)
        return logits[:, -1]


class KernelStep:
    """The same by `step_kernels`, over the model's own weights: nothing is copied."""

    def __init__(self, model: LlamaModel) -> None:
        import numba

        self._kernels = _load_kernels()
        self._threads = min(torch.get_num_threads(), int(numba.config.NUMBA_NUM_THREADS))
        self._set_threads: Callable[[int], None] = numba.set_num_threads
        self.config = model.config
        self._fallback = ModelStep(model)
        self._frequencies = np.array(model.frequencies, np.float32)
        self._embedding = _array(model.model.embed_tokens.weight)
        self._norm = _array(model.model.norm.weight)
        self._head = _array(model.lm_head.weight)
        self._blocks = [_block_arrays(block) for block in model.model.layers]
        self._work = _Work(model.config, 1, 0)

    def __call__(self, tokens: Tensor, cache: ContiguousCache) -> Tensor:
        """Token ids [B] to logits [B, V]."""
        batch = len(tokens)
        if batch > MAX_KERNEL_BATCH:
            return self._fallback(tokens, cache)
        cache.check_room(1)
        work = self._buffers(batch, cache.max_tokens)
        positions = np.array(cache.lengths, np.int64)
        window = self.config.window_tokens or cache.max_tokens
        spans = np.stack((np.maximum(positions + 1 - window, 0), positions + 1), 1)
        turn = positions.astype(np.float32)[:, None] * self._frequencies
        angles = np.stack((np.cos(turn), np.sin(turn)))
        eps = np.float32(self.config.rms_norm_eps)
        x = self._embedding[tokens.numpy()]
        logits = np.empty((len(self._head), batch), np.float32)
        with _LOCK, _own_threads():
            self._set_threads(self._threads)
            for (attention, mlp), k, v in zip(self._blocks, cache.keys, cache.values, strict=True):
                self._kernels.attention_step(
                    x, attention, (k.numpy(), v.numpy()), angles, spans, eps, work.attention
                )
                self._kernels.mlp_step(x, mlp, eps, work.mlp)
            self._kernels.head_step(x, self._norm, self._head, eps, work.normed, logits)
        cache.advance([1] * batch)
        return torch.from_numpy(logits).t()

    def _buffers(self, batch: int, slots: int) -> _Work:
        if (self._work.batch, self._work.slots) != (batch, slots):
            self._work = _Work(self.config, batch, slots)
        return self._work


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """Torch computes with as many threads afterwards as before.

    Numba starts its threads at the first call, and tells the OpenMP that both use how many: torch
    would go on with that many, and would round in another way than before.
    """
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


class _Work:
    """Scratch memory of a step, kept between steps."""

    def __init__(self, shape: LlamaConfig, batch: int, slots: int) -> None:
        self.batch, self.slots = batch, slots
        queries = shape.num_attention_heads * shape.head_dim
        keys = shape.num_key_value_heads * shape.head_dim
        most = max(queries + 2 * keys, shape.hidden_size, shape.intermediate_size)
        self.normed = _empty(batch, shape.hidden_size)
        rows, scores = _empty(most, 2, batch), _empty(batch, shape.num_attention_heads, slots)
        heads, mixed = _empty(batch, queries), _empty(batch, queries)
        self.attention = (self.normed, heads, mixed, scores, rows)
        self.mlp = (self.normed, _empty(batch, shape.intermediate_size), rows)


def _empty(*sizes: int) -> Any:
    return np.empty(sizes, np.float32)


def _load_kernels() -> ModuleType:
    try:
        from puna.generate import step_kernels
    except RuntimeError:  # nowhere to keep compiled code: neither beside the source nor at home
        import numba

        place = tempfile.TemporaryDirectory(prefix="puna-kernels-")
        atexit.register(place.cleanup)
        numba.config.CACHE_DIR = place.name
        from puna.generate import step_kernels
    return step_kernels


def choose_step(model: LlamaModel, *, kernels: bool = True) -> Stepper:
    """Kernels where they serve: wanted, installed, and a plain float32 model on the CPU."""
    if kernels and kernels_missing(model) is None:
        return KernelStep(model)
    return ModelStep(model)


def kernels_missing(model: LlamaModel) -> str | None:
    """Why compiled kernels do not serve this model; None when they do."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed: pip install 'puna[fast]'"
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu" or parameter.dtype is not torch.float32:
            return f"{name} is {parameter.dtype} on {parameter.device}, not float32 on the CPU"
        if not parameter.is_contiguous():
            return f"{name} is not contiguous"
    for name, module in model.named_modules():
        if type(module) not in _PLAIN:
            return f"{name} is a {type(module).__name__}"
        if isinstance(module, nn.Linear) and module.bias is not None:
            return f"{name} has a bias"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name or 'the model'} has hooks"
    try:  # last, since it takes half a second the first time
        import numba  # noqa: F401 - whether it can be
    except ImportError as error:
        return f"numba cannot be imported: {error}"
    return None


def warm_up(model: LlamaModel) -> float:
    """Compile the kernels for this model, or fetch them from Numba's cache; returns seconds.

    Does nothing for a model that they do not serve.
    """
    if kernels_missing(model) is not None:
        return 0.0
    began = time.perf_counter()
    with torch.inference_mode():
        cache = ContiguousCache(model.config, batch=1, max_tokens=1)
        KernelStep(model)(torch.zeros(1, dtype=torch.long), cache)
    return time.perf_counter() - began


def _block_arrays(block: nn.Module) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    assert isinstance(block, Block)
    own, mlp = block.self_attn, block.mlp
    attention = (block.input_layernorm, own.q_proj, own.k_proj, own.v_proj, own.o_proj)
    swiglu = (block.post_attention_layernorm, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    return (
        tuple(_array(module.weight) for module in attention),
        tuple(_array(module.weight) for module in swiglu),
    )


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()
