"""Putting a tuning on a model, taking it off, switching between several, and merging one.

Every tuning keeps what it stands in the place of, so all of these are the same act: at each place
either what was there, what learns, or the merged result stands. Several tunings of one model each
stand on the plain base, never on one another; one at a time is in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from puna.errors import InputError
from puna.model import LlamaModel
from puna.model.linear import Embedding, Linear
from puna.tune.method import Method, MethodConfig, Place
from puna.tune.registry import method_of

_KEY = "attached_tunings"  # the attribute of a model that holds what is attached to it


class _Attached:
    """What is attached to one model; lives and dies with it."""

    def __init__(self, model: LlamaModel) -> None:
        self.learning = {name: p.requires_grad for name, p in model.named_parameters()}
        self.tunings: dict[str, Tuned] = {}
        self.active: str | None = None


class Tuned:
    """One tuning of one model: what learns, and the ways on, off and into the base."""

    def __init__(self, model: LlamaModel, config: MethodConfig, name: str, method: Method) -> None:
        self.model, self.config, self.name, self.method = model, config, name, method
        self.places: list[Place] = []
        self.notes = method.notes

    @property
    def start(self) -> int:
        """The lowest block that learns or is changed; their number where only the head does."""
        return max(0, min(place.level for place in self.places))

    @property
    def has_trunk(self) -> bool:
        """Whether the embedding and the blocks [0, start) are those of the base."""
        return min(place.level for place in self.places) >= 0

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by the names that the file has; the order is that of the forward pass."""
        prefix = self.method.prefix
        return {
            f"{prefix}{place.path}.{name}": parameter
            for place in self.places
            for name, parameter in place.parameters.items()
        }

    def tensors(self) -> dict[str, Tensor]:
        """The values of `parameters()`; they share memory with them."""
        return {name: parameter.detach() for name, parameter in self.parameters().items()}

    def trainable_count(self) -> int:
        """How many numbers learn."""
        return sum(parameter.numel() for parameter in self.parameters().values())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take other values for everything that learns.

        Raises:
            InputError: A tensor is missing, unknown, of another shape, or not of numbers; nothing
                has been changed then.
        """
        own = self.parameters()
        for name in tensors:
            if name not in own:
                raise InputError(f"tensor {name!r} has no place in this tuning")
        for name, parameter in own.items():
            _check_fit(name, parameter, tensors.get(name))
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensors[name])

    def set_train(self, mode: bool) -> None:
        """Dropout on (True) or off."""
        for place in self.places:
            place.tuned.train(mode)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base, exactly, for as long as the context lasts.

        Raises:
            InputError: The method changes the base itself.
        """
        self._demand(self.method.detachable, "be taken off: it has no copy of the base")
        before = active(self.model)
        use(self.model, None)
        try:
            yield
        finally:
            use(self.model, before)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Plain modules with this tuning merged in, for as long as the context lasts.

        The tuning itself is back afterwards, bit for bit. The copies take as much memory as the
        weights that are tuned.

        Raises:
            InputError: The method cannot be merged.
        """
        plain = self._plain()
        before = active(self.model)
        _switch(self.model, self.name)
        _put(self, plain)
        try:
            yield
        finally:
            for place in self.places:
                place.put(place.tuned)
            _switch(self.model, before)

    def merge(self) -> None:
        """Make the tuning part of the model for good: plain modules under the base's names.

        Raises:
            InputError: The method cannot be merged, or other tunings stand on the same base.
        """
        others = [name for name in attached(self.model) if name != self.name]
        if others:
            raise InputError(
                f"{self.name!r} cannot be merged while others stand on the same base: "
                f"{', '.join(others)}",
                fix="detach them first, or merge into a model loaded for it",
            )
        plain = self._plain()
        _switch(self.model, self.name)
        _put(self, plain)
        _forget(self)

    def detach(self) -> None:
        """Take the tuning off for good: the model is as it was before, bit for bit.

        Raises:
            InputError: The method changes the base itself.
        """
        self._demand(self.method.detachable, "be taken off: it has no copy of the base")
        if active(self.model) == self.name:
            use(self.model, None)
        _forget(self)

    def _plain(self) -> list[nn.Module]:
        self._demand(self.method.mergeable, "be merged: it is no change of weights")
        return [place.plain() for place in self.places if place.plain is not None]

    def _demand(self, can: bool, what: str) -> None:
        if _attachments(self.model).tunings.get(self.name) is not self:
            raise InputError(f"the tuning {self.name!r} is no longer on its model")
        if not can:
            raise InputError(f"the method {self.config.method!r} cannot {what}")


def attach(
    model: LlamaModel, config: MethodConfig, *, seed: int = 0, name: str = "default"
) -> Tuned:
    """Make a model tunable: everything is frozen but what the method adds or frees.

    Move the model to its device before; what is kept aside of it does not follow later.

    Args:
        model: Its modules must be plain, or wrapped by `attach` itself.
        config: Of the method.
        seed: Of the starting values.
        name: To switch by, where several are attached.

    Returns:
        The tuning, in use.

    Raises:
        InputError: The name is taken, the method does not share a model with others, or it finds
            nothing to work on. The model is as it was then.
    """
    method = method_of(config)
    _check_company(model, method, name)
    tuned = Tuned(model, config, name, method)
    state = _attachments(model)
    before, generator = state.active, torch.Generator().manual_seed(seed)
    _switch(model, None)
    try:
        for place in method.places(model, generator):
            tuned.places.append(place)
            if place.base is None:  # then nothing else keeps it alive, and it can go
                place.put(place.tuned)
    except BaseException:
        _switch(model, before)
        raise
    tuned.notes = method.notes
    if not state.tunings:
        vars(model)[_KEY] = state
        _freeze(model, tuned)
    state.tunings[name] = tuned
    _switch(model, name)
    return tuned


def use(model: LlamaModel, name: str | None) -> None:
    """Put the tuning of this name in use; None is the base.

    Raises:
        InputError: There is no such tuning, or the one in use cannot be taken off.
    """
    state = _attachments(model)
    if name is not None and name not in state.tunings:
        known = ", ".join(state.tunings) or "none"
        raise InputError(f"no tuning {name!r} is attached", fix=f"attached: {known}")
    if state.active is not None and state.active != name:
        tuned = state.tunings[state.active]
        tuned._demand(tuned.method.detachable, "be taken off: it has no copy of the base")
    _switch(model, name)


def active(model: LlamaModel) -> str | None:
    """The name of the tuning in use; None where the model is its base."""
    return _attachments(model).active


def attached(model: LlamaModel) -> tuple[str, ...]:
    """The names of all tunings on a model, in the order of their coming."""
    return tuple(_attachments(model).tunings)


def _attachments(model: LlamaModel) -> _Attached:
    state = vars(model).get(_KEY)
    return state if isinstance(state, _Attached) else _Attached(model)


def _switch(model: LlamaModel, name: str | None) -> None:
    state = _attachments(model)
    if state.active == name:
        return
    if state.active is not None:
        for place in state.tunings[state.active].places:
            if place.base is not None:
                place.put(place.base)
    state.active = name
    if name is not None:
        for place in state.tunings[name].places:
            place.put(place.tuned)


def _put(tuned: Tuned, plain: list[nn.Module]) -> None:
    """Let merged modules stand in the places of a tuning, tied weights tied again."""
    for place, module in zip(tuned.places, plain, strict=True):
        place.put(module)
    head, embedding = tuned.model.lm_head, tuned.model.model.embed_tokens
    tied = tuned.model.config.tie_word_embeddings
    if tied and isinstance(head, Linear) and isinstance(embedding, Embedding):
        head.weight = embedding.weight


def _freeze(model: LlamaModel, tuned: Tuned) -> None:
    model.requires_grad_(False)
    for parameter in tuned.parameters().values():
        parameter.requires_grad_(True)


def _forget(tuned: Tuned) -> None:
    """Strike a tuning off; with the last one goes every trace."""
    model = tuned.model
    state = _attachments(model)
    del state.tunings[tuned.name]
    if state.active == tuned.name:
        state.active = None
    if not state.tunings:
        del vars(model)[_KEY]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(state.learning.get(name, False))


def _check_company(model: LlamaModel, method: Method, name: str) -> None:
    state = _attachments(model)
    if name in state.tunings:
        raise InputError(f"a tuning {name!r} is attached already", fix="give it another name")
    for other in state.tunings.values():
        if not (other.method.detachable and method.detachable):
            raise InputError(
                f"{name!r} and {other.name!r} cannot share a model: one of them changes the base",
                fix="load the model once for each",
            )


def _check_fit(name: str, parameter: nn.Parameter, tensor: Tensor | None) -> None:
    if tensor is None:
        raise InputError(f"tensor {name!r} is missing")
    if tensor.shape != parameter.shape:
        raise InputError(
            f"tensor {name!r}: expected the shape {list(parameter.shape)}, "
            f"found {list(tensor.shape)}"
        )
    if not tensor.is_floating_point():
        raise InputError(f"tensor {name!r}: expected floating numbers, found {tensor.dtype}")
