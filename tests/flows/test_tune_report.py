"""The page of a tuning run: what it claims, and what it says of what is absent."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.flows.tune_report import compare_page, tune_page
from puna.report import Page, Verdict, render
from report.summaries import bleu, change, compared, history, summary


def text_of(page: Page) -> str:
    """Everything that a reader sees, with spaces as one."""
    tree = ElementTree.fromstring(render(page))
    return " ".join(" ".join(tree.itertext()).split())


def opening(told: dict[str, Any]) -> Verdict:
    part = tune_page(told).opening[0]
    assert isinstance(part, Verdict)
    return part


def test_the_page_begins_with_the_result_and_ends_with_the_command():
    page = tune_page(summary())
    said = text_of(page)
    assert opening(summary()).tone == "good"
    assert "BLEU rose from 2.1 (95 % interval 1.5 to 2.7) to 29.5 (27.1 to 31.9)." in said
    assert "over the same 200 examples: +27.4 (+25.1 to +29.7), p < 0.001" in said
    assert "Of 5 metrics: 4 better, 1 not proven either way." in said
    shorts = [section.short for section in page.sections]
    assert shorts == [
        "Asked", "Data", "Learning", "Quality", "Samples", "Cost", "Cache", "Lineage", "Repeat",
    ]  # fmt: skip
    assert "puna tune recipes/translate.yaml --method.rank 8 --output runs/fr" in said


def test_every_figure_carries_where_it_comes_from():
    said = text_of(tune_page(summary()))
    assert "nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1" in said
    assert "estimate: 551.4 CPU-seconds x 12 W" in said
    assert "480 g per kWh of electricity" in said
    assert "0.73 % of the model" in said
    assert "untranslated 118" in said
    assert "1 step with a loss that was not finite: 200. Nothing was learnt in it." in said
    assert "41d0" * 16 in said


def test_twenty_samples_stand_side_by_side():
    written = render(tune_page(summary()))
    assert len(re.findall('<article class="sample">', written)) == 20
    assert "&lt;b&gt;ligne&lt;/b&gt;" in written
    assert written.count("same as reference") == 9  # 3 x 3 that are equal, one of 21 left out


def test_no_gain_is_said_at_the_top():
    told = summary() | {"after": {"metrics": {"bleu": bleu(2.4, 0.7)}}}
    told["paired"] = {"bleu": change(0.3, 0.8, 0.4)}
    said = opening(told)
    assert said.word == "No proven gain"
    assert said.sentence.startswith("No gain is shown")


def test_the_named_metric_decides_else_the_first():
    told = summary()
    assert opening(told).unit == "BLEU"
    told["metric"] = "perplexity"
    assert opening(told).unit == "Perplexity, lower is better"
    del told["metric"]
    told["asked"]["train"]["best_metric"] = "chrf"
    assert opening(told).unit == "chrF"


PARTS = tuple(summary())


@pytest.mark.parametrize("absent", PARTS)
def test_any_part_may_be_absent(absent):
    told = summary()
    del told[absent]
    assert len(text_of(tune_page(told))) > 1000
    assert len(text_of(tune_page(told | {absent: None}))) > 1000


def test_a_run_that_recorded_nothing_says_so():
    said = text_of(tune_page({}))
    for sentence in (
        "The tuned model was not judged on a test set.",
        "The run recorded no recipe.",
        "Neither the base nor the tuned model was judged on a test set.",
        "No samples were generated.",
        "The run recorded no cost.",
        "The run recorded no figures of a trunk cache.",
        "The run recorded no command.",
    ):
        assert sentence in said


def test_without_a_test_set_the_loss_is_no_proof():
    told = {k: v for k, v in summary().items() if k not in ("before", "after", "paired")}
    said = opening(told)
    assert said.word == "Not judged"
    assert "Validation loss went from 1.62 to 1.41" in said.detail
    assert "no proof of better answers" in said.detail


def test_rising_validation_loss_is_told():
    told = summary()
    told["evaluations"].append({"step": 640, "validation_loss": 1.8})
    assert "lowest at step 480, 1.41 nats per trained token, and rose to 1.8" in text_of(
        tune_page(told)
    )


def test_histories_of_any_length_are_drawn():
    for steps in (0, 1, 5000):
        told = summary() | {"history": history(max(steps, 200))[:steps]}
        assert len(render(tune_page(told))) < 400_000


def test_damage_in_the_cache_and_notes_are_shown():
    told = summary() | {"notes": ["the disk was full: 3 chunks were not kept"]}
    told["cache"]["damaged"] = 2
    said = text_of(tune_page(told))
    assert "2 stored chunks found damaged, and computed again." in said
    assert "3 chunks were not kept" in said


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metrics", "bleu", "value", "stages", "total", "loss", "step", "counts"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from([*PARTS, "notes"]), JSON, max_size=6))
def test_no_summary_makes_it_fail(told):
    ElementTree.fromstring(render(tune_page(told)))


# --- several compared -----------------------------------------------------------------------------


def test_a_comparison_names_the_best_and_whom_it_cannot_be_told_from():
    said = text_of(compare_page(compared(), base=bleu(2.1, 0.6), command="puna tune --compare"))
    assert "full has the best BLEU: 31.0 (95 % interval 28.8 to 33.2)." in said
    assert "overlaps with that of dora, lora, top_layers" in said
    assert "The quickest of these is top_layers (4 min 20 s)." in said
    assert "The smallest of these is lora (976,896 parameters)." in said
    assert "lies apart from that of the untuned model" in said
    assert "prefix failed: the loss was not finite in 5 steps in a row" in said
    for title in ("trained parameters", "time", "memory", "energy"):
        assert f"Quality against {title}" in said
    assert "puna tune --compare" in said


def test_a_clear_winner_is_called_best():
    rows = [{"name": "a", "metric": bleu(30.0, 1)}, {"name": "b", "metric": bleu(20.0, 1)}]
    part = compare_page(rows).opening[0]
    assert isinstance(part, Verdict)
    assert (part.word, part.tone) == ("Best", "good")


@pytest.mark.parametrize(
    "rows",
    [[], [{}], [{"name": "a", "error": "x"}], [{"name": "a", "metric": {"value": float("nan")}}]],
)
def test_a_comparison_without_figures_prefers_nothing(rows):
    said = text_of(compare_page(rows))
    assert "No method was judged, so none can be preferred." in said


KEYS = ("name", "metric", "seconds", "error", "trainable", "peak_bytes", "folder")


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON), max_size=4))
def test_no_rows_make_it_fail(rows):
    ElementTree.fromstring(render(compare_page(rows)))
