"""A curation from its files to a corpus: what is kept, what is dropped and why, and going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.tuning_setup import Heard
from house.source import REPOSITORY
from puna.artifact import read_manifest
from puna.config import from_dict, load_recipe
from puna.errors import InputError
from puna.flows.curate_opening import document_story
from puna.flows.curate_recipe import CurateRecipe
from puna.flows.curate_steps import named
from puna.flows.curating import Curated, CurateOptions, curate
from puna.records.corpus_folder import part_files

SENTENCES = (
    "One {adjective} morning a {noun} {verb} the {other} near {place} that {number} have seen.",
    "Nobody by {place} {verb} such {adjective} things before, and the {noun} left {number}.",
    "Her {noun} was {adjective}, so {number} of the {other} people {verb} it to {place}.",
    "Rain on {place} of the puna {verb} each {noun} with {number} {adjective} drops.",
    "They {verb} {number}, and with every {other}, {adjective} or not, comes a {third}.",
)
WORDS = {
    "adjective": "cold bright narrow patient hungry woollen distant quiet stony early",
    "noun": "llama herder shepherd fox condor child trader dog potter weaver",
    "verb": "followed carried counted sheltered found painted sold watched led weighed",
    "place": "lakes bridges markets ridges villages wells springs roads corrals plains",
}


def article(number: int) -> str:
    """Prose of twelve lines, of its own words for each number."""
    random = Random(number)

    def sentence(place: int) -> str:
        words = {kind: random.choice(several.split()) for kind, several in WORDS.items()}
        nouns = random.sample(WORDS["noun"].split(), 3)
        words |= dict(zip(("noun", "other", "third"), nouns, strict=True))
        return SENTENCES[place].format(**words, number=random.randrange(2, 900))

    lines = [random.sample(range(len(SENTENCES)), 2) for _ in range(12)]
    return "\n".join(" ".join(map(sentence, line)) for line in lines)


def rows(count: int) -> list[dict[str, Any]]:
    texts = [article(number) for number in range(count)]
    texts += [texts[0], texts[1] + " And so on."]  # one is the same, one nearly
    texts += ["too short", f"{article(count)}\nWrite to jane.roe@wool-mail.net for more."]
    return [{"text": text, "url": f"https://puna.test/{n}"} for n, text in enumerate(texts)]


STEPS: list[dict[str, Any]] = [
    {"step": "clean"},
    {"step": "statistics"},
    {"step": "gopher_quality", "min_words": 20},
    {"step": "pii", "action": "mask"},
]


def recipe(folder: Path, *, count: int = 12, **changes: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    path = folder / "pages.jsonl"
    if not path.exists():
        lines = [json.dumps(row) for row in rows(count)]
        path.write_bytes("\n".join(lines).encode() + b'\n{"text": "bad \xff byte"}\n')
    return {
        "sources": {"pages": {"files": str(path), "license": "CC0-1.0"}},
        "steps": STEPS,
        "workers": 1,
        "meter": {"use_codecarbon": False},
        **changes,
    }


def run(out: Path, told: dict[str, Any], *, force: bool = False) -> Curated:
    made = from_dict(CurateRecipe, told)
    return curate(made, CurateOptions(out, force, "puna curate x"), Heard())


def documents(out: Path, part: str = "documents") -> list[dict[str, Any]]:
    files = part_files(out / part)
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def identity(out: Path) -> str:
    told = read_manifest(out / "manifest.json")
    assert told is not None
    return str(told["digest"])


def test_a_corpus_and_its_story(tmp_path: Path) -> None:
    done = run(tmp_path / "corpus", recipe(tmp_path))
    kept, dropped = (documents(done.path, part) for part in ("documents", "dropped"))
    assert done.fresh
    assert len(kept) == 13
    assert {row["license"] for row in kept} == {"CC0-1.0"}
    assert not any("jane.roe" in row["text"] for row in kept)
    reasons = sorted(row["drop"] for row in dropped)
    assert reasons[0] == "exact_duplicate"
    assert reasons[1].startswith("gopher_quality.")
    assert reasons[2] == "near_duplicate"
    quarantine = (done.path / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == 1
    assert "pages.jsonl" in json.loads(quarantine[0])["locator"]
    funnel = {row["step"]: row["documents"] for row in done.summary["funnel"]}
    assert list(funnel) == [
        "read",
        *(step["step"] for step in STEPS),
        "exact_duplicate",
        "near_duplicate",
    ]
    assert funnel["read"] == 16
    assert funnel["gopher_quality"] == 15
    assert funnel["near_duplicate"] == 13
    assert sum(size["documents"] for size in done.summary["reasons"].values()) == 3
    assert done.summary["personal"]["email"] == 1
    assert {cluster["size"] for cluster in done.summary["clusters"]} == {2}
    page = (done.path / "report.html").read_text()
    assert "near_duplicate" in page
    assert any("16" in line for line in done.lines())


def test_the_same_again_does_nothing_and_force_does_all(tmp_path: Path) -> None:
    first = run(tmp_path / "corpus", recipe(tmp_path))
    before = identity(first.path)
    assert not run(tmp_path / "corpus", recipe(tmp_path)).fresh
    with pytest.raises(InputError, match="exists"):
        run(tmp_path / "corpus", recipe(tmp_path, dedup={"near": None}))
    again = run(tmp_path / "corpus", recipe(tmp_path), force=True)
    assert again.fresh
    assert identity(again.path) == before
    assert not list(tmp_path.glob(".corpus*"))


def test_workers_and_units_make_no_difference(tmp_path: Path) -> None:
    one = run(tmp_path / "one", recipe(tmp_path, count=60))
    two = run(tmp_path / "two", recipe(tmp_path, count=60, workers=2, unit_bytes=8 << 10))
    kept = [sorted((row["id"], row["text"]) for row in documents(done.path)) for done in (one, two)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 61


def test_a_sample_reads_a_few_from_all_over(tmp_path: Path) -> None:
    made = from_dict(CurateRecipe, recipe(tmp_path, count=60, unit_bytes=8 << 10))
    done = curate(made, CurateOptions(tmp_path / "corpus", sample=16), Heard())
    read = done.summary["funnel"][0]["documents"]
    assert 8 <= read <= 16
    numbers = [int(row["url"].rpartition("/")[2]) for row in documents(done.path)]
    assert max(numbers) - min(numbers) > 30
    with pytest.raises(InputError, match="at least 1 document"):
        curate(made, CurateOptions(tmp_path / "other", sample=0), Heard())


def test_the_story_of_a_document(tmp_path: Path) -> None:
    done = run(tmp_path / "corpus", recipe(tmp_path))
    gone = next(row for row in documents(done.path, "dropped") if row["drop"] == "near_duplicate")
    story = "\n".join(document_story(done.path, gone["id"].hex()))
    assert gone["locator"] in story
    assert "CC0-1.0" in story
    assert document_story(done.path, gone["id"].hex()[:12])[0] == story.splitlines()[0]
    with pytest.raises(InputError, match="no document"):
        document_story(done.path, "00" * 16)
    with pytest.raises(InputError, match="is no id"):
        document_story(done.path, "xyz")


def test_what_is_wrong_is_told_before_anything_is_read(tmp_path: Path) -> None:
    told = recipe(tmp_path)
    with pytest.raises(InputError, match="clene"):
        run(tmp_path / "b", {**told, "steps": [{"step": "clene"}]})
    told["sources"]["pages"]["files"] = str(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "c", told)
    assert not list(tmp_path.glob(".*.curating"))


def test_figures_that_no_step_has_computed_fail_the_unit_and_are_told(tmp_path: Path) -> None:
    done = run(tmp_path / "corpus", recipe(tmp_path, steps=[{"step": "gopher_quality"}]))
    assert documents(done.path) == []
    told = done.summary["quarantine"]
    assert told["total"] >= 1
    assert "statistics" in told["samples"][0]["reason"]


def page(number: int) -> bytes:
    paragraphs = "".join(f"<p>{line}</p>" for line in article(number).splitlines())
    return f"<html><body><article><h1>Llamas</h1>{paragraphs}</article></body></html>".encode()


def crawl(folder: Path) -> Path:
    """Two pages in a WARC file."""
    records = []
    for number in range(2):
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page(number)
        head = (
            "WARC/1.0\r\nWARC-Type: response\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
            f"WARC-Target-URI: https://puna.test/{number}\r\n"
            f"WARC-Record-ID: <urn:uuid:{number}>\r\n"
            "Content-Type: application/http; msgtype=response\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        records.append(head.encode() + body + b"\r\n\r\n")
    path = folder / "crawl.warc"
    path.write_bytes(b"".join(records))
    return path


def pages(folder: Path) -> Path:
    for number in range(2):
        (folder / f"{number}.html").write_bytes(page(number))
    return folder / "*.html"


def code(folder: Path) -> Path:
    for number in range(2):
        (folder / f"{number}.py").write_text(f"# {article(number)}\n".replace("\n", "\n# "))
    return folder / "*.py"


def stories(folder: Path) -> Path:
    lines = [json.dumps({"text": article(number)}) for number in range(2)]
    (folder / "stories.jsonl").write_text("\n".join(lines))
    return folder / "stories.jsonl"


@pytest.mark.parametrize(
    ("name", "source", "make"),
    [
        ("curate-code", "stdlib", code),
        ("curate-crawl", "crawl", crawl),
        ("curate-documentation", "documentation", pages),
        ("curate-laptop", "python", stories),
    ],
)
def test_a_recipe_runs_from_its_file(
    name: str, source: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    files = f"sources.{source}.files={make(tmp_path)}"
    changes = [files, "workers=1", "meter.use_codecarbon=false"]
    made = load_recipe(REPOSITORY / "recipes" / f"{name}.yaml", CurateRecipe, changes)
    done = curate(made, CurateOptions(tmp_path / "corpus"), Heard())
    funnel = [row["step"] for row in done.summary["funnel"]]
    assert funnel[: 1 + len(made.steps)] == ["read", *(name for name, _ in named(made.steps))]
    assert done.summary["funnel"][0]["documents"] == 2
    kept = documents(done.path)
    assert len(kept) == 2
    assert all("of the puna" in row["text"] for row in kept)


def test_every_recipe_is_run() -> None:
    there = {path.stem for path in (REPOSITORY / "recipes").glob("curate-*.yaml")}
    assert there == {"curate-code", "curate-crawl", "curate-documentation", "curate-laptop"}


VICTIM = """
import json, sys
from pathlib import Path
from flows.test_curating import recipe, run
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run(folder / "corpus", recipe(folder, count=80, unit_bytes=4 << 10))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", recipe(tmp_path, count=80, unit_bytes=4 << 10))
    script = tmp_path / "victim.py"
    script.write_text(VICTIM)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    victim = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=env)
    work = tmp_path / ".corpus.curating"
    deadline = time.monotonic() + 300
    while len(list(work.glob("*/manifest.json"))) < 3 and victim.poll() is None:
        assert time.monotonic() < deadline, "no unit is done"
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    done = len(list(work.glob("*/manifest.json")))
    assert done >= 3
    heard = Heard()
    made = from_dict(CurateRecipe, recipe(tmp_path, count=80, unit_bytes=4 << 10))
    again = curate(made, CurateOptions(tmp_path / "corpus", False, ""), heard)
    assert any("are done already" in note for note in heard.notes)
    assert documents(again.path) == documents(whole.path)
    assert identity(again.path) == identity(whole.path)
