"""The page of a pretraining run: what it claims, and what it says of what is absent."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.flows.pretrain_report import pretrain_page
from puna.flows.pretrain_told import KEPT_STEPS, closing_lines, pretrain_rows, thinned
from puna.report import Page, Verdict, render


def text_of(page: Page) -> str:
    """Everything that a reader sees, with spaces as one."""
    tree = ElementTree.fromstring(render(page))
    return " ".join(" ".join(tree.itertext()).split())


def summary() -> dict[str, Any]:
    steps = [
        {
            "kind": "step",
            "step": n,
            "loss": 5.0 - n / 100,
            "learning_rate": 1e-3,
            "grad_norm": 1.0,
            "tokens_per_second": 4000.0,
            "skipped": False,
        }
        for n in range(1, 201)
    ]
    return {
        "kind": "pretraining run",
        "title": "A small one",
        "asked": {"shards": "runs/s", "tokens": 1_000_000},
        "command": "puna pretrain recipes/pretrain-laptop.yaml --out runs/x",
        "model": {"name": "laptop-10m", "parameters": 8_400_000, "layers": 8},
        "data": {
            "shards": ["runs/s"],
            "vocabulary": {"size": 4096, "identity": "ab" * 32},
            "sources": {
                "python": {
                    "licence": "PSF-2.0",
                    "language": "en",
                    "documents": 9000,
                    "tokens": 900_000,
                    "held_out_documents": 90,
                    "held_out_tokens": 8000,
                },
                "web": {"licence": "CC0-1.0", "documents": 10, "tokens": 100_000},
            },
        },
        "consumed": {
            "python": {"rows": 30, "tokens": 750_000, "epochs": 0.8333},
            "web": {"rows": 10, "tokens": 250_000, "epochs": 2.5},
        },
        "history": steps,
        "evaluations": [
            {
                "kind": "evaluation",
                "step": n,
                "validation_loss": 5 - n / 100,
                "bits_per_byte": 3 - n / 200,
                "bits_per_byte_python": 3 - n / 200,
                "bits_per_byte_web": 4 - n / 200,
                "loss_python": 5 - n / 100,
                "loss_web": 6 - n / 100,
            }
            for n in (100, 200)
        ],
        "held_out": {"validation_loss": 3.0, "bits_per_byte": 2.0, "bits_per_byte_web": 3.0},
        "best_step": 200,
        "training": {"steps": 200, "tokens": 1_000_000, "seconds": 250.0},
        "events": [{"kind": "event", "step": 77, "event": "skipped", "loss": 40.0}],
        "samples": [
            {"step": n, "prompt": "The", "text": f"<b>{n}</b> llamas", "tokens": 4}
            for n in (100, 200)
        ],
        "speed": {
            "flops_per_token": 5e7,
            "peak_flops_per_second": 4e11,
            "peak_from": "measured on a product of two matrices",
            "tokens_per_second": 4000.0,
            "utilisation": 0.5,
        },
        "memory": {
            "predicted": {
                "weights": 3.4e7,
                "activations": 2.6e8,
                "total": 5.4e8,
                "moment": "in the head",
            },
            "peak_bytes": 6e8,
            "resident_bytes": 3e8,
        },
        "ledger": {
            "stages": {"training": {"wall_seconds": 250.0, "energy_joules": 6000.0}},
            "total": {"wall_seconds": 260.0, "energy_joules": 6100.0, "source": "estimate: x"},
            "carbon_grams_per_kwh": 480.0,
        },
        "lineage": [{"kind": "shards", "name": "runs/s", "identity": "cd" * 32}],
        "machine": {"threads": 2},
        "finished": "2026-01-01T00:00:00Z",
        "notes": ["The run was interrupted and continued."],
    }


def test_the_page_says_what_was_read_and_what_came_of_it() -> None:
    page = pretrain_page(summary())
    said = text_of(page)
    assert [section.short for section in page.sections] == [
        "Asked", "Data", "Learning", "Samples", "Events", "Speed", "Memory", "Cost", "Lineage",
        "Repeat",
    ]  # fmt: skip
    assert "it takes 2 bits for a byte of text that it has not seen" in said
    assert "50.0 % utilisation" in said
    assert "75.0 %" in said, "the share of python"
    assert "2.5" in said, "the epochs of web"
    assert "<b>200</b> llamas" in said, "as it was written"
    assert "puna pretrain recipes/pretrain-laptop.yaml --out runs/x" in said
    assert "480 g per kWh of electricity" in said
    assert "Bits per byte, held out" in said
    assert "Model-FLOPs utilisation" in said
    assert "skipped" in said
    assert "The run was interrupted and continued." in said


def test_a_model_that_nothing_was_held_out_for_is_not_judged() -> None:
    told = summary() | {"evaluations": [], "held_out": None}
    page = pretrain_page(told)
    opening = page.opening[0]
    assert isinstance(opening, Verdict)
    assert (opening.tone, opening.word) == ("even", "Not judged")
    assert "No document was held out" in text_of(page)


@pytest.mark.parametrize("part", summary())
@pytest.mark.parametrize("value", ["absent", None, {}, [], math.nan, "text"])
def test_whatever_is_missing_the_page_stands(part: str, value: Any) -> None:
    told = summary()
    if value == "absent":
        del told[part]
    else:
        told[part] = value
    text_of(pretrain_page(told))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*summary(), "step", "loss", "python"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(list(summary())), JSON, max_size=6))
def test_nothing_that_a_summary_holds_breaks_the_page(changes: dict[str, Any]) -> None:
    text_of(pretrain_page(summary() | changes))


def test_steps_that_were_skipped_are_told_without_events() -> None:
    told = summary()
    del told["events"]
    told["history"][6]["skipped"] = True
    assert "1 step taught nothing: 7." in text_of(pretrain_page(told))
    told["history"][6]["skipped"] = False
    assert "No step was skipped" in text_of(pretrain_page(told))


def test_long_histories_are_thinned() -> None:
    rows = [{"step": n, "skipped": n == 7} for n in range(10 * KEPT_STEPS + 3)]
    kept = thinned(rows)
    assert KEPT_STEPS * 0.9 < len(kept) <= KEPT_STEPS + 3
    assert {"step": 7, "skipped": True} in kept
    assert kept[-1] == rows[-1]
    assert thinned(rows[:5]) == rows[:5]
    assert thinned([]) == []


def test_what_the_terminal_is_told() -> None:
    lines = closing_lines(summary())
    assert lines[0] == "validation loss: 3"
    assert "speed: 4,000 tokens/s, 50.0 % of 400 GFLOP/s (measured on a product" in lines[-2]
    assert lines[-1].startswith("memory: 572 MiB at the most, predicted 515 MiB (\u221210 %")
    rows = dict(pretrain_rows(summary()))
    assert rows["model"] == "laptop-10m: 8,400,000 parameters, from fresh weights"
    assert rows["data"] == "python: 900,000 tokens, read 0.8333 times"
    assert rows["training"].startswith("200 steps, 1,000,000 tokens; step 200 was kept")
