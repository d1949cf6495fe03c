"""Encoding word by word gives what the library gives, for every code point and any text."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Backend

from puna.errors import InputError
from puna.tokens import words
from puna.tokens.bytelevel import to_token
from puna.tokens.pretokenizers import PRE
from puna.tokens.word_workers import result_of, word_workers
from puna.tokens.words import WordEncoder
from tokens.samples import open_files, tiny_json

# Each way to cut once, by the first name that has it.
CUTS = list({json.dumps(pre.patterns): name for name, pre in reversed(PRE.items())}.values())
SAMPLE = (
    "It's  an OLD'S\ttext;\r\n\r\n  in 2024 (or １２３٤) — naïve\u00a0ﬁ ſ'ſ \x1c\x1d\x85\u2028 "
    "我们在二〇二六年…。こんにちは 안녕 \u200b👩\u200d👧 e\u0301 \ufeff <|x|> "
    "```py\n\tdef f(): pass\n```   \n \n"
)


def backend(name: str) -> Backend:
    """A vocabulary of all bytes and some merges."""
    pieces = [to_token(bytes([byte])) for byte in range(256)]
    merges = [(" ", " "), ("e", "r"), ("i", "n"), ("t", "h"), (" ", "t"), ("1", "2"), ("'", "s")]
    pairs = [(to_token(a.encode()), to_token(b.encode())) for a, b in merges]
    pieces += [a + b for a, b in pairs]
    made = Backend(models.BPE({piece: i for i, piece in enumerate(pieces)}, pairs))
    made.pre_tokenizer = PRE[name].build()
    made.encode_special_tokens = True
    return made


def encoder(made: Backend) -> WordEncoder:
    found = WordEncoder.of(made)
    assert found is not None
    return found


def expected(made: Backend, texts: list[str]) -> list[list[int]]:
    return [one.ids for one in made.encode_batch_fast(texts, add_special_tokens=False)]


def code_points() -> Iterator[int]:
    """The first plane, of ideographs and syllables every thirteenth; some of the others."""
    even = [*range(0x3400, 0xA000), *range(0xAC00, 0xD7A4)]  # one kind of letter throughout
    yield from sorted({*range(0xD800), *range(0xE000, 0x10000)} - set(even) | set(even[::13]))
    yield from range(0x10000, 0x20000, 5)
    yield from range(0x20000, 0x110000, 997)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama3", "gpt-2", "smollm", "qwen2"])
def test_every_kind_of_character_is_cut_as_the_library_cuts_it(name: str) -> None:
    made = backend(name)
    texts = [f"a{chr(c)}1{chr(c)} {chr(c)}.'{chr(c)}" for c in code_points()]
    found = encoder(made).encode(texts)
    wrong = [t for t, a, b in zip(texts, found, expected(made, texts), strict=True) if a != b]
    assert not wrong, [f"U+{ord(t[1]):04X}" for t in wrong[:20]]


@pytest.mark.parametrize("name", CUTS)
def test_a_sample_is_cut_as_the_library_cuts_it(name: str) -> None:
    made = backend(name)
    texts = [SAMPLE, "", SAMPLE[::-1], SAMPLE * 3]
    assert encoder(made).encode(texts) == expected(made, texts)


ODD = st.sampled_from(" \t\n\r'sS1٣.,;-_<|>`\u00a0\u2028\u3000éeЖ漢字ー\u0301\u200d👍")
TEXTS = st.lists(st.text(ODD | st.characters(exclude_categories=["Cs"]), max_size=40), max_size=4)


@given(TEXTS, st.sampled_from(CUTS))
def test_any_text_is_cut_as_the_library_cuts_it(texts: list[str], name: str) -> None:
    made = backend(name)
    one = encoder(made)
    for _ in range(2):  # the second time every word is known
        assert one.encode(texts) == expected(made, texts)


def test_added_tokens_are_found() -> None:
    made = backend("llama3")
    made.add_tokens([AddedToken("<tool>", special=False), AddedToken("<end>", special=True)])
    texts = ["a <tool> b", "a <end> b", "plain text"]
    found = encoder(made).encode(texts)
    assert found == expected(made, texts)
    assert made.token_to_id("<tool>") in found[0]
    assert made.token_to_id("<end>") not in found[1]


def test_what_cannot_be_cut_is_left_to_the_library() -> None:
    with_normalizer = json.loads(backend("gpt-2").to_str())
    with_normalizer["normalizer"] = {"type": "NFC"}
    assert WordEncoder.of(Backend.from_str(json.dumps(with_normalizer))) is None
    assert WordEncoder.of(Backend(models.BPE({"a": 0}, []))) is None  # it does not cut at all
    many = backend("gpt-2")
    many.add_tokens([f"<{number}>" for number in range(words.MAX_ADDED + 1)])
    assert WordEncoder.of(many) is None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MAX_WORDS", 3)
    made = backend("llama3")
    one = encoder(made)
    texts = ["one two three", "four five " + "x" * 100, "one four " + "x" * 100]
    for text in texts:
        assert one.encode([text]) == expected(made, [text])
    assert set(one._known) == {"one", " two", " three"}


def test_threads_share_one() -> None:
    made = backend("llama3")
    one, texts = encoder(made), [SAMPLE + str(number) for number in range(200)]
    results: list[list[list[int]]] = []
    threads = [threading.Thread(target=lambda: results.append(one.encode(texts))) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected(made, texts)] * 4


def test_documents_are_framed_and_checked() -> None:
    config = json.dumps({"eos_token": "<|im_end|>"}).encode()
    tokenizer = open_files(tokenizer_json=tiny_json(), tokenizer_config_json=config)
    texts = ["The old man.", "", "第一 <|im_end|> x"]
    assert tokenizer.encode_documents(texts) == tokenizer.encode_batch(texts, eos=True)
    assert tokenizer.words is not None
    with pytest.raises(InputError, match="lone surrogate at character 1"):
        tokenizer.encode_documents(["ok", "a\ud800"])
    with pytest.raises(InputError, match="found bytes"):
        tokenizer.encode_documents([b"no text"])  # type: ignore[list-item]


def test_processes_give_the_same_and_one_that_dies_is_told() -> None:
    made = backend("llama3")
    texts = [SAMPLE, "", "one two"]
    with word_workers(encoder(made), 2, "H") as workers:
        futures = [workers.submit(texts) for _ in range(5)]
        for future in futures:
            assert [list(ids) for ids in result_of(future)] == expected(made, texts)
        for child in multiprocessing.active_children():
            child.kill()
        with pytest.raises(InputError, match="a process that tokenizes has died"):
            result_of(workers.submit(texts))


ORPHANS = """
import multiprocessing, sys
from tokens.test_words import SAMPLE, backend, encoder
from puna.tokens.word_workers import result_of, word_workers
if __name__ == "__main__":
    with word_workers(encoder(backend("llama3")), 1, "H") as workers:
        result_of(workers.submit([SAMPLE]))
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        sys.stdin.read()
"""


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(ORPHANS)
    command = [sys.executable, str(script)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as parent:
        assert parent.stdout is not None
        children = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert children
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, children)):
        assert time.monotonic() < deadline, "an orphan goes on"
        time.sleep(0.05)
