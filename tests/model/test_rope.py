"""Rotary frequencies and rotations against transformers' functions and against complex numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.reference import TINY
from model.tolerances import assert_close
from puna.errors import InputError
from puna.model import LlamaConfig, RopeScaling, preset
from puna.model.rope import rope_frequencies, rotate, rotation

SCALINGS = {
    "default": RopeScaling(),
    "linear": RopeScaling("linear", 4.0),
    "llama3": RopeScaling("llama3", 8.0, 1.0, 4.0, 64),
}


@pytest.mark.parametrize("name", ["llama-7b", "llama-3.1-8b", "llama-3.2-1b", "smollm2-135m"])
def test_published_frequencies_equal_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = preset(name)
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig.from_dict(config.to_hf())).inv_freq
    assert_close(torch.tensor(rope_frequencies(config)), theirs, "frequencies")


def test_llama3_divides_low_frequencies_and_keeps_high_ones() -> None:
    """The three bands of the published formula, with a base that puts frequencies in each."""
    config = replace(TINY, head_dim=32, rope_theta=1000.0, rope_scaling=SCALINGS["llama3"])
    plain = torch.tensor(rope_frequencies(replace(config, rope_scaling=RopeScaling())))
    ratio = plain / torch.tensor(rope_frequencies(config))
    turns = 64 * plain / (2 * torch.pi)  # in the context of pretraining
    assert torch.all(ratio[turns > 4] == 1)
    assert torch.all(ratio[turns < 1] == 8)
    between = ratio[(turns >= 1) & (turns <= 4)]
    assert len(between) > 1
    assert torch.all((between > 1) & (between < 8))
    assert torch.all(between.diff() > 0)


def complex_rotation(x: Tensor, frequencies: tuple[float, ...], positions: Tensor) -> Tensor:
    """The paper's form: pair (i, i + D/2) is a complex number, turned by position x frequency."""
    half = x.shape[-1] // 2
    angle = positions.double()[..., None] * torch.tensor(frequencies, dtype=torch.float64)
    if positions.dim() == 2:
        angle = angle[:, None]
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat((turned.real, turned.imag), -1)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("positions", [torch.arange(7), torch.tensor([[0, 1, 2], [5, 0, 31]])])
def test_rotation_is_a_turn_of_complex_numbers(scaling: str, positions: Tensor) -> None:
    frequencies = rope_frequencies(replace(TINY, rope_scaling=SCALINGS[scaling]))
    x = torch.randn(2, 3, positions.shape[-1], TINY.head_dim)
    turned = rotate(x, rotation(frequencies, positions, torch.float32))
    assert_close(turned, complex_rotation(x, frequencies, positions), "rotary")


def test_angles_are_computed_in_float32_whatever_the_model_is_cast_to() -> None:
    frequencies = rope_frequencies(TINY)
    far = torch.tensor([4097])  # not a bfloat16 number
    wide = rotation(frequencies, far, torch.float32)
    narrow = rotation(frequencies, far, torch.bfloat16)
    assert narrow.cos.dtype == torch.bfloat16
    assert torch.equal(narrow.cos, wide.cos.bfloat16())
    assert torch.equal(narrow.sin, wide.sin.bfloat16())


def test_only_the_distance_counts() -> None:
    """The dot product of a turned query and key depends on how far they are apart."""
    frequencies = rope_frequencies(TINY)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(query: int, key: int) -> Tensor:
        at = [rotation(frequencies, torch.tensor([p]), torch.float32) for p in (query, key)]
        return (rotate(q, at[0]) * rotate(k, at[1])).sum()

    assert_close(score(12, 7), score(5, 0), "attention")


ERRORS = [
    (lambda: RopeScaling("yarn"), "rope scaling 'yarn' is not known"),  # type: ignore[arg-type]
    (lambda: RopeScaling("linear", 0.0), "factor must be positive, not 0.0"),
    (lambda: RopeScaling("llama3", 8.0, 4.0, 4.0), "needs high_freq_factor > low_freq_factor"),
    (lambda: replace(TINY, head_dim=7), "head_dim must be even for rotary embeddings, not 7"),
]


@pytest.mark.parametrize(("make", "message"), ERRORS)
def test_scalings_that_make_no_sense(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(InputError, match=message):
        make()


def test_frequencies_are_numbers_that_no_cast_reaches() -> None:
    assert all(isinstance(f, float) for f in rope_frequencies(TINY))
    assert len(rope_frequencies(LlamaConfig(8, 8, 8, 1, 1, 1, head_dim=10))) == 5
