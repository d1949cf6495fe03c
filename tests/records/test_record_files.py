from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from puna.errors import InputError, MissingPackageError
from puna.records import find_files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.jsonl",
        "a.csv.gz",
        "deep/c.json",
        "deep/notes.md",
        "README.txt",
        "LICENSE-NOTE.txt",
        "dataset_infos.json",
        ".cache/d.jsonl",
        ".hidden.csv",
        "licensed.txt",
    ):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return tmp_path / "data"


def names(found: list[Path], root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in found]


def test_a_folder_gives_its_data_and_not_what_tells_about_them(tree: Path) -> None:
    found = names(find_files(str(tree)), tree)
    assert found == ["a.csv.gz", "b.jsonl", "deep/c.json", "licensed.txt"]
    assert names(find_files(str(tree), formats=["csv"]), tree) == ["a.csv.gz"]


def test_data_that_are_called_like_what_tells_about_them(tmp_path: Path) -> None:
    for name in ("license-plates.csv", "manifest.jsonl", "README.zh.txt", "requirements.txt.gz"):
        (tmp_path / name).touch()
    found = names(find_files(str(tmp_path)), tmp_path)
    assert found == ["license-plates.csv", "manifest.jsonl"]


def test_globs_are_sorted_and_paths_taken_as_they_are(tree: Path) -> None:
    assert names(find_files(f"{tree}/**/*.json*"), tree) == [
        "b.jsonl",
        "dataset_infos.json",
        "deep/c.json",
    ]
    assert names(find_files(f"{tree}/deep/notes.md"), tree) == ["deep/notes.md"]
    both = find_files([f"{tree}/b.jsonl", str(tree)])
    assert names(both, tree)[:2] == ["b.jsonl", "a.csv.gz"]
    assert len(both) == len(set(both))


def test_a_relative_glob(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    assert find_files("data/*.jsonl") == [Path("data/b.jsonl")]
    assert find_files("*/b.jsonl") == [Path("data/b.jsonl")]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("b.json", "did you mean"),
        ("none/*.json", "matches no file"),
        ("**x.json", "is no glob"),
        ("nowhere/x/y", "give a path, a glob"),
    ],
)
def test_what_is_not_there(tree: Path, name: str, told: str) -> None:
    with pytest.raises(InputError, match=r"\s".join(told.split())):
        find_files(f"{tree}/{name}")


def test_no_names_at_all() -> None:
    with pytest.raises(InputError, match="no files are named"):
        find_files([])


def test_a_mistyped_local_path_is_no_hub_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name in ("data/b.jsn", "elsewhere/train.jsonl"):
        with pytest.raises(InputError, match="does not exist") as caught:
            find_files(name)
        assert not isinstance(caught.value, MissingPackageError)


def test_a_hub_name_asks_for_data_files_only(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, repo_type: str, allow_patterns: list[str]) -> str:
        asked.append((repository, repo_type, allow_patterns))
        return str(tree)

    hub = types.SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert names(find_files("hub:owner/name", formats=["jsonl"]), tree) == ["b.jsonl"]
    assert names(find_files("owner/name/deep"[:10]), tree)[0] == "a.csv.gz"
    assert names(find_files("hub:owner/name/deep/*.json"), tree) == ["deep/c.json"]
    assert [call[:2] for call in asked] == [("owner/name", "dataset")] * 3
    assert asked[0][2] == ["*.jsonl", "*.jsonl.gz"]
    assert asked[2][2] == ["deep/*.json"]


def test_hub_failures_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(repository: str, repo_type: str, allow_patterns: list[str]) -> str:
        raise OSError("401 Client Error\nmore")

    hub = types.SimpleNamespace(snapshot_download=refuse)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(InputError, match=r"401 Client Error\n  fix: .*hf auth login"):
        find_files("hub:owner/name")
    with pytest.raises(InputError, match="not of the form owner/name"):
        find_files("hub:name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"no path here.*\n.*puna\[hub\]"):
        find_files("owner/name")


def test_a_package_is_found_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "speaking_pack"
    (package / "locale").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    for name in ("one.mo", "one.json", "two.mo"):
        (package / "locale" / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = find_files("package:speaking_pack/**/*.mo")
    assert names(found, package) == ["locale/one.mo", "locale/two.mo"]
    assert found == find_files("package:speaking_pack", formats=["mo"])
    assert found == find_files("package:speaking_pack/locale", formats=["mo"])
    with pytest.raises(InputError, match=r"1 \.json, 2 \.mo\n.*package:speaking_pack/\*\*/\*\.mo"):
        find_files("package:speaking_pack")
    with pytest.raises(InputError, match="is no glob"):
        find_files("package:speaking_pack//*.mo")
    assert "speaking_pack" not in sys.modules


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"not installed\n  fix: pip install no-such-pack"):
        find_files("package:no_such_pack/**/*.mo")
    with pytest.raises(InputError, match="no name of a Python package"):
        find_files("package:os.path")
