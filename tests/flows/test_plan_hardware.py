"""Devices by name, by figures, and this one."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import InputError
from puna.flows import plan_here
from puna.flows.plan_hardware import GB, HARDWARE, find_hardware, parse_number


@pytest.mark.parametrize("name", HARDWARE)
def test_every_row_says_where_it_is_from(name: str) -> None:
    row = HARDWARE[name]
    assert row.name == name
    assert len(row.source) > 15
    assert row.utilisation_source
    assert (row.dollars_per_hour is None) == (not row.price_source)
    assert find_hardware(name.upper()) == row


def test_published_rates() -> None:
    a100 = HARDWARE["a100-80gb"]
    assert (a100.flops("bfloat16"), a100.flops("float32")) == (312e12, 19.5e12)
    assert (a100.memory_bytes, a100.watts) == (80 * GB, 400)
    assert HARDWARE["h100-sxm"].flops("bfloat16") == 989e12
    t4 = HARDWARE["t4"]
    assert (t4.dtype, t4.flops("bfloat16")) == ("float32", 8.1e12)


def test_figures_of_ones_own() -> None:
    row = find_hardware("a100-80gb, price=1.1,memory=79GB, utilisation=0.5")
    assert row.name == "a100-80gb, changed"
    assert (row.dollars_per_hour, row.price_source) == (1.1, "as given")
    assert (row.memory_bytes, row.watts) == (79 * GB, 400)
    assert (row.utilisation, row.utilisation_source) == (0.5, "as given")


def test_figures_alone() -> None:
    row = find_hardware("flops=312T,memory=80G,watts=400,price=2")
    assert row.flops("float32") == row.flops("bfloat16") == 312e12
    assert (row.memory_bytes, row.watts, row.dollars_per_hour) == (80 * GB, 400, 2)
    apart = find_hardware("float32=20T,bfloat16=300T,memory=80G,watts=400")
    assert (apart.flops("float32"), apart.flops("bfloat16")) == (20e12, 300e12)


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("a100", "there is no hardware 'a100'\n  fix: nearest: a100-80gb, a100-40gb; known: here"),
        ("?", "there is no hardware '?'\n  fix: known: here, two-cores, t4"),
        ("h200,prize=3", "h200,prize=3: 'prize=3' is no figure of a device\n  fix: did you mean "),
        ("h200,3", "h200,3: '3' is no figure of a device\n  fix: known: flops="),
        ("flops=1T,watts=5", "flops=1T,watts=5: the description of the hardware lacks memory\n"),
        ("h200,price=cheap", "price: 'cheap' is no number\n  fix: such as 300M, 1.4T"),
        ("h200,utilisation=2", "utilisation is a share above 0 and up to 1, not 2"),
        ("flops=0,memory=8G,watts=4", "float32_flops must be positive, not 0"),
        ("", "there is no hardware ''"),
    ],
)
def test_what_is_refused(description: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        find_hardware(description)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("300M", 300e6),
        ("1.4T", 1.4e12),
        ("1.4B", 1.4e9),
        ("80GB", 80e9),
        ("2e12", 2e12),
        ("1_000", 1000),
        ("1,000,000", 1e6),
        ("12 k", 12e3),
    ],
)
def test_numbers_with_units(text: str, value: float) -> None:
    assert parse_number(text, "tokens") == pytest.approx(value, rel=1e-12)


@given(st.text(max_size=12))
def test_no_text_breaks_the_reading(text: str) -> None:
    try:
        assert 0 <= parse_number(text, "tokens") < float("inf")
    except InputError as error:
        assert str(error).startswith("tokens: ")
    try:
        find_hardware(text)
    except InputError as error:
        assert str(error)


@given(st.floats(1e-3, 1e15, allow_nan=False))
def test_plain_numbers_are_themselves(value: float) -> None:
    assert parse_number(repr(value), "tokens") == value


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, torch.dtype]] = []

    def rate(device: torch.device, dtype: torch.dtype) -> float:
        asked.append((device.type, dtype))
        return 1e11

    monkeypatch.setattr(plan_here, "matrix_rate", rate)
    monkeypatch.setattr(plan_here, "default_device", lambda: torch.device("cpu"))
    row = plan_here.hardware_here()
    assert asked == [("cpu", torch.float32)]
    assert (row.flops("float32"), row.cuda) == (1e11, False)
    assert row.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert row.name.startswith("this machine, ")


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("Tesla T4", "t4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("Quadro 9000", None),
    ],
)
def test_cards_are_recognised(card: str, name: str | None) -> None:
    row = plan_here._row_of(card)
    assert (None if row is None else row.name) == name
