"""`puna generate`: prompts from anywhere, text or JSON lines, to anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import puna as package
from puna.generate import Sampling

Call = Callable[..., object]
SHORT = ("--max-tokens", "8")


@pytest.fixture(scope="module")
def llama(tiny_folder: Path) -> package.Llama:
    return package.load(str(tiny_folder))


def text(llama: package.Llama, prompt: str, **options: object) -> str:
    changes: dict[str, Any] = {"max_tokens": 8, **options}
    return llama.generate(prompt, Sampling(**changes)).text


def rows(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.split("\n") if line]


def test_one_prompt(puna: Call, tiny_folder: Path, llama: package.Llama) -> None:
    ran = puna("generate", "--model", tiny_folder, *SHORT, "Once upon a time")
    assert ran.code == 0
    assert ran.out == text(llama, "Once upon a time") + "\n"
    ready, rate = ran.err.splitlines()
    assert re.fullmatch(
        r".*tiny: \d+\.?\d* thousand parameters, float32, on .*; ready in \d+\.\d\d s", ready
    )
    assert re.fullmatch(r"8 tokens in \d+\.\d\d s, \d+\.\d tokens/s", rate)


def test_quiet(puna: Call, tiny_folder: Path) -> None:
    assert puna("generate", "--model", tiny_folder, *SHORT, "--quiet", "Once").err == ""


def test_several_prompts(puna: Call, tiny_folder: Path, llama: package.Llama) -> None:
    ran = puna("generate", "--model", tiny_folder, *SHORT, "Once", "the sea")
    expected = [f"> {p}\n{text(llama, p).strip()}\n\n" for p in ("Once", "the sea")]
    assert ran.out == "".join(expected)


def test_json_lines(puna: Call, tiny_folder: Path, llama: package.Llama) -> None:
    ran = puna("generate", "--model", tiny_folder, *SHORT, "--jsonl", "Once", "the 🦙")
    assert rows(ran.out) == [
        {
            "prompt": prompt,
            "text": text(llama, prompt),
            "finish": "length",
            "prompt_tokens": len(llama.tokenizer.encode(prompt)),
            "new_tokens": 8,
        }
        for prompt in ("Once", "the 🦙")
    ]
    assert "🦙" in ran.out, "people read this too"


def test_log_probabilities(puna: Call, tiny_folder: Path, llama: package.Llama) -> None:
    ran = puna("generate", "--model", tiny_folder, *SHORT, "--jsonl", "--logprobs", "2", "Once")
    found = rows(ran.out)[0]["logprobs"]
    expected = llama.generate("Once", Sampling(max_tokens=8, logprobs=2))
    assert isinstance(found, list)
    assert [token["logprob"] for token in found] == pytest.approx(expected.logprobs)
    assert [token["id"] for token in found] == list(expected.ids)
    assert found[0]["text"] == llama.tokenizer.decode(expected.ids[:1])
    assert [(top["id"], top["logprob"]) for top in found[0]["top"]] == [
        (index, pytest.approx(value))
        for index, value in expected.top_logprobs[0]  # type: ignore[index]
    ]


def test_every_option_of_sampling_arrives(
    puna: Call, tiny_folder: Path, llama: package.Llama
) -> None:
    options = (
        "--temperature 0.9 --top-k 50 --top-p 0.95 --min-p 0.01 --repetition-penalty 1.1",
        "--presence-penalty -0.2 --frequency-penalty 0.1 --seed -3 --ignore-eos",
        "--stop zzz --stop yyy --stop-tokens 7 --stop-tokens 8",
    )
    words = [word for line in options for word in line.split()]
    ran = puna("generate", "--model", tiny_folder, *SHORT, "--quiet", *words, "Once")
    assert ran.out.removesuffix("\n") == text(
        llama,
        "Once",
        temperature=0.9,
        top_k=50,
        top_p=0.95,
        min_p=0.01,
        repetition_penalty=1.1,
        presence_penalty=-0.2,
        frequency_penalty=0.1,
        seed=-3,
        ignore_eos=True,
        stop=("zzz", "yyy"),
        stop_tokens=(7, 8),
    )


def test_a_chat_prompt(puna: Call, tiny_folder: Path, llama: package.Llama) -> None:
    base = ("generate", "--model", tiny_folder, *SHORT, "--quiet", "--chat")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Once"}]
    short = Sampling(max_tokens=8)
    assert puna(*base, "Once").out.rstrip("\n") == llama.chat(messages[1:], short).text
    ran = puna(*base, "--system", "Be brief.", "Once")
    assert ran.out.rstrip("\n") == llama.chat(messages, short).text


# --- where prompts come from ------------------------------------------------------------------


def prompts(out: str) -> list[object]:
    return [row.get("prompt", row.get("messages")) for row in rows(out)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"Once\n\nthe sea\n", ["Once", "the sea"]),
        (b"Once\r\n the sea ", ["Once", " the sea "]),
        (b"\xef\xbb\xbfOnce\n", ["Once"]),
        ("the 🦙\n中\n".encode(), ["the 🦙", "中"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
    ],
)
def test_a_file_has_a_prompt_per_line(
    puna: Call, tiny_folder: Path, tmp_path: Path, data: bytes, expected: list[str]
) -> None:
    (tmp_path / "prompts.txt").write_bytes(data)
    base = ("generate", "--model", tiny_folder, "--max-tokens", "1", "--jsonl")
    assert prompts(puna(*base, "--file", tmp_path / "prompts.txt").out) == expected
    assert prompts(puna(*base, "--file", "-", stdin=data).out) == expected


def test_json_lines_have_prompts_or_messages(
    puna: Call, tiny_folder: Path, tmp_path: Path, llama: package.Llama
) -> None:
    messages = [{"role": "user", "content": "the sea"}]
    lines: list[object] = ["Once", {"prompt": "the llama", "id": 3}, {"messages": messages}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n\n" for line in lines))
    base = ("generate", "--model", tiny_folder, *SHORT, "--file", path)
    out = rows(puna(*base, "--jsonl").out)
    assert [row["text"] for row in out[:2]] == [text(llama, "Once"), text(llama, "the llama")]
    assert out[2]["messages"] == messages
    answer = llama.chat(messages, Sampling(max_tokens=8)).text
    assert out[2]["text"] == answer
    assert puna(*base).out.endswith(f"> the sea\n{answer.strip()}\n\n")
    assert prompts(puna(*base, "--jsonl", "first").out)[0] == "first"  # arguments come first


@pytest.mark.parametrize("data", [b"Once\nupon a", b"Once\nupon a\n", b"Once\r\nupon a\r\n"])
def test_standard_input_is_one_prompt(puna: Call, tiny_folder: Path, data: bytes) -> None:
    ran = puna("generate", "--model", tiny_folder, "--max-tokens", "1", "--jsonl", stdin=data)
    assert prompts(ran.out) == [data.decode().rstrip("\r\n")]


BAD_LINES = {
    '{"prompt": "a"': "is not JSON: Expecting ',' delimiter at column 15",
    '{"text": "a"}': 'has neither a text "prompt" nor a list "messages"',
    '{"prompt": 3}': 'has neither a text "prompt" nor a list "messages"',
    '{"messages": []}': 'has neither a text "prompt" nor a list "messages"',
    '{"prompt": "a", "messages": []}': 'has both "prompt" and "messages"',
    "17": 'has neither a text "prompt" nor a list "messages"',
    '{"messages": ["hi"]}': "messages[0] is not an object",
    '{"messages": [{"content": "hi"}]}': 'messages[0] needs a text "role"; there is none',
    '{"messages": [{"role": "user"}]}': 'messages[0] needs a text "content"; there is none',
    '{"messages": [{"role": "user", "content": 3}]}': 'messages[0] needs a text "content"; found 3',
    "[" * 100_000: "is not usable JSON: nested too deeply",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40])
def test_a_bad_line_is_named(puna: Call, tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n\n{line}\n')
    ran = puna("generate", "--file", path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"puna: {path}, line 3: {BAD_LINES[line]}")


def test_text_that_is_not_utf8_is_named(puna: Call, tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"fine\nfine\nf\xfcr\n")
    ran = puna("generate", "--file", path)
    assert (ran.code, ran.err) == (2, f"puna: {path}: is not UTF-8 in line 3\n")
    for options in ((), ("--file", "-")):
        ran = puna("generate", *options, stdin=b"f\xfcr")
        assert (ran.code, ran.err) == (2, "puna: standard input: is not UTF-8 in line 1\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), 'there is no prompt\n  fix: puna generate "Once upon a time"'),
        (("--file", "none.txt"), "none.txt: cannot be read: No such file or directory"),
        (("--file", "."), ".: cannot be read: Is a directory"),
        (("--system", "x", "Once"), "--system belongs to --chat\n  fix: add --chat"),
        (("--logprobs", "2", "Once"), "--logprobs belongs to --jsonl\n  fix: add --jsonl"),
        (("--batch", "0", "Once"), "--batch must be at least 1, not 0"),
        (("--temperature", "-1", "Once"), "temperature must be 0 or in [0.001, 1000], not -1.0"),
        (("--model", "lama-base", "Once"), "did you mean 'llama-base'?"),
    ],
)
def test_what_cannot_be_done_is_said(puna: Call, arguments: tuple[str, ...], message: str) -> None:
    ran = puna("generate", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("puna: ")
    assert message in ran.err


def test_a_prompt_that_is_too_long_stops_all(puna: Call, tiny_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a\n" * 9 + "x" * 70_000 + "\n")
    ran = puna("generate", "--model", tiny_folder, "--file", path, "--batch", "2", "--quiet")
    assert (ran.code, ran.out) == (2, "")
    assert "puna: prompt 10: has 70000 tokens; the model's context is 65536" in ran.err


# --- where text goes --------------------------------------------------------------------------


def test_out_is_written_whole(
    puna: Call, tiny_folder: Path, tmp_path: Path, llama: package.Llama
) -> None:
    out = tmp_path / "new" / "out.jsonl"
    out.parent.mkdir()
    base = ("generate", "--model", tiny_folder, *SHORT, "--jsonl", "--out", out)
    ran = puna(*base, "the 🦙")
    assert (ran.code, ran.out) == (0, "")
    assert rows(out.read_text(encoding="utf-8"))[0]["text"] == text(llama, "the 🦙")
    before = out.read_bytes()
    again = puna(*base, "Once")
    assert again.code == 2
    assert f"{out}: already exists" in again.err
    assert out.read_bytes() == before
    assert puna(*base, "--force", "Once").code == 0
    assert prompts(out.read_text()) == ["Once"]
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (RuntimeError("oh"), 1)], ids=repr
)
def test_out_is_absent_after_a_failure(
    puna: Call,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("puna.cli.generate.complete", failing)
    out = tmp_path / "new" / "out.txt"
    out.parent.mkdir()
    ran = puna("generate", "--model", tiny_folder, "--out", out, "Once", "upon")
    assert ran.code == code
    assert list(out.parent.iterdir()) == []
