"""What is done to finished blocks from outside: recomputing activations, and compiling."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from puna.errors import InputError


@contextlib.contextmanager
def recomputed(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Keep only the inputs of blocks for the backward pass (Chen et al. 2016, arXiv 1604.06174).

    The parameters keep their names; after the context the blocks are as they were. Dropout draws
    the same numbers in both passes. Blocks that are compiled stay so, within.
    """
    with contextlib.ExitStack() as stack:
        for block in blocks:
            stack.enter_context(_recomputed(block))
        yield


@contextlib.contextmanager
def _recomputed(block: nn.Module) -> Iterator[None]:
    call = block._compiled_call_impl
    if call is None:
        block.__dict__["forward"] = functools.partial(_twice, block.forward)
    else:
        block._compiled_call_impl = functools.partial(_twice, call)
    try:
        yield
    finally:
        block._compiled_call_impl = call
        block.__dict__.pop("forward", None)  # the class has its own


def _twice(call: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return call(*inputs)
    return checkpoint(call, *inputs, use_reentrant=False)


@contextlib.contextmanager
def compiled(blocks: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """Run blocks through torch.compile; after the context they run as written again.

    Raises:
        InputError: The device is a CPU, and there is no C++ compiler for torch to call.
    """
    check_compiler(device)
    changed = list(blocks)
    for block in changed:
        block.compile(dynamic=True)
    try:
        yield
    finally:
        for block in changed:
            block._compiled_call_impl = None


@contextlib.contextmanager
def as_written(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Run compiled blocks as written for a while: surgery and generation would recompile them."""
    stashed = [(block, block._compiled_call_impl) for block in blocks]
    for block, _ in stashed:
        block._compiled_call_impl = None
    try:
        yield
    finally:
        for block, call in stashed:
            block._compiled_call_impl = call


def check_compiler(device: torch.device) -> None:
    """Refuse to compile for a CPU without a C++ compiler.

    Raises:
        InputError: There is none.
    """
    if device.type != "cpu":
        return
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++"]
    if not any(shutil.which(name) for name in names):
        raise InputError(
            f"torch.compile needs a C++ compiler on CPU; found none of {', '.join(names)}",
            fix="install g++, or leave train.compile at false",
        )
