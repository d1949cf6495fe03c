"""From documents to shards: what is in them, where it goes, and what is told of it."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import puna.flows.tokenize_vocabulary as vocabulary_module
from flows.tokenizing_setup import (
    SMALL,
    asked,
    backend_of,
    content,
    left_behind,
    rows,
    run,
    text,
    texts_of,
    tokens_of,
)
from flows.tuning_setup import Heard
from puna.flows.tokenize_encoding import Waiting, encode_all
from puna.flows.tokenizing import TokenizeResult
from puna.records import find_files, normalised
from puna.store.checkpoint import TokenizerFiles
from puna.tokens import open_tokenizer
from puna.tokens.fertility import count_words
from puna.tokens.shards import open_shards, vocabulary_identity

SOURCES = {"web": rows(90), "books": rows(40, begin=1000)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TokenizeResult, Heard]:
    """Shards with a vocabulary of their own."""
    folder = tmp_path_factory.mktemp("tokenizing")
    heard = Heard()
    done = run(folder / "shards", asked(folder / "data", SOURCES, SMALL), heard)
    return folder / "shards", done, heard


@pytest.fixture
def model(tiny_base: Path) -> dict[str, str]:
    """The vocabulary of a tiny model."""
    return {"model": str(tiny_base)}


def test_every_document_is_there_once_and_means_its_text(
    made: tuple[Path, TokenizeResult, Heard],
) -> None:
    out, done, _ = made
    shards = open_shards(out)
    shards.verify()
    found = texts_of(out, shards)
    for name, given in SOURCES.items():
        wanted = [row["text"] for row in given]
        held_out = set(found[name]["held_out"])
        assert held_out
        assert found[name]["train"] == [told for told in wanted if told not in held_out]
        assert found[name]["held_out"] == [told for told in wanted if told in held_out]
    assert done.fresh
    assert done.index == shards.index
    assert done.tokens_encoded == sum(
        source.split(split).tokens
        for source in shards.sources.values()
        for split in ("train", "held_out")
    )


def test_the_tokens_are_those_of_the_library(
    made: tuple[Path, TokenizeResult, Heard],
) -> None:
    out, _, _ = made
    backend = backend_of(out)
    bos, eos = (backend.token_to_id(token) for token in ("<s>", "</s>"))
    shards = open_shards(out)
    assert (shards.bos_id, shards.eos_id) == (bos, eos)
    given = {row["text"]: None for row in SOURCES["web"]}
    for split in ("train", "held_out"):
        documents = shards.sources["web"].split(split)
        for number, ids in enumerate(tokens_of(documents)):
            told = backend.decode(ids)
            assert told in given
            assert ids == [bos, *backend.encode(told, add_special_tokens=False).ids, eos]
            assert documents.text_bytes[number] == len(told.encode())


def test_the_index_of_documents_names_them(
    made: tuple[Path, TokenizeResult, Heard],
) -> None:
    out, _, _ = made
    shards = open_shards(out)
    found = texts_of(out, shards)["web"]["train"]
    documents = shards.sources["web"].split("train")
    places = {row["text"]: number for number, row in enumerate(SOURCES["web"], 1)}
    file = out.parent / "data" / "web.jsonl"
    for number, told in enumerate(found):
        locator = f"web\0{file}:{places[told]}"
        assert documents.id(number) == hashlib.blake2b(locator.encode(), digest_size=16).digest()
        root = hashlib.blake2b(normalised(told).encode(), digest_size=16).digest()
        assert documents.root(number) == root
        assert shards.licences[documents.licence(number)] == "CC0-1.0"


def test_the_files_are_bounded_and_the_manifest_names_them_all(
    made: tuple[Path, TokenizeResult, Heard],
) -> None:
    out, _, _ = made
    shards = open_shards(out)
    files = [file for source in shards.index.sources for file in source.files]
    assert len(files) > 4
    assert all(file.tokens <= 1500 for file in files)
    told = json.loads((out / "manifest.json").read_text())
    there = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} - {"manifest.json"}
    assert set(told["identity"]["files"]) == there
    assert {"tokenizer.json", "tokenizer_config.json", "shards.json"} < there
    assert told["identity"]["kind"] == "shards"
    assert told["identity"]["parents"] == [f"vocabulary {shards.vocabulary_identity}"]
    stages = told["measured"]["cost"]["stages"]
    assert list(stages) == ["reading", "vocabulary", "encoding"]
    assert stages["encoding"]["tokens"] == sum(file.tokens for file in files)
    assert left_behind(out) == []


def test_fertility_is_that_of_the_held_out_documents(
    made: tuple[Path, TokenizeResult, Heard],
) -> None:
    out, done, _ = made
    backend = backend_of(out)
    for name, splits in texts_of(out).items():
        held_out = splits["held_out"]
        told = done.index.fertility[name]
        tokens = sum(len(backend.encode(one, add_special_tokens=False).ids) for one in held_out)
        assert told["documents"] == len(held_out)
        assert told["tokens"] == tokens
        assert told["bytes"] == sum(len(one.encode()) for one in held_out)
        assert told["words"] == sum(map(count_words, held_out))
    printed = "\n".join(done.lines())
    assert "tokens/word" in printed
    assert "tokens/s over" in printed
    assert "web: " in printed


def test_the_vocabulary_is_learnt_from_what_is_not_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[str] = []
    train = vocabulary_module.train_vocabulary

    def spy(texts: Any, config: Any, **more: Any) -> Any:
        learnt.extend(texts)
        return train(list(learnt), config, **more)

    monkeypatch.setattr(vocabulary_module, "train_vocabulary", spy)
    run(tmp_path / "shards", asked(tmp_path, SOURCES, SMALL))
    found = texts_of(tmp_path / "shards")
    assert learnt == [told for splits in found.values() for told in splits["train"]]
    learnt.clear()
    small = {"train": {"size": 300, "max_bytes": 2000}}
    run(tmp_path / "small", asked(tmp_path, SOURCES, small))
    assert 1500 < sum(len(told.encode()) for told in learnt) <= 2000
    kept = {told for splits in found.values() for told in splits["train"]}
    assert set(learnt) < kept
    assert {told in found["web"]["train"] for told in learnt} == {True, False}, "of all sources"


def test_the_vocabulary_of_a_model(tmp_path: Path, model: dict[str, str], tiny_base: Path) -> None:
    done = run(tmp_path / "shards", asked(tmp_path, SOURCES, model))
    backend = backend_of(tmp_path / "shards")
    shards = open_shards(tmp_path / "shards")
    eos = backend.token_to_id("<|im_end|>")
    assert (shards.bos_id, shards.eos_id) == (None, eos), "it begins texts with nothing"
    ids = tokens_of(shards.sources["web"].split("train"))[0]
    assert ids == [*backend.encode(backend.decode(ids), add_special_tokens=False).ids, eos]
    files = {name: (tiny_base / name).read_bytes() for name in ("tokenizer.json",)}
    files["tokenizer_config.json"] = (tiny_base / "tokenizer_config.json").read_bytes()
    own = open_tokenizer(TokenizerFiles(files), where=tiny_base)
    assert done.index.vocabulary.identity == vocabulary_identity(own)


def test_the_vocabulary_of_other_shards(tmp_path: Path) -> None:
    first = run(tmp_path / "one", asked(tmp_path / "a", {"web": SOURCES["web"]}, SMALL))
    other = {"books": SOURCES["books"]}
    second = run(tmp_path / "two", asked(tmp_path / "b", other, {"model": str(tmp_path / "one")}))
    assert second.index.vocabulary == first.index.vocabulary
    names = ("tokenizer.json", "tokenizer_config.json")
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_vocabulary_that_is_extended(tmp_path: Path, tiny_base: Path) -> None:
    extended = {"extend": str(tiny_base), "pieces": 20}
    done = run(tmp_path / "shards", asked(tmp_path, SOURCES, extended))
    origins = json.loads((tmp_path / "shards" / "origins.json").read_text())
    old = backend_of(tiny_base)
    size = done.index.vocabulary.size
    assert len(origins) == size - old.get_vocab_size()
    assert 0 < len(origins) <= 20
    backend, start = backend_of(tmp_path / "shards"), size - len(origins)
    told = text(5)
    spelled = [
        index
        for id_ in backend.encode(told, add_special_tokens=False).ids
        for index in (origins[id_ - start] if id_ >= start else [id_])
    ]
    assert spelled == old.encode(told, add_special_tokens=False).ids
    again = run(tmp_path / "more", asked(tmp_path, SOURCES, {"model": str(tmp_path / "shards")}))
    assert again.index.vocabulary == done.index.vocabulary
    assert json.loads((tmp_path / "more" / "origins.json").read_text()) == origins


def test_what_looks_like_a_special_token_stays_text(tmp_path: Path, model: dict[str, str]) -> None:
    given = [*rows(3), {"text": "He wrote <|im_end|> and <|endoftext|>."}]
    recipe = asked(tmp_path, {"web": given}, model, held_out=0)
    done = run(tmp_path / "shards", recipe)
    ids = tokens_of(open_shards(done.path).sources["web"].split("train"))[3]
    specials = {backend_of(done.path).token_to_id(t) for t in ("<|im_end|>", "<|endoftext|>")}
    assert [id_ in specials for id_ in ids].count(True) == 1
    assert ids[-1] == done.index.vocabulary.eos_id


def test_rows_bring_their_own_licence_and_name(tmp_path: Path, model: dict[str, str]) -> None:
    given = [
        {"text": text(0), "licence": "MIT", "id": "0f" * 16},
        {"text": text(1), "license": " PSF-2.0 "},
        {"text": text(2), "licence": ""},
        {"text": text(3), "licence": "MIT", "root_id": "ab" * 16},
        {"text": text(4), "root_id": 17},
    ]
    done = run(tmp_path / "shards", asked(tmp_path, {"web": given}, model, held_out=0))
    shards = open_shards(done.path)
    documents = shards.sources["web"].split("train")
    assert shards.licences == ("MIT", "PSF-2.0", "CC0-1.0")
    named = [shards.licences[documents.licence(number)] for number in range(5)]
    assert named == ["MIT", "PSF-2.0", "CC0-1.0", "MIT", "CC0-1.0"]
    assert documents.id(0) == bytes.fromhex("0f" * 16)
    assert documents.root(3) == bytes.fromhex("ab" * 16)
    assert documents.root(4) == hashlib.blake2b(b"17", digest_size=16).digest()


def test_nothing_leaks_from_what_is_held_out(tmp_path: Path, model: dict[str, str]) -> None:
    given = [
        {"text": form.format(text(number)), "root_id": f"root {number}" if number % 2 else None}
        for number in range(60)
        for form in ("{}", "{} ", "  {}", "Another paraphrase of {}.")
    ]
    other = [{"text": text(number).upper()} for number in range(60)]
    sources = {"web": given, "books": [*other, *rows(30, begin=500)]}
    done = run(tmp_path / "shards", asked(tmp_path, sources, model, held_out=0.3))
    shards = open_shards(done.path)
    found = texts_of(done.path, shards)
    sides: dict[str, set[str]] = {"train": set(), "held_out": set()}
    roots: dict[str, set[bytes]] = {"train": set(), "held_out": set()}
    for name, source in shards.sources.items():
        for split in ("train", "held_out"):
            documents = source.split(split)
            sides[split].update(map(normalised, found[name][split]))
            roots[split].update(documents.root(n) for n in range(documents.count))
    assert not sides["train"] & sides["held_out"]
    assert not roots["train"] & roots["held_out"]
    for number in range(1, 60, 2):
        where = {
            split
            for split in sides
            for told in (text(number), f"Another paraphrase of {text(number)}.")
            if normalised(told) in sides[split]
        }
        assert len(where) == 1, "documents of one root stay together"


def test_duplicates_are_left_out_and_counted(tmp_path: Path, model: dict[str, str]) -> None:
    given = {"web": [*rows(10), *rows(4)], "books": [*rows(3), *rows(5, begin=100)]}
    done = run(tmp_path / "one", asked(tmp_path, given, model))
    assert done.index.dropped == {"duplicate": 7}
    kept = [told for splits in texts_of(done.path).values() for s in splits.values() for told in s]
    assert sorted(kept) == sorted({row["text"] for part in given.values() for row in part})
    recipe = asked(tmp_path, given, model, drop_duplicates=False)
    again = run(tmp_path / "two", recipe)
    assert again.index.dropped == {}
    assert sum(f.documents for s in again.index.sources for f in s.files) == 22


def test_what_gives_away_a_test_is_left_out(tmp_path: Path, model: dict[str, str]) -> None:
    secret = "the capital of the high land of grass is a small town by the sea where llamas ask"
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"question": "Which?", "answers": [{"text": secret}]}) + "\n"
    )
    given = [*rows(30), {"text": f"I say: {secret.upper()}, and so on."}, {"text": secret[:40]}]
    judged = {"files": str(tmp_path / "test.jsonl")}
    heard = Heard()
    recipe = asked(tmp_path, {"web": given}, model, decontaminate=judged, held_out=0)
    done = run(tmp_path / "shards", recipe, heard)
    assert done.index.dropped == {"shares a run of words with texts to be judged on": 1}
    assert secret[:40] in texts_of(done.path)["web"]["train"]
    assert any("1 texts to be judged on have fewer than 13 words" in note for note in heard.notes)


@pytest.mark.parametrize(("unit", "count"), [("row", 4), ("paragraphs", 2), ("file", 1)])
def test_plain_text(tmp_path: Path, model: dict[str, str], unit: str, count: int) -> None:
    (tmp_path / "a.txt").write_text("One.\nTwo.\n\nThree.\nFour.\n")
    source = {"files": str(tmp_path / "a.txt"), "licence": "MIT", "documents": unit}
    recipe = {**asked(tmp_path, {}, model, held_out=0), "sources": {"text": source}}
    done = run(tmp_path / "shards", recipe)
    found = texts_of(done.path)["text"]["train"]
    assert len(found) == count
    assert "\n".join(found).replace("\n\n", "\n").split() == ["One.", "Two.", "Three.", "Four."]


def test_what_cannot_be_read_is_counted(tmp_path: Path, model: dict[str, str]) -> None:
    recipe = asked(tmp_path, {"web": rows(8)}, model)
    with (tmp_path / "web.jsonl").open("ab") as file:
        file.write(b'{"text": "caf\xe9"}\n{"text": 7}\n{"text": " "}\n{"other": "x"}\nno json\n')
    done = run(tmp_path / "shards", recipe)
    assert sum(done.index.dropped.values()) == 5
    assert done.index.dropped["holds bytes that are not UTF-8"] == 1
    assert done.index.dropped["column 'text' is not text"] == 1
    assert done.index.dropped["column 'text' is empty"] == 1
    assert done.index.dropped["has no column 'text'"] == 1
    assert sum(f.documents for s in done.index.sources for f in s.files) == 8


def test_the_first_documents_only(tmp_path: Path, model: dict[str, str]) -> None:
    recipe = asked(tmp_path, {"web": rows(30)}, model, held_out=0)
    recipe["sources"]["web"]["max_documents"] = 7
    done = run(tmp_path / "shards", recipe)
    assert texts_of(done.path)["web"]["train"] == [text(number) for number in range(7)]


@pytest.mark.parametrize("threads", [1, 5])
def test_the_result_does_not_depend_on_the_threads(
    made: tuple[Path, TokenizeResult, Heard], tmp_path: Path, threads: int
) -> None:
    folder = made[0].parent / "data"  # the same files: a manifest tells what was asked
    run(tmp_path / "shards", asked(folder, SOURCES, SMALL, threads=threads))
    assert content(tmp_path / "shards") == content(made[0])


def test_another_seed_holds_out_others(tmp_path: Path, model: dict[str, str]) -> None:
    found = []
    for seed in (0, 1):
        done = run(tmp_path / str(seed), asked(tmp_path, SOURCES, model, seed=seed))
        found.append(set(texts_of(done.path)["web"]["held_out"]))
    assert found[0] != found[1]


def test_encoding_keeps_the_order_and_takes_little_ahead(
    made: tuple[Path, TokenizeResult, Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    from puna.flows import tokenize_encoding
    from puna.flows.tokenize_data import Document

    monkeypatch.setattr(tokenize_encoding, "BATCH_DOCUMENTS", 3)
    files = {name: (made[0] / name).read_bytes() for name in ("tokenizer.json",)}
    files["tokenizer_config.json"] = (made[0] / "tokenizer_config.json").read_bytes()
    tokenizer = open_tokenizer(TokenizerFiles(files), where=made[0])
    taken = 0

    def waiting():
        nonlocal taken
        for number in range(100):
            taken += 1
            document = Document(bytes(16), text(number), None, "MIT")
            yield Waiting("train", document, bytes(16), False)

    stream = encode_all(waiting(), tokenizer, threads=2)
    first = next(stream)
    assert first.tokens.tolist() == tokenizer.encode(text(0), eos=True)
    assert taken <= 3 * (2 * 2 + 1)
    rest = [one.tokens.tolist() for one in stream]
    assert rest == [tokenizer.encode(text(number), eos=True) for number in range(1, 100)]


def test_real_texts(tmp_path: Path, shared_data: Path) -> None:
    files = find_files(str(shared_data / "tinyshakespeare"))
    source = {"files": str(files[0]), "licence": "public domain", "documents": "paragraphs"}
    recipe = asked(tmp_path, {}, {"train": {"size": 1000}}, shard_tokens=100_000)
    done = run(tmp_path / "shards", {**recipe, "sources": {"plays": source}})
    shards = open_shards(done.path)
    shards.verify()
    with gzip.open(files[0], "rt", encoding="utf-8") as file:
        wanted = {part.strip("\n") for part in file.read().split("\n\n") if part.strip()}
    kept = texts_of(done.path, shards)["plays"]
    assert set(kept["train"]) | set(kept["held_out"]) == wanted
    documents = shards.sources["plays"].split("train")
    assert documents.tokens / documents.text_bytes.sum() < 0.6
