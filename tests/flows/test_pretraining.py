"""Whole pretraining runs on a tiny model: what comes out, and that the same comes out again."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import puna
from flows.pretraining_setup import SHAPE, asked, assert_same_raised, raise_model
from flows.tuning_setup import Heard, figures, losses, product
from puna.errors import InputError
from puna.flows.evaluating import find_subject
from puna.generate import Sampling
from puna.tokens.shards import open_shards

FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def samples(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


def test_from_shards_to_a_model(tmp_path: Path, tiny_shards: Path) -> None:
    heard, out = Heard(), tmp_path / "my-run"
    done = raise_model(out, asked(tiny_shards), heard)
    assert (done.path, done.product, done.fresh) == (out, out / "model", True)
    assert FILES | {"manifest.json", "asking.json"} <= {p.name for p in done.product.iterdir()}
    assert heard.steps == list(range(1, 11))
    seen = losses(out, "evaluation")
    assert len(seen) == 3, "after 4, 8 and 10 steps"
    assert seen[-1] < losses(out)[0] - 0.5, "it learns"
    assert [(row["step"], row["prompt"]) for row in samples(out)] == [
        (step, prompt) for step in (4, 8, 10) for prompt in ("Once upon", "")
    ]
    told = done.summary
    assert told["title"] == "my run"
    assert told["training"]["tokens"] == 10 * 8 * 32
    read = told["consumed"]
    assert sum(one["tokens"] for one in read.values()) == 10 * 8 * 32
    assert set(told["held_out"]) >= {"validation_loss", "bits_per_byte", "bits_per_byte_tales"}
    assert told["speed"]["peak_from"] == "as stated"
    assert told["speed"]["utilisation"] == pytest.approx(
        told["speed"]["tokens_per_second"] * told["speed"]["flops_per_token"] / 1e11
    )
    assert not list(out.rglob("*.partial"))
    assert any("of the machine's rate for matrices" in note for note in heard.notes)


def test_the_manifest_names_the_shards(tmp_path: Path, tiny_shards: Path) -> None:
    done = raise_model(tmp_path / "run", asked(tiny_shards))
    told = json.loads((done.product / "manifest.json").read_text())
    shards = open_shards(tiny_shards)
    assert told["identity"]["kind"] == "checkpoint"
    assert told["identity"]["parents"] == [f"shards {shards.identity}"]
    assert told["identity"]["config"]["made by"] == "pretrain"
    assert [row["kind"] for row in done.summary["lineage"]] == ["shards", "pretraining"]
    assert done.summary["lineage"][-1]["digest"] == told["digest"]
    assert told["measured"]["ancestors"][0]["digest"] == shards.identity


def test_transformers_and_puna_read_the_product_alike(tmp_path: Path, tiny_shards: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = raise_model(tmp_path / "run", asked(tiny_shards))
    llama = puna.load(str(done.path), dtype="float32", kernels=False)
    theirs = AutoModelForCausalLM.from_pretrained(done.product).eval()
    words = AutoTokenizer.from_pretrained(done.product)
    ids = llama.tokenizer.encode("Once upon a time the sea")
    assert words("Once upon a time the sea")["input_ids"] == ids
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits
        ours = llama.model(torch.tensor([ids]))
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=2e-4)
    assert not llama.is_taught, "it continues texts"
    assert llama.generate("Once upon", Sampling(max_tokens=4)).ids
    made = samples(done.path)[-2]
    again = Sampling(max_tokens=5, temperature=0.8, top_p=0.95)
    assert done.summary["best_step"] == 10
    assert llama.generate("Once upon", again).text == made["text"], "the samples are the model's"


def test_bits_per_byte_are_those_of_the_held_out_text(tmp_path: Path, tiny_shards: Path) -> None:
    from transformers import AutoModelForCausalLM

    asked_for = asked(
        tiny_shards,
        rows={"row_tokens": 1024, "step_rows": 2, "batch_rows": 1},
        evaluation={"every_steps": 2, "max_tokens": 1000},
        train={"max_steps": 2, "optim": {"learning_rate": 0.01}},
        samples={},
    )
    done = raise_model(tmp_path / "run", asked_for)
    theirs = AutoModelForCausalLM.from_pretrained(done.product).eval()
    nats = size = 0.0
    for name, source in open_shards(tiny_shards).sources.items():
        documents = source.split("held_out")
        own = 0.0
        for number, length in enumerate(documents.lengths.tolist()):
            ids = torch.tensor(documents.read(number, 0, length))
            with torch.no_grad():
                logits = theirs(ids[None]).logits[0, :-1]
            own += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
        text_bytes = int(documents.text_bytes.sum())
        found = done.summary["held_out"][f"bits_per_byte_{name}"]
        assert found == pytest.approx(own / math.log(2) / text_bytes, rel=1e-3)
        nats, size = nats + own, size + text_bytes
    whole = done.summary["held_out"]["bits_per_byte"]
    assert whole == pytest.approx(nats / math.log(2) / size, rel=1e-3)


def test_the_same_recipe_gives_the_same_bits(tmp_path: Path, tiny_shards: Path) -> None:
    for name in ("one", "other"):
        raise_model(tmp_path / name, asked(tiny_shards))
    assert_same_raised(tmp_path / "one", tmp_path / "other")
    for number, change in enumerate(({"init_seed": 1}, {"z_loss": 1e-4})):
        raise_model(tmp_path / str(number), asked(tiny_shards, **change))
        assert product(tmp_path / str(number)) != product(tmp_path / "one")


@pytest.mark.parametrize("place", ["step 1", "step 4", "step 5", "evaluated 8", "step 10"])
def test_control_c(tmp_path: Path, tiny_shards: Path, place: str) -> None:
    heard = Heard({place: lambda: signal.raise_signal(signal.SIGINT)})
    with pytest.raises(KeyboardInterrupt):
        raise_model(tmp_path / "cut", asked(tiny_shards), heard)
    told = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert (told["kind"], told["state"]) == ("pretraining run", "running")
    raise_model(tmp_path / "cut", asked(tiny_shards), resume=True)
    raise_model(tmp_path / "whole", asked(tiny_shards))
    assert_same_raised(tmp_path / "cut", tmp_path / "whole")


def test_a_run_that_ended_in_publishing_goes_on(
    tmp_path: Path, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from puna.flows import pretraining

    class Cut(Exception):
        pass

    def cut(*_: Any, **__: Any) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "publish_pretrained", cut)
        with pytest.raises(Cut):
            raise_model(tmp_path / "cut", asked(tiny_shards))
    heard = Heard()
    raise_model(tmp_path / "cut", asked(tiny_shards), heard)
    assert heard.steps == [], "the training itself is kept"
    raise_model(tmp_path / "whole", asked(tiny_shards))
    assert_same_raised(tmp_path / "cut", tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, tiny_shards: Path) -> None:
    out = tmp_path / "run"
    first = raise_model(out, asked(tiny_shards))
    heard = Heard()
    other_words = {"title": "T", "verify": False, "samples": {}, "tensorboard": True}
    again = raise_model(out, asked(tiny_shards, **other_words), heard)
    assert (again.fresh, again.summary, heard.steps) == (False, first.summary, [])
    with pytest.raises(InputError, match="holds a run of another recipe, other data"):
        raise_model(out, asked(tiny_shards, init_seed=2))
    assert raise_model(out, asked(tiny_shards, init_seed=2), force=True).fresh


def test_shards_count_by_their_content(tmp_path: Path, tiny_shards: Path) -> None:
    import shutil

    raise_model(tmp_path / "run", asked(tiny_shards))
    shutil.copytree(tiny_shards, tmp_path / "elsewhere")
    assert not raise_model(tmp_path / "run", asked(tmp_path / "elsewhere")).fresh


def test_a_mixture_by_weights(tmp_path: Path, tiny_shards: Path) -> None:
    recipe = asked(
        tiny_shards,
        mixture={"weights": {"tales": 3, "notes": 1}},
        tokens=40 * 8 * 32,
        train={"optim": {"learning_rate": 0.003}},
    )
    read = raise_model(tmp_path / "run", recipe).summary["consumed"]
    assert read["tales"]["rows"] == pytest.approx(3 * read["notes"]["rows"], rel=0.05)


def test_without_a_length_the_mixture_is_read_to_its_end(tmp_path: Path, tiny_shards: Path) -> None:
    recipe = asked(
        tiny_shards,
        mixture={"epochs": {"notes": 1.0}},
        train={"optim": {"learning_rate": 0.003}, "schedule": {"warmup_steps": 2}},
    )
    done = raise_model(tmp_path / "run", recipe)
    notes = open_shards(tiny_shards).sources["notes"].split("train")
    assert done.summary["training"]["tokens"] == pytest.approx(notes.tokens, abs=32)
    assert done.summary["consumed"]["notes"]["epochs"] == pytest.approx(1.0, abs=0.02)
    assert done.summary["consumed"]["tales"]["tokens"] == 0


def test_time_ends_a_run(tmp_path: Path, tiny_shards: Path) -> None:
    recipe = asked(
        tiny_shards,
        mixture={"weights": {"tales": 1}},
        train={"max_seconds": 1e-6},
        samples={"prompts": ["Once"], "max_new_tokens": 3},
    )
    done = raise_model(tmp_path / "run", recipe)
    told = done.summary["training"]
    assert (told["stopped"], told["steps"]) == ("time", 1)
    assert [row["step"] for row in samples(tmp_path / "run")] == [1]
    assert any(note.startswith("Time ended the training") for note in done.summary["notes"])


def test_a_rate_is_measured_where_none_is_stated(tmp_path: Path, tiny_shards: Path) -> None:
    recipe = asked(tiny_shards, peak_flops_per_second=None, train={"max_steps": 2})
    done = raise_model(tmp_path / "run", recipe)
    assert done.summary["speed"]["peak_flops_per_second"] > 1e8
    assert done.summary["speed"]["peak_from"].startswith("measured")
    assert "measuring the machine" in done.summary["ledger"]["stages"]


def test_a_base_is_tuned_and_judged(tmp_path: Path, tiny_shards: Path) -> None:
    from flows.tuning_setup import asked as asked_to_tune
    from flows.tuning_setup import pairs, run, write_rows

    raise_model(tmp_path / "base", asked(tiny_shards, rows=_rows(256)))
    assert find_subject(str(tmp_path / "base")).recipe() is None, "it has no test examples"
    rows = write_rows(tmp_path / "pairs.jsonl", pairs())
    recipe = asked_to_tune(tmp_path / "base", rows, method={"method": "full"}, template="plain")
    done = run(tmp_path / "tuned", recipe)
    assert done.summary["model"]["parameters"] > 0
    assert puna.load(str(tmp_path / "tuned")).ask("llama 1", Sampling(max_tokens=2)).ids


def test_several_folders_of_shards(tmp_path: Path, tiny_shards: Path) -> None:
    from flows.pretraining_setup import make_shards, texts

    more = make_shards(tmp_path / "more", {"more": texts(80)}, {"model": str(tiny_shards)})
    done = raise_model(tmp_path / "run", asked([str(tiny_shards), str(more)]))
    assert set(done.summary["data"]["sources"]) == {"tales", "notes", "more"}
    assert len(done.summary["lineage"]) == 3


def test_tensorboard_events(tmp_path: Path, tiny_shards: Path) -> None:
    pytest.importorskip("tensorboardX")
    raise_model(tmp_path / "run", asked(tiny_shards, tensorboard=True))
    events = list((tmp_path / "run" / "tensorboard").iterdir())
    assert len(events) == 1
    assert b"bits_per_byte" in events[0].read_bytes()


def test_bfloat16_computes_and_float32_is_published(tmp_path: Path, tiny_shards: Path) -> None:
    from safetensors.torch import load_file

    done = raise_model(tmp_path / "half", asked(tiny_shards, dtype="bfloat16"))
    raise_model(tmp_path / "whole", asked(tiny_shards))
    kept = load_file(done.product / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    half, whole = (losses(tmp_path / name, "evaluation")[-1] for name in ("half", "whole"))
    assert half == pytest.approx(whole, rel=0.02)
    assert half != whole


def test_what_the_metrics_hold(tmp_path: Path, tiny_shards: Path) -> None:
    raise_model(tmp_path / "run", asked(tiny_shards, model={**SHAPE, "tie_embeddings": False}))
    steps = [row for row in figures(tmp_path / "run") if row["kind"] == "step"]
    assert {"loss", "learning_rate", "grad_norm", "tokens"} <= set(steps[0])
    assert {row["tokens"] for row in steps} == {8 * 32}


def _rows(row_tokens: int) -> dict[str, int]:
    return {"row_tokens": row_tokens, "step_rows": 1, "batch_rows": 1}
